package clients_test

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"gantry/internal/testkit"
)

// TestDockerPy runs testdata/dockerpy.py, which asserts for itself, where the
// docker module of Python is installed.
func TestDockerPy(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import docker").Run() != nil {
		t.Skip("python3 with the docker module is not on this machine")
	}
	d := testkit.StartDaemon(t)
	var image bytes.Buffer
	if err := testkit.Busybox(&image, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	load := exec.Command(d.Program("gantry"), "load")
	load.Env = append(os.Environ(), "GANTRY_HOST=unix://"+d.Socket)
	load.Stdin = &image
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("load: %v: %s", err, out)
	}
	cmd := exec.Command(python, "testdata/dockerpy.py")
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.Socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
