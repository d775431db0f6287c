package cgroup

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestDeviceProgramInKernel loads the eBPF filter on any host with a v2 tree,
// whether or not that tree has controllers.
func TestDeviceProgramInKernel(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if h.V2 == "" {
		t.Skip("no v2 tree on this host")
	}
	v2 := (&Host{Mode: V2, V2: h.V2}).Group("/gantry-bpf-" + strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(v2.dir(""), 0o755); err != nil {
		t.Fatal(err)
	}
	defer v2.Remove()
	deny := []specs.LinuxDeviceCgroup{rule(false, "a", -1, -1, "rwm"), rule(true, "c", 1, 3, "rwm")}
	for range 2 { // replacing leaves one program
		if err := attachDeviceProgram(v2.dir(""), deny); err != nil {
			t.Fatal(err)
		}
	}
	open := func(dev string) error {
		script := "echo $$ > " + v2.dir("") + "/cgroup.procs && exec dd if=" + dev + " of=/dev/null count=0"
		return exec.Command("sh", "-c", script).Run()
	}
	if err := open("/dev/null"); err != nil {
		t.Errorf("/dev/null: %v", err)
	}
	if err := open("/dev/zero"); err == nil {
		t.Error("/dev/zero could be opened")
	}
	if err := attachDeviceProgram(v2.dir(""), append(deny, rule(true, "a", -1, -1, "rwm"))); err != nil {
		t.Fatal(err)
	}
	if err := open("/dev/zero"); err != nil {
		t.Errorf("/dev/zero after everything was allowed: %v", err)
	}
}
