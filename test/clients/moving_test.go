package clients_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
	"gantry/test/clients"
)

// greeting is a Debian package with one program: an archive of ar(5) with the
// members of deb(5).
func greeting(t *testing.T) string {
	t.Helper()
	packed := func(files ...testkit.File) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(testkit.Layer(files...)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	control := "Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: Test <test@localhost>\nDescription: says what it says\n"
	var deb bytes.Buffer
	deb.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.gz", packed(testkit.File{Name: "./control", Data: []byte(control)})},
		{"data.tar.gz", packed(testkit.File{Name: "./usr/"}, testkit.File{Name: "./usr/bin/"}, testkit.File{Name: "./usr/bin/greeting", Data: []byte("#!/bin/sh\necho hello from a package\n"), Mode: 0o755})},
	} {
		fmt.Fprintf(&deb, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		deb.Write(m.data)
		if len(m.data)%2 == 1 {
			deb.WriteByte('\n')
		}
	}
	path := filepath.Join(t.TempDir(), "greeting.deb")
	if err := os.WriteFile(path, deb.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// smallDebian is Debian without what no package needs here.
func smallDebian(t *testing.T) string {
	t.Helper()
	in, err := os.Open(testkit.Debian(t))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "debian.tar"))
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(out)
	left := regexp.MustCompile(`^(var/(lib/apt|cache)|usr/share/(doc|locale|man|zoneinfo|i18n)|usr/lib/(systemd|udev|x86_64-linux-gnu/(gconv|systemd|perl.*)))/.`)
	for tr := tar.NewReader(in); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err == nil && left.MatchString(strings.TrimPrefix(h.Name, "./")) {
			continue
		}
		if err == nil {
			err = tw.WriteHeader(h)
		}
		if err == nil {
			_, err = io.Copy(tw, tr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// everything tells of everything in an image: name, type, mode, owner, time, link and
// checksum.
func (s story) everything(image string) []string {
	s.Helper()
	id := strings.TrimSpace(s.ok("create", image, "true"))
	defer s.ok("rm", id)
	cmd := exec.Command(s.cli.Path, "export", id)
	cmd.Env = append(os.Environ(), s.cli.Env...)
	out, err := cmd.StdoutPipe()
	s.must(err)
	s.must(cmd.Start())
	var lines []string
	for tr := tar.NewReader(out); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		s.must(err)
		if h.Name == ".dockerenv" {
			continue // the container's own
		}
		sum := sha256.New()
		_, err = io.Copy(sum, tr)
		s.must(err)
		lines = append(lines, fmt.Sprintf("%s %c %o %d:%d %d %s %x", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Linkname, sum.Sum(nil)))
	}
	s.must(cmd.Wait())
	if len(lines) < 1000 {
		s.Errorf("%s has only %d files", image, len(lines))
	}
	slices.Sort(lines)
	return lines
}

// TestWorkByHand is a day's work: run a system at a terminal, install a package,
// commit, log in, push; another daemon pulls it and runs it. And what was
// committed moves to the other daemon without a registry, as the same tree.
func TestWorkByHand(t *testing.T) {
	system, deb := smallDebian(t), greeting(t)
	reg := registry.New(t, registry.Options{Auth: registry.Token, User: "user", Password: "secret"})
	other := testkit.StartDaemon(t, "--bridge", "none")
	var base string
	each(t, func(s story) {
		there := s
		there.cli.Env = append(slices.Clone(s.cli.Env), "DOCKER_HOST=unix://"+other.Socket, "GANTRY_HOST=unix://"+other.Socket)
		if base == "" { // once for both command lines
			base = strings.TrimSpace(s.ok("import", system, "debian"))
		}
		term := s.terminal("run", "-it", "--name", "work", "--hostname", "deb", "--network", "none", "-v", deb+":/greeting.deb:ro", "debian", "bash")
		s.must(term.Expect("root@deb:/# "))
		s.must(term.Type("dpkg -i /greeting.deb && greeting; echo kept > /root/note; exit\r"))
		s.must(term.Expect("Setting up greeting"))
		s.must(term.Expect("hello from a package"))
		if code, err := term.Wait(); err != nil || code != 0 {
			s.Fatalf("bash: exit %d, %v", code, err)
		}
		name := reg.Host + "/team/" + filepath.Base(s.cli.Path) + ":1"
		id := strings.TrimSpace(s.ok("commit", "-m", "greeting", "work", name))
		s.fails(1, "denied", "push", name)
		s.fails(1, "", "login", "-u", "user", "-p", "wrong", reg.Host)
		if r, err := s.cli.Run(strings.NewReader("secret\n"), "login", "-u", "user", "--password-stdin", reg.Host); err != nil || r.Code != 0 || !strings.Contains(r.Stdout, "Login Succeeded") {
			s.Fatalf("login: %+v, %v", r, err)
		}
		s.ok("push", name)
		there.ok("pull", name)
		if got := strings.TrimSpace(there.ok("image", "inspect", "-f", "{{.Id}}", name)); got != id {
			s.Errorf("pulled %s, pushed %s", got, id)
		}
		if got := there.ok("run", "--rm", "--network", "none", name, "sh", "-c", "greeting; cat /root/note; dpkg -s greeting | grep ^Status"); got != "hello from a package\nkept\nStatus: install ok installed\n" {
			s.Errorf("there it says %q", got)
		}
		s.ok("logout", reg.Host)

		// A snapshot moves.
		there.ok("rmi", name)
		move := name + "-moved"
		s.ok("tag", name, move)
		save, load := exec.Command(s.cli.Path, "save", move), exec.Command(s.cli.Path, "load")
		save.Env, load.Env = append(os.Environ(), s.cli.Env...), append(os.Environ(), there.cli.Env...)
		pipe, err := save.StdoutPipe()
		s.must(err)
		load.Stdin = pipe
		s.must(save.Start())
		if out, err := load.CombinedOutput(); err != nil || !strings.Contains(string(out), "Loaded image: "+move) {
			s.Fatalf("load: %v: %s", err, out)
		}
		s.must(save.Wait())
		here, moved := s.everything(move), there.everything(move)
		for i := range min(len(here), len(moved)) {
			if here[i] != moved[i] {
				s.Errorf("here %s\nthere %s", here[i], moved[i])
			}
		}
		if len(here) != len(moved) {
			s.Errorf("%d files here, %d there", len(here), len(moved))
		}
		s.ok("rm", "work")
		s.ok("rmi", name, move)
		there.ok("rmi", move)
	})
}

// TestSkopeo: skopeo reads and writes our archives, our daemon and, through
// Debian's registry, what our daemon pushes and pulls; all of it is the same
// image.
func TestSkopeo(t *testing.T) {
	d := testkit.StartBusybox(t)
	dir := t.TempDir()
	peer := registry.StartDebian(t)
	creds := registry.DebianUser + ":" + registry.DebianPassword
	skopeo := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("skopeo", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	// layers are the digests of an image's layers, unpacked.
	layers := func(name string) string { return d.OK(t, "image", "inspect", "-f", "{{json .RootFS.Layers}}", name) }
	runs := func(name string) {
		t.Helper()
		if got := d.OK(t, "run", "--rm", "--network", "none", name, "cat", "/note"); got != "made here" {
			t.Errorf("%s says %q", name, got)
		}
		if got, want := layers(name), layers("made"); got != want {
			t.Errorf("%s has the layers %s, not %s", name, got, want)
		}
	}
	d.OK(t, "run", "--name", "box", "--network", "none", "busybox", "sh", "-c", "echo made here >/note")
	d.OK(t, "commit", "box", "made")
	d.OK(t, "rm", "box")

	// Archives, out and in.
	saved := filepath.Join(dir, "saved.tar")
	d.OK(t, "save", "-o", saved, "made")
	skopeo("copy", "docker-archive:"+saved+":docker.io/library/made:latest", "oci-archive:"+dir+"/oci.tar:through:oci")
	skopeo("copy", "oci-archive:"+saved+":latest", "docker-archive:"+dir+"/docker.tar:through:docker")
	d.OK(t, "load", "-i", dir+"/oci.tar")
	d.OK(t, "load", "-i", dir+"/docker.tar")
	runs("through:docker")
	runs("through:oci")

	// Our API, both ways.
	daemon := []string{"--src-daemon-host", "unix://" + d.Socket}
	skopeo(append(append([]string{"copy"}, daemon...), "docker-daemon:made:latest", "dir:"+dir+"/image")...)
	skopeo("copy", "--dest-daemon-host", "unix://"+d.Socket, "dir:"+dir+"/image", "docker-daemon:through:daemon")
	runs("through:daemon")
	var about struct{ Layers []string }
	if err := json.Unmarshal([]byte(skopeo("inspect", "--daemon-host", "unix://"+d.Socket, "docker-daemon:made:latest")), &about); err != nil || len(about.Layers) != 2 {
		t.Errorf("skopeo sees %v, %v", about, err)
	}

	// Debian's registry, both ways.
	gantry := clients.CLI{Path: d.Program("gantry"), Env: []string{"GANTRY_HOST=unix://" + d.Socket, "DOCKER_CONFIG=" + dir}}
	for _, step := range [][]string{
		{"login", "-u", registry.DebianUser, "-p", registry.DebianPassword, peer},
		{"tag", "made", peer + "/made:1"}, {"push", peer + "/made:1"},
	} {
		if r, err := gantry.Run(nil, step...); err != nil || r.Code != 0 {
			t.Fatalf("%v: %+v, %v", step, r, err)
		}
	}
	skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--src-creds", creds, "--dest-creds", creds, "docker://"+peer+"/made:1", "docker://"+peer+"/again:1")
	if r, err := gantry.Run(nil, "pull", peer+"/again:1"); err != nil || r.Code != 0 {
		t.Fatalf("pull: %+v, %v", r, err)
	}
	runs(peer + "/again:1")
}
