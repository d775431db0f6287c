package vm_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/test/vm"
)

// kernelDir is where `make deps` unpacks the kernel.
const kernelDir = "/var/cache/gantry-test/kernel"

// packages are those whose kernel-level tests also run on a host that has
// nothing but cgroup v2.
var packages = []string{"cgroup"}

// TestOnCgroupV2 runs the kernel-level tests of the packages on a v2-only
// kernel.
func TestOnCgroupV2(t *testing.T) {
	k, err := vm.FindKernel(kernelDir)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	files := map[string]string{}
	var script strings.Builder
	script.WriteString("rc=0\nuname -r\ncat /sys/fs/cgroup/cgroup.controllers\ncd /test\n")
	for _, p := range packages {
		name := strings.ReplaceAll(p, "/", "_") + ".test"
		out := filepath.Join(dir, name)
		build := exec.Command("go", "test", "-c", "-o", out, "-ldflags", "-s -w", "gantry/internal/"+p)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build tests of %s: %v\n%s", p, err, msg)
		}
		files["/test/"+name] = out
		script.WriteString("echo '== " + p + "'; ./" + name + " -test.timeout 5m || rc=1\n")
	}
	script.WriteString("find /sys/fs/cgroup -mindepth 1 -type d -name '*gantry*'\nexit $rc\n")
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var console strings.Builder
	code, err := vm.Run(ctx, vm.Machine{
		Kernel:  k,
		Modules: []string{"overlay", "nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_ct", "nft_fib_inet", "bridge", "veth", "macvlan", "ipvlan", "br_netfilter", "dummy"},
		Files:   files, Script: script.String(), Memory: 2048, Console: &console,
	})
	t.Log(console.String())
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 {
		t.Errorf("tests on the v2 kernel exited with %d", code)
	}
}
