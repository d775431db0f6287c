package vm_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/test/vm"
)

// kernelDir is where `make deps` unpacks the kernel.
const kernelDir = "/var/cache/gantry-test/kernel"

// packages are those whose kernel-level tests also run on a host that has
// nothing but cgroup v2.
var packages = []string{"cgroup", "ociruntime"}

// modules are the kernel modules that containers and their networks need.
var modules = []string{"overlay", "nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_ct", "nft_fib_inet", "nft_reject_inet", "bridge", "veth", "macvlan", "ipvlan", "br_netfilter", "dummy"}

func kernel(t *testing.T) *vm.Kernel {
	t.Helper()
	k, err := vm.FindKernel(kernelDir)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return k
}

// boot runs script in a machine with files and returns what it printed.
func boot(t *testing.T, system string, files map[string]string, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var console strings.Builder
	code, err := vm.Run(ctx, vm.Machine{Kernel: kernel(t), Modules: modules, Files: files, System: system, Script: script, Memory: 3072, Console: &console})
	t.Log(console.String())
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 {
		t.Errorf("the script exited with %d", code)
	}
	return console.String()
}

// compile builds the tests of a package into dir.
func compile(t *testing.T, dir, pkg string) string {
	t.Helper()
	out := filepath.Join(dir, strings.ReplaceAll(pkg, "/", "_")+".test")
	build := exec.Command("go", "test", "-c", "-o", out, "-ldflags", "-s -w", "gantry/internal/"+pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build tests of %s: %v\n%s", pkg, err, msg)
	}
	return out
}

// TestSystemdDriver runs the control group tests where systemd manages the host.
func TestSystemdDriver(t *testing.T) {
	kernel(t)
	files := map[string]string{"/test/cgroup.test": compile(t, t.TempDir(), "cgroup")}
	out := boot(t, testkit.Debian(t), files, "cd /test && ./cgroup.test -test.v -test.run 'Systemd|Limits'")
	if !strings.Contains(out, "--- PASS: TestSystemdScope") {
		t.Error("the test of the systemd driver did not run")
	}
}

// TestPackagesOnCgroupV2 runs the kernel-level tests of the packages on a
// v2-only kernel.
func TestPackagesOnCgroupV2(t *testing.T) {
	kernel(t)
	dir := t.TempDir()
	files := map[string]string{}
	var script strings.Builder
	script.WriteString("rc=0\nuname -r\ncat /sys/fs/cgroup/cgroup.controllers\ncd /test\n")
	for _, p := range packages {
		name := strings.ReplaceAll(p, "/", "_") + ".test"
		files["/test/"+name] = compile(t, dir, p)
		script.WriteString("echo '== " + p + "'; ./" + name + " -test.timeout 5m || rc=1\n")
	}
	script.WriteString("find /sys/fs/cgroup -mindepth 1 -type d -name '*gantry*'\nexit $rc\n")
	boot(t, "", files, script.String())
}

// TestEngineOnCgroupV2 runs the three programs on a v2-only kernel and asserts
// what the containers see.
func TestEngineOnCgroupV2(t *testing.T) {
	kernel(t)
	bin := os.Getenv("GANTRY_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	image := filepath.Join(t.TempDir(), "busybox.tar")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := testkit.Busybox(f, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"/test/busybox.tar": image, "/test/engine.sh": "testdata/engine.sh"}
	for _, p := range []string{"gantry", "gantryd"} {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			t.Fatalf("%v: run `make build`", err)
		}
		files["/bin/"+p] = filepath.Join(bin, p)
	}
	if out := boot(t, "", files, "sh /test/engine.sh"); !strings.Contains(out, "all passed") {
		t.Error("the script did not reach its end")
	}
}
