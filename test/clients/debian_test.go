package clients_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

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
	tar := testkit.Debian(t)
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
