package testkit

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// cache is where `make test` keeps what takes long to make.
const cache = "/var/cache/gantry-test"

// Debian returns the path of a tar of a small Debian system with systemd, made
// by debootstrap from the mirrors that this machine uses. It is made once.
func Debian(t *testing.T) string {
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
	out, err := exec.Command("debootstrap", "--variant=minbase", "--include=ca-certificates,systemd-sysv", "bookworm", root).CombinedOutput()
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
