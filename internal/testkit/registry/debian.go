package registry

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// debianRegistry is where test/deps.sh unpacks the Debian package
// docker-registry.
const debianRegistry = "/var/cache/gantry-test/docker-registry/usr/bin/docker-registry"

// Name and password of Debian's registry.
const (
	DebianUser     = "user"
	DebianPassword = "pw"
	// htpasswd has them, by bcrypt.
	htpasswd = "user:$2y$05$abcdefghijklmnopqrstuuHIrMEWpUCQe2YqFR3sXwQ75u4od..9q\n"
)

// StartDebian starts the registry of Debian's package docker-registry on a port
// of its own and returns its host. It wants DebianUser with basic
// authentication. It ends with the test.
func StartDebian(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat(debianRegistry); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no docker-registry: run `make deps`")
	}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/data}, delete: {enabled: true}}\nhttp: {addr: %q}\nauth: {htpasswd: {realm: test, path: %s/htpasswd}}\n", dir, host, dir)
	for name, text := range map[string]string{"conf.yml": conf, "htpasswd": htpasswd} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(debianRegistry, "serve", filepath.Join(dir, "conf.yml"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + host + "/v2/")
		if err == nil {
			resp.Body.Close()
			return host
		}
		if time.Now().After(deadline) {
			t.Fatal("docker-registry does not answer:", err)
		}
	}
}
