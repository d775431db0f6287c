package clients_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
)

// here makes the user's side of the copies.
func (s story) here() string {
	s.Helper()
	dir := s.TempDir()
	s.must(os.MkdirAll(dir+"/d/sub", 0o755))
	s.must(os.WriteFile(dir+"/f", []byte("file\n"), 0o640))
	s.must(os.WriteFile(dir+"/d/a", []byte("a\n"), 0o644))
	s.must(os.WriteFile(dir+"/d/sub/b", []byte("b\n"), 0o600))
	s.must(os.Symlink("a", dir+"/d/l"))
	s.must(os.Symlink("d", dir+"/dl"))
	s.must(os.Symlink("f", dir+"/fl"))
	return dir
}

// TestCopyRules walks through the rules of cp, in and out of containers that
// run, are frozen, have ended, and never ran.
func TestCopyRules(t *testing.T) {
	each(t, func(s story) {
		here := s.here()
		script := "mkdir -p /dir/e /other; echo x >/dir/x; ln -s x /dir/l; ln -s /dir /dl; ln -s /nowhere /broken; echo old >/old"
		s.ok("run", "--name", "seed", "busybox", "sh", "-c", script)
		s.ok("commit", "seed", "seeded")
		s.ok("run", "-d", "--name", "up", "seeded", "sleep", "600")
		s.ok("run", "-d", "--name", "frozen", "seeded", "sleep", "600")
		s.ok("pause", "frozen")
		s.ok("run", "--name", "ended", "seeded", "true")
		s.ok("create", "--name", "new", "seeded", "sleep", "600")
		for _, c := range []string{"up", "frozen", "ended", "new"} {
			s.copyIn(here, c)
			s.copyOut(here, c)
		}
		s.ok("unpause", "frozen")
		s.ok("rm", "-f", "up", "frozen", "ended", "new", "seed")
		s.ok("rmi", "seeded")
	})
}

// tree lists what is at a path of a container, by cp itself.
func (s story) tree(c, p string) string {
	s.Helper()
	r, err := s.cli.Run(nil, "cp", c+":"+p, "-")
	if err != nil || r.Code != 0 {
		s.Fatalf("cp %s:%s -: %v %s", c, p, err, r.Stderr)
	}
	var names []string
	for tr := tar.NewReader(strings.NewReader(r.Stdout)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return strings.Join(names, " ")
		}
		s.must(err)
		n := h.Name
		if h.Linkname != "" {
			n += "->" + h.Linkname
		}
		names = append(names, n)
	}
}

func (s story) copyIn(here, c string) {
	s.Helper()
	for _, step := range []struct{ from, to, at, want string }{
		{"f", "/dir", "/dir", "dir/ dir/e/ dir/f dir/l->x dir/x"},                // into a directory
		{"f", "/dir/", "/dir/f", "f"},                                            //
		{"f", "/dir/named", "/dir/named", "named"},                               // under another name
		{"f", "/old", "/old", "old"},                                             // over a file
		{"d", "/made", "/made", "made/ made/a made/l->a made/sub/ made/sub/b"},   // a directory that is not there
		{"d", "/made", "/made/d", "d/ d/a d/l->a d/sub/ d/sub/b"},                // and one that is
		{"d/.", "/made/d/.", "/made/d", "d/ d/a d/l->a d/sub/ d/sub/b"},          // content
		{"d/.", "/dots", "/dots", "dots/ dots/a dots/l->a dots/sub/ dots/sub/b"}, //
		{"f", "/dl", "/dir", "dir/ dir/e/ dir/f dir/l->x dir/named dir/x"},       // through a link
		{"f", "/dl/e/", "/dir/e", "e/ e/f"},                                      //
		{"fl", "/other/", "/other", "other/ other/fl->f"},                        // a link is a link
		{"-L fl", "/other/", "/other", "other/ other/fl"},                        // unless it is followed
		{"-a d/sub/b", "/other/kept", "/other", "other/ other/fl other/kept"},    //
	} {
		words := strings.Fields(step.from)
		words[len(words)-1] = filepath.Join(here, words[len(words)-1]) + strings.TrimPrefix(words[len(words)-1], strings.TrimSuffix(words[len(words)-1], "/."))
		s.ok(append(append([]string{"cp"}, words...), c+":"+step.to)...)
		if got := s.tree(c, step.at); got != step.want {
			s.Errorf("%s: cp %s %s: %s holds %q, want %q", c, step.from, step.to, step.at, got, step.want)
		}
	}
	for _, bad := range [][3]string{
		{"d", "/old", "cannot copy directory"},
		{"f", "/none/", "no such directory"},
		{"f", "/none/x", "Could not find the file /none in container " + c},
		{"none", "/dir", "no such file or directory"},
	} {
		s.fails(1, bad[2], "cp", here+"/"+bad[0], c+":"+bad[1])
	}
}

func (s story) copyOut(here, c string) {
	s.Helper()
	out := s.TempDir()
	for _, step := range []struct{ from, to, want string }{
		{"/dir/x", "", "x"},
		{"/dir/x", "/y", "x y"},
		{"/dir/e", "", "e e/f x y"},
		{"/dir/e", "/n", "e e/f n n/f x y"},
		{"/dir/e/.", "/n2", "e e/f n n/f n2 n2/f x y"},
		{"/dir/l", "/link", "e e/f link->x n n/f n2 n2/f x y"},
	} {
		s.ok("cp", c+":"+step.from, out+step.to)
		if got := listing(s.T, out); got != step.want {
			s.Errorf("%s: cp %s %s: %q, want %q", c, step.from, step.to, got, step.want)
		}
	}
	s.ok("cp", "-L", c+":/dir/l", out+"/followed")
	if text, err := os.ReadFile(out + "/followed"); err != nil || string(text) != "x\n" {
		s.Errorf("%s: followed: %q %v", c, text, err)
	}
	s.fails(1, "Could not find the file /none in container "+c, "cp", c+":/none", out)
	s.fails(1, "cannot copy directory", "cp", c+":/dir", out+"/x")
	s.fails(1, "not a directory", "cp", c+":/dir/x/", out+"/z")
	for _, p := range []string{"/proc/1/status", "/dev/null"} {
		s.fails(1, "Could not find the file "+p, "cp", c+":"+p, out)
	}
}

// listing lists what is below dir.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if to, err := os.Readlink(p); err == nil {
			rel += "->" + to
		}
		names = append(names, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// TestCopyAndMounts: volumes, binds and tmpfs are copied from and to as the
// container sees them, and what is read-only stays as it is.
func TestCopyAndMounts(t *testing.T) {
	each(t, func(s story) {
		here, bind := s.here(), s.TempDir()
		s.must(os.WriteFile(bind+"/b", []byte("bind\n"), 0o644))
		mounts := []string{"-v", "vol:/etc", "-v", "deep:/new/deep", "-v", bind + ":/bind", "-v", bind + ":/ro:ro", "--tmpfs", "/tm"}
		s.ok(append(append([]string{"create", "--name", "cc"}, mounts...), "busybox", "sh", "-c", "echo t >/tm/t; sleep 600")...)
		if got := s.tree("cc", "/etc"); got != "etc/ etc/group etc/passwd etc/shadow" {
			s.Errorf("a fresh volume: %q", got) // with what the image has there
		}
		for range 2 {
			s.ok("cp", here+"/f", "cc:/new/deep/")
			s.ok("cp", here+"/f", "cc:/bind/from")
			s.fails(1, "mounted volume is marked read-only", "cp", here+"/f", "cc:/ro/")
			if got := s.tree("cc", "/bind/."); got != "./ ./b ./from" {
				s.Errorf("bind: %q", got)
			}
			if text, err := os.ReadFile(bind + "/from"); err != nil || string(text) != "file\n" {
				s.Errorf("on the host: %q %v", text, err)
			}
			s.ok("start", "cc")
			time.Sleep(100 * time.Millisecond)
		}
		if got := s.tree("cc", "/tm"); got != "tm/ tm/t" {
			s.Errorf("tmpfs: %q", got)
		}
		// A file that is a mount is written in place.
		s.ok("cp", here+"/f", "cc:/etc/hostname")
		if got := s.ok("exec", "cc", "cat", "/etc/hostname", "/new/deep/f"); got != "file\nfile\n" {
			s.Errorf("inside: %q", got)
		}
		s.ok("rm", "-fv", "cc")
		s.ok("run", "-d", "--name", "sealed", "--read-only", "-v", "deep:/data", "busybox", "sleep", "600")
		s.fails(1, "container rootfs is marked read-only", "cp", here+"/f", "sealed:/tmp/")
		s.ok("cp", here+"/f", "sealed:/data/g")
		s.ok("kill", "sealed")
		s.fails(1, "container rootfs is marked read-only", "cp", here+"/f", "sealed:/tmp/")
		s.ok("rm", "-f", "sealed")
		s.ok("volume", "rm", "vol", "deep")
	})
}

// TestDiffExportCommit: what a container has changed becomes an image, and all
// of it a tar.
func TestDiffExportCommit(t *testing.T) {
	each(t, func(s story) {
		s.ok("run", "-d", "--name", "cc", "-v", "dv:/data", "-e", "K=v", "--label", "a=b", "-u", "root", "busybox", "sh", "-c",
			"mkdir -p /d/e; echo new >/d/x; rm /bin/vi; rm -r /home; mkdir /home; echo h >/home/h; echo >>/etc/passwd; echo v >/data/v; touch /ready; sleep 600")
		for range 100 {
			if r, _ := s.cli.Run(nil, "exec", "cc", "test", "-e", "/ready"); r.Code == 0 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		const diff = "C /bin\nD /bin/vi\nA /d\nA /d/e\nA /d/x\nA /data\nC /etc\nC /etc/passwd\nC /home\nA /home/h\nA /ready\n"
		if got := s.ok("diff", "cc"); got != diff {
			s.Errorf("diff: %s", got)
		}
		s.ok("create", "--name", "same", "busybox")
		if got := s.ok("diff", "same"); got != "" {
			s.Errorf("diff of nothing: %q", got)
		}
		var names []string
		for tr := tar.NewReader(strings.NewReader(s.ok("export", "cc"))); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			s.must(err)
			names = append(names, h.Name)
		}
		all := " " + strings.Join(names, " ") + " "
		for name, want := range map[string]bool{".dockerenv": true, "d/x": true, "bin/busybox": true, "bin/vi": false, "data/": true, "data/v": false, "dev/": true, "proc/": true, "proc/1/": false} {
			if strings.Contains(all, " "+name+" ") != want {
				s.Errorf("export: %s is there: %v", name, !want)
			}
		}
		id := strings.TrimSpace(s.ok("commit", "-m", "said", "-a", "somebody", "-c", `CMD ["cat", "/d/x"]`, "-c", "ENV A=1", "cc", "made:1"))
		if got := s.ok("inspect", "-f", "{{.Author}} {{.Comment}} {{json .Config.Cmd}} {{json .Config.Labels}} {{.Config.User}} {{len .RootFS.Layers}}", "made:1"); got != `somebody said ["cat","/d/x"] {"a":"b"} root 2`+"\n" {
			s.Errorf("image: %s", got)
		}
		if got := s.ok("inspect", "-f", "{{.Id}}", "made:1"); strings.TrimSpace(got) != id {
			s.Errorf("id %s, commit said %s", got, id)
		}
		if got := s.ok("run", "--rm", "made:1"); got != "new\n" {
			s.Errorf("run: %q", got)
		}
		if got := s.ok("run", "--rm", "made:1", "sh", "-c", "ls /bin/vi /home /data 2>&1; echo $K$A"); got != "ls: /bin/vi: No such file or directory\n/data:\n\n/home:\nh\nv1\n" {
			s.Errorf("inside: %q", got)
		}
		if got := s.ok("inspect", "-f", "{{.State.Paused}}", "cc"); got != "false\n" {
			s.Errorf("left frozen: %s", got)
		}
		before := s.ok("images", "-aq")
		s.fails(1, "BOGUS is not a valid change command", "commit", "-c", "BOGUS x", "cc", "made:2")
		s.fails(1, "must be lowercase", "commit", "cc", "BAD")
		s.fails(1, "No such container: none", "commit", "none")
		if after := s.ok("images", "-aq"); after != before {
			s.Errorf("a failed commit left something: %s", after)
		}
		s.ok("rm", "-f", "cc", "same")
		s.ok("rmi", "made:1")
		s.ok("volume", "rm", "dv")
	})
}

// TestCopySparse: a large file of nothing is passed through, and takes no room.
func TestCopySparse(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "cc", "busybox", "sh", "-c", "truncate -s 512M /big; sleep 600")
	time.Sleep(100 * time.Millisecond)
	get, put := exec.Command(d.Program("gantry"), "cp", "cc:/big", "-"), exec.Command(d.Program("gantry"), "cp", "-", "cc:/tmp/")
	var said bytes.Buffer
	for _, cmd := range []*exec.Cmd{get, put} {
		cmd.Env, cmd.Stderr = append(os.Environ(), "GANTRY_HOST=unix://"+d.Socket), &said
	}
	var err error
	if put.Stdin, err = get.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(get.Start(), put.Start(), put.Wait(), get.Wait()); err != nil {
		t.Fatal(err, said.String())
	}
	size := d.OK(t, "exec", "cc", "stat", "-c", "%s", "/tmp/big")
	blocks := d.OK(t, "exec", "cc", "du", "-k", "/tmp/big")
	if size != "536870912" || !strings.HasPrefix(blocks, "0\t") {
		t.Errorf("size %s, blocks %s", size, blocks)
	}
}

// TestCopySpeed copies 200 MB in 2,000 files out and in, and the same with tar
// through a pipe. The ratio is what the way through the API costs.
func TestCopySpeed(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "cc", "busybox", "sleep", "600")
	from := t.TempDir()
	part := bytes.Repeat([]byte("0123456789abcdef"), 100<<10/16)
	for i := range 2000 {
		dir := fmt.Sprintf("%s/t/%d", from, i/50)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(fmt.Sprintf("%s/f%d", dir, i), part, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	timed := func(name string, args ...string) time.Duration {
		unix.Sync()
		began := time.Now()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "GANTRY_HOST=unix://"+d.Socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v %s", name, args, err, out)
		}
		return time.Since(began)
	}
	to := t.TempDir()
	floor := timed("sh", "-c", "tar -C "+from+" -c t | tar -C "+to+" -x")
	in := timed(d.Program("gantry"), "cp", from+"/t", "cc:/t")
	out := timed(d.Program("gantry"), "cp", "cc:/t", t.TempDir())
	t.Logf("200 MB in 2,000 files: tar %v, in %v (%.1f), out %v (%.1f)", floor, in, in.Seconds()/floor.Seconds(), out, out.Seconds()/floor.Seconds())
	if in > 6*floor+time.Second || out > 6*floor+time.Second {
		t.Errorf("copying is too slow")
	}
}
