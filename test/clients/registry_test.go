package clients_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
	"gantry/test/clients"
)

// programs are the command lines that registries are used with.
func programs(t *testing.T, d *testkit.Daemon) map[string]string {
	t.Helper()
	list := map[string]string{"gantry": d.Program("gantry")}
	if p, err := exec.LookPath("docker"); err == nil {
		list["docker"] = p
	} else if os.Getenv("CI") != "" {
		t.Error("no docker command line")
	}
	return list
}

func at(t *testing.T, path string, d *testkit.Daemon) story {
	t.Helper()
	return story{t, clients.CLI{Path: path, Env: []string{
		"GANTRY_HOST=unix://" + d.Socket, "DOCKER_HOST=unix://" + d.Socket, "DOCKER_CONTEXT=", "DOCKER_CONFIG=" + t.TempDir(),
	}}}
}

// login logs in with a password on standard input.
func (s story) login(host, password string) clients.Result {
	s.Helper()
	r, err := s.cli.Run(strings.NewReader(password+"\n"), "login", "-u", registry.DebianUser, "--password-stdin", host)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// What one does by hand: change a container, keep it as an image, push it, and
// run it elsewhere. The registry is Debian's.
func TestImageGoesToAnotherDaemon(t *testing.T) {
	one, two := testkit.StartBusybox(t), testkit.StartDaemon(t, "--bridge", "none")
	host := registry.StartDebian(t)
	for name, path := range programs(t, one) {
		t.Run(name, func(t *testing.T) {
			here, there := at(t, path, one), at(t, path, two)
			image := host + "/team/" + name + ":1"
			here.ok("run", "--name", "work-"+name, "--network", "none", "busybox", "sh", "-c", "echo made by "+name+" >/made")
			here.ok("commit", "work-"+name, image)
			here.ok("rm", "work-"+name)
			here.fails(1, "no basic auth credentials", "push", image)
			if r := here.login(host, "wrong"); r.Code != 1 || !strings.Contains(r.Stderr, "unauthorized: authentication required") {
				t.Errorf("a wrong password: %+v", r)
			}
			if r := here.login(host, registry.DebianPassword); r.Code != 0 || !strings.Contains(r.Stdout, "Login Succeeded") {
				t.Fatalf("login: %+v", r)
			}
			out := here.ok("push", image)
			if !strings.Contains(out, "The push refers to repository ["+host+"/team/"+name+"]") || !strings.Contains(out, "1: digest: sha256:") {
				t.Error(out)
			}
			there.fails(1, "pull access denied", "pull", image)
			there.login(host, registry.DebianPassword)
			r, err := there.cli.Run(nil, "run", "--rm", "--network", "none", image, "cat", "/made")
			if err != nil || r.Code != 0 || r.Stdout != "made by "+name+"\n" || !strings.Contains(r.Stderr, "Unable to find image '"+image+"' locally") {
				t.Errorf("%+v, %v", r, err)
			}
			if a, b := here.ok("image", "inspect", "-f", "{{.Id}} {{.RootFS}}", image), there.ok("image", "inspect", "-f", "{{.Id}} {{.RootFS}}", image); a != b {
				t.Errorf("%s is not %s", a, b)
			}
			if out := there.ok("pull", image); !strings.Contains(out, "Image is up to date for "+image) {
				t.Error(out)
			}
			there.ok("logout", host)
			there.fails(1, "pull access denied", "pull", image)
		})
	}
}

// skopeo and this engine read what the other has written.
func TestSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no skopeo: run `make deps`")
	}
	d, r := testkit.StartBusybox(t), registry.New(t, registry.Options{})
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(skopeo, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	var b bytes.Buffer
	if err := testkit.Busybox(&b, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for tag, args := range map[string][]string{
		"oci": {"--format", "oci"}, "v2s2": {"--format", "v2s2"}, "zstd": {"--format", "oci", "--dest-compress", "--dest-compress-format", "zstd"},
	} {
		ref := r.Host + "/in:" + tag
		run(append([]string{"copy", "-q", "--dest-tls-verify=false"}, append(args, "docker-archive:"+archive, "docker://"+ref)...)...)
		if got := d.OK(t, "run", "--rm", "--network", "none", ref, "echo", tag); got != tag {
			t.Errorf("%s: %q", tag, got)
		}
		// And back, out of this engine.
		out := r.Host + "/out:" + tag
		d.OK(t, "tag", ref, out)
		d.OK(t, "push", "-q", out)
		dir := filepath.Join(t.TempDir(), tag)
		run("copy", "-q", "--src-tls-verify=false", "docker://"+out, "dir:"+dir)
		if files, err := os.ReadDir(dir); err != nil || len(files) < 4 {
			t.Errorf("%s: %v, %v", tag, files, err)
		}
		if !strings.Contains(run("inspect", "--tls-verify=false", "docker://"+out), `"Digest"`) {
			t.Error("inspect", tag)
		}
	}
}

// A credential helper keeps what config.json then does not have.
func TestCredentialHelper(t *testing.T) {
	d, host := testkit.StartDaemon(t), registry.StartDebian(t)
	for name, path := range programs(t, d) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			helper := "#!/bin/sh\nf=" + dir + "/kept\ncase $1 in\nstore) cat >$f;;\nget) cat $f 2>/dev/null || { echo credentials not found in native keychain; exit 1; };;\nerase) rm -f $f;;\nesac\n"
			for file, text := range map[string]string{"docker-credential-kept": helper, "config.json": `{"credsStore":"kept"}`} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			s := at(t, path, d)
			s.cli.Env = append(s.cli.Env, "DOCKER_CONFIG="+dir, "PATH="+dir+":"+os.Getenv("PATH"))
			if r := s.login(host, registry.DebianPassword); r.Code != 0 || strings.Contains(r.Stderr, "unencrypted") {
				t.Fatalf("%+v", r)
			}
			kept, err := os.ReadFile(filepath.Join(dir, "kept"))
			conf, _ := os.ReadFile(filepath.Join(dir, "config.json"))
			if err != nil || !strings.Contains(string(kept), `"Secret":"pw"`) || strings.Contains(string(conf), "auth\"") {
				t.Errorf("kept %s, %v; config.json %s", kept, err, conf)
			}
			s.fails(1, "not found", "pull", host+"/nothing:1") // and not: access denied
			s.ok("logout", host)
			if _, err := os.Stat(filepath.Join(dir, "kept")); err == nil {
				t.Error("the helper was not told of the logout")
			}
		})
	}
}

// The flags of pull, push and run that concern registries.
func TestRegistryFlags(t *testing.T) {
	d, r := testkit.StartDaemon(t, "--bridge", "none"), registry.New(t, registry.Options{})
	busybox, err := testkit.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range programs(t, d) {
		t.Run(name, func(t *testing.T) {
			s, repo := at(t, path, d), r.Host+"/flags/"+name
			mine := r.Put("flags/"+name, "", registry.Image{Layers: [][]byte{busybox}})
			other := r.Put("flags/"+name, "", registry.Image{Layers: [][]byte{testkit.Layer(testkit.File{Name: name})}, Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
			index := r.PutIndex("flags/"+name, "1", mine, other)
			r.Put("flags/"+name, "2", registry.Image{Layers: [][]byte{busybox}, Docker: true})
			if out := s.ok("pull", "--all-tags", repo); strings.Count(out, "Status: Downloaded newer image for") != 2 {
				t.Error(out)
			}
			if out := s.ok("run", "--rm", "--network", "none", "--pull=always", "--quiet", repo+":1", "echo", "hi"); out != "hi\n" {
				t.Errorf("%q", out)
			}
			s.fails(1, "no matching manifest for linux/riscv64 in the manifest list entries", "pull", "--platform", "linux/riscv64", repo+":1")
			if out := s.ok("pull", "--disable-content-trust", "--platform", "linux/s390x", repo+":1"); !strings.Contains(out, "Digest: "+index.Digest.String()) {
				t.Error(out)
			}
			s.ok("tag", repo+":1", repo+"-copy:a")
			s.ok("tag", repo+":2", repo+"-copy:b")
			if out := s.ok("push", "--disable-content-trust", "--all-tags", repo+"-copy"); strings.Count(out, ": digest: sha256:") != 2 || !strings.Contains(out, "Mounted from flags/"+name) {
				t.Error(out)
			}
			if out := s.ok("push", "--platform", "linux/s390x", repo+"-copy:a"); !strings.Contains(out, "a: digest: "+other.Digest.String()) {
				t.Error(out)
			}
			if out := s.ok("search", "--format", "{{.Name}}", r.Host+"/flags/"+name); !strings.Contains(out, repo+"-copy") {
				t.Error(out)
			}
			if out := s.ok("pull", "-q", repo+"@"+mine.Digest.String()); out != repo+"@"+mine.Digest.String()+"\n" {
				t.Errorf("%q", out)
			}
		})
	}
}
