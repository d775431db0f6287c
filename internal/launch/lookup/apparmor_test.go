package lookup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAppArmor(t *testing.T) {
	for _, c := range []struct{ enabled, profiles, want string }{
		{"", "", ""},
		{"N\n", "docker-default (enforce)\n", ""},
		{"Y\n", "", "unconfined"},
		{"Y\n", "/usr/bin/man (enforce)\nnot-docker-default (enforce)\n", "unconfined"},
		{"Y\n", "/usr/bin/man (enforce)\ndocker-default (enforce)\n", "docker-default"},
		{"Y\n", "docker-default (enforce)\ngantry-default (complain)\n", "gantry-default"},
	} {
		sys := t.TempDir()
		for name, text := range map[string]string{"module/apparmor/parameters/enabled": c.enabled, "kernel/security/apparmor/profiles": c.profiles} {
			if text == "" {
				continue
			}
			path := filepath.Join(sys, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := AppArmor(sys); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}
