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
	dir := t.TempDir()
	users := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(users, []byte(htpasswd), 0o600); err != nil {
		t.Fatal(err)
	}
	host, _ := RunDebian(t, dir, fmt.Sprintf("storage: {filesystem: {rootdirectory: %s/data}, delete: {enabled: true}}\nauth: {htpasswd: {realm: test, path: %s}}\n", dir, users))
	return host
}

// StartDebianMirror starts Debian's registry as a copy of the one at an address
// (http://host) and returns its host. It ends with the test.
func StartDebianMirror(t testing.TB, of string) string {
	t.Helper()
	dir := t.TempDir()
	host, _ := RunDebian(t, dir, fmt.Sprintf("storage: {filesystem: {rootdirectory: %s/data}}\nproxy: {remoteurl: %q}\n", dir, of))
	return host
}

// RunDebian starts Debian's registry with a configuration of its YAML, but for
// its address and log, and returns its host and process. It ends with the test.
func RunDebian(t testing.TB, dir, more string) (string, *os.Process) {
	t.Helper()
	if _, err := os.Stat(debianRegistry); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no docker-registry: run `make deps`")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	conf := filepath.Join(dir, "conf.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nhttp: {addr: %q}\n", host) + more
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(debianRegistry, "serve", conf)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + host + "/v2/")
		if err == nil {
			resp.Body.Close()
			return host, cmd.Process
		}
		if time.Now().After(deadline) {
			t.Fatal("docker-registry does not answer:", err)
		}
	}
}
