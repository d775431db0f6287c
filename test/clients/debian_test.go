package clients_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cache is where `make test` keeps what takes long to make.
const cache = "/var/cache/gantry-test"

// debian returns the path of a tar of a small Debian system, made by
// debootstrap from the mirrors that this machine uses, with the machine's own
// package sources in it.
func debian(t *testing.T) string {
	t.Helper()
	path := filepath.Join(cache, "debian.tar")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no debootstrap: run `make deps`")
	}
	root := filepath.Join(t.TempDir(), "debian")
	out, err := exec.Command("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root).CombinedOutput()
	if err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, out)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", root, "-cf", path+".part", ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// aptConfig returns the options that mount this machine's package sources into
// a container read-only.
func aptConfig() []string {
	args := []string{"--mount", "type=tmpfs,target=/etc/apt/sources.list.d"}
	entries, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	entries = append(entries, "/etc/apt/sources.list")
	for _, e := range entries {
		if strings.HasSuffix(e, ".sources") || strings.HasSuffix(e, ".list") {
			if _, err := os.Stat(e); err == nil {
				args = append(args, "-v", e+":"+e+":ro")
			}
		}
	}
	confs, _ := filepath.Glob("/etc/apt/apt.conf.d/99*")
	for _, c := range confs {
		args = append(args, "-v", c+":"+c+":ro")
	}
	return args
}

func TestDebian(t *testing.T) {
	tar := debian(t)
	each(t, func(s story) {
		f, err := os.Open(tar)
		if err != nil {
			s.Fatal(err)
		}
		defer f.Close()
		r, err := s.cli.Run(f, "import", "--change", `CMD ["bash"]`, "-", "debian:bookworm")
		if err != nil || r.Code != 0 || !strings.HasPrefix(r.Stdout, "sha256:") {
			s.Fatalf("import: %+v, %v", r, err)
		}
		if got := s.ok("run", "--rm", "debian:bookworm", "cat", "/etc/debian_version"); !strings.HasPrefix(got, "12.") {
			s.Errorf("version %q", got)
		}
		term := s.terminal("run", "-it", "--rm", "--hostname", "deb", "debian:bookworm")
		s.must(term.Expect("root@deb:/# "))
		s.must(term.Type("echo $((40+2)); exit\r"))
		s.must(term.Expect("42"))
		if code, err := term.Wait(); err != nil || code != 0 {
			s.Errorf("bash: exit %d, %v", code, err)
		}
		// Names, routes and address translation all have to work for this.
		args := append([]string{"run", "--rm"}, aptConfig()...)
		out := s.ok(append(args, "debian:bookworm", "sh", "-c", "apt-get update && apt-get install -y -qq --no-install-recommends hello >/dev/null && hello")...)
		if !strings.Contains(out, "Hello, world!") {
			s.Errorf("hello after apt-get install:\n%s", out)
		}
		if bytes.Contains([]byte(out), []byte("Err:")) {
			s.Errorf("apt-get update had errors:\n%s", out)
		}
		s.ok("rmi", "debian:bookworm")
	})
}
