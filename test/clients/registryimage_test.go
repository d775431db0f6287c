package clients

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// The registry server runs in containers of the daemon that uses it: in the image
// that it makes of itself, with nothing but its volume to write to, and in one
// that a build makes of the same program. What was pushed outlives a kill.
func TestRegistryInContainer(t *testing.T) {
	d := testkit.StartBusybox(t)
	docker := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("docker", args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.Socket)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("docker %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	answers := func() {
		t.Helper()
		testkit.Eventually(t, "an answer of the registry", func() bool {
			c, err := exec.Command("curl", "-fs", "http://"+host+"/v2/").Output()
			return err == nil && string(c) == "{}"
		})
	}
	d.OK(t, "registry", "image", "--tag", "reg:own")
	docker("run", "-d", "--name", "registry", "-p", host+":5000", "-v", "store:/var/lib/registry", "--read-only", "--cap-drop", "ALL", "reg:own")
	answers()
	ref := host + "/team/app:v1"
	docker("tag", "busybox", ref)
	docker("push", ref)
	docker("rmi", ref)
	docker("pull", ref)
	docker("kill", "registry")
	docker("rm", "registry")
	// The same program, as a build packs it.
	dir := t.TempDir()
	program, err := os.ReadFile(testkit.Bin(t, "gantry-registry"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"gantry-registry": program, "Dockerfile": []byte(dockerfile(t))} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.OK(t, "build", "-q", "-t", "reg:built", dir)
	docker("run", "-d", "--name", "registry", "-p", host+":5000", "-v", "store:/var/lib/registry", "reg:built")
	answers()
	docker("rmi", ref)
	docker("pull", ref)
	if out := docker("run", "--rm", "--network", "none", ref, "echo", "kept"); out != "kept\n" {
		t.Errorf("%q", out)
	}
	if out := docker("search", host+"/app"); !strings.Contains(out, "team/app") {
		t.Errorf("search: %s", out)
	}
	// Debian's registry is a mirror of it.
	mirror := registry.StartDebianMirror(t, "http://"+host)
	docker("rmi", ref)
	docker("pull", mirror+"/team/app:v1")
	if out := docker("run", "--rm", "--network", "none", mirror+"/team/app:v1", "echo", "mirrored"); out != "mirrored\n" {
		t.Errorf("%q", out)
	}
	docker("rm", "-f", "registry")
}

// dockerfile is the one that the documentation shows.
func dockerfile(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "```dockerfile\n")
	text, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("docs/registry.md shows no Dockerfile")
	}
	return text
}
