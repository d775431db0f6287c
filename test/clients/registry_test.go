package clients

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// serveRegistry starts the registry server and returns its host. It ends with
// the test.
func serveRegistry(t *testing.T, args ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	cmd := exec.Command(testkit.Bin(t, "gantry-registry"), append([]string{"serve", "--quiet", "--listen", host, "--data", t.TempDir()}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the registry ended with %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if resp, err := http.Get("http://" + host + "/healthz"); err == nil {
			resp.Body.Close()
			return host
		}
		if time.Now().After(deadline) {
			t.Fatal("the registry does not answer")
		}
	}
}

// The daemon, the docker command line, skopeo and Debian's registry use the
// registry server, in both directions.
func TestRegistryServer(t *testing.T) {
	d := testkit.StartBusybox(t)
	host := serveRegistry(t)
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.Socket)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	ref := host + "/team/app:v1"
	run("docker", "tag", "busybox", ref)
	run("docker", "push", ref)
	run("docker", "rmi", ref)
	run("docker", "pull", ref)
	if out := run("docker", "run", "--rm", "--network", "none", ref, "echo", "from the registry"); out != "from the registry\n" {
		t.Errorf("%q", out)
	}
	for _, cli := range []string{"docker", testkit.Bin(t, "gantry")} {
		if out := run(cli, "search", host+"/app"); !strings.Contains(out, "team/app") {
			t.Errorf("search: %s", out)
		}
	}
	// skopeo pulls it, and gives it to Debian's registry, of which the server is
	// a copy then; and back.
	dir := "dir:" + filepath.Join(t.TempDir(), "image")
	run("skopeo", "copy", "--src-tls-verify=false", "docker://"+ref, dir)
	peer := registry.StartDebian(t)
	creds := registry.DebianUser + ":" + registry.DebianPassword
	run("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds", creds, "docker://"+ref, "docker://"+peer+"/their/app:v1")
	run("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--src-creds", creds, "docker://"+peer+"/their/app:v1", "docker://"+host+"/back/app:v1")
	conf := filepath.Join(t.TempDir(), "c.yml")
	text := "upstreams: [{prefix: deb, url: \"http://" + peer + "\", username: " + registry.DebianUser + ", password: " + registry.DebianPassword + "}]\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	mirror := serveRegistry(t, "--config", conf)
	run("docker", "rmi", ref)
	run("docker", "pull", mirror+"/deb/their/app:v1")
	run("docker", "run", "--rm", "--network", "none", mirror+"/deb/their/app:v1", "true")
	run(testkit.Bin(t, "gantry"), "registry", "image")
	if out := run("docker", "run", "--rm", "--network", "none", "gantry/registry", "version"); !strings.HasPrefix(out, "gantry-registry ") {
		t.Errorf("%q", out)
	}
}
