package vm_test

import (
	"context"
	"errors"
	"fmt"
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

// packages are those whose kernel-level tests also run on an old kernel that has
// nothing but cgroup v2, with the arguments of their tests. Emulated, a machine
// is ten times slower: what takes long or measures time, and is the same on every
// kernel, is left out.
var packages = []struct{ path, args string }{
	{"cgroup", ""}, {"overlay", ""}, {"ociruntime", "-test.skip '^TestLiveTargetRace$'"}, {"shim", "-test.skip '^Test(Client.*|RotationUnderLoad|IdleWeight|ManyExecs|ExecLeavesAChild|FullLog.*|LogOn.*|SlowClient|HalfClose.*|UnreadInput.*)$'"},
	{"shim/ocicli", ""}, {"content", ""}, {"volume", ""}, {"quota", "-test.v"}, {"launch", ""}, {"launch/rootfs", ""}, {"network", "-test.skip '^Test(Matrix|Reach|RateBounds|DirectRouting)$'"}, {"container", "-test.run ^TestKernel$"}, {"archive", ""}, {"probe", ""},
}

// modules are the kernel modules that containers and their networks need.
var modules = []string{"loop", "quota_v2", "overlay", "nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_ct", "nft_fib_inet", "nft_reject_inet", "bridge", "veth", "macvlan", "ipvlan", "8021q", "nf_conntrack_netlink", "br_netfilter", "dummy", "ifb", "sch_tbf", "unix_diag", "inet_diag", "tcp_diag", "udp_diag", "af_packet_diag", "netlink_diag"}

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
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
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
	t.Parallel() // a machine waits a lot
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
	t.Parallel() // a machine waits a lot
	kernel(t)
	dir := t.TempDir()
	files := map[string]string{}
	for _, p := range []string{"ip", "nft"} {
		program(t, files, p)
	}
	shim := filepath.Join(dir, "gantry-shim")
	if err := testkit.Shim(shim); err != nil {
		t.Fatal(err)
	}
	files["/test/gantry-shim"] = shim
	files["/test/quota/prjquota.img"] = limited(t, "16M")
	var script strings.Builder
	script.WriteString("rc=0\nuname -r\ncat /sys/fs/cgroup/cgroup.controllers\nexport " + testkit.ShimEnv + "=/test/gantry-shim GANTRY_RACE_STARTS=10\n")
	for _, p := range packages {
		name := strings.ReplaceAll(p.path, "/", "_")
		files["/test/"+name+"/test"] = compile(t, dir, p.path)
		fmt.Fprintf(&script, "echo '== %s'; cd /test/%s; t=$(date +%%s); ./test -test.timeout 5m %s || rc=1; echo $(($(date +%%s) - t))s\n", p.path, name, p.args)
	}
	script.WriteString("find /sys/fs/cgroup -mindepth 1 -type d -name '*gantry*'\nexit $rc\n")
	boot(t, "", files, script.String())
}

// limited makes the image of an ext4 with project quotas.
func limited(t *testing.T, size string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "prjquota.img")
	if msg, err := exec.Command("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image, size).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, msg)
	}
	return image
}

// program adds a program of this machine, and the libraries that it needs, to a
// machine's files.
func program(t *testing.T, files map[string]string, name string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	files["/bin/"+name] = path
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", path, err)
	}
	for f := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(f, "/") {
			files[f] = f
		}
	}
}

// busyboxTar returns the path of an archive of the image busybox:latest.
func busyboxTar(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "busybox.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(testkit.Busybox(f, "busybox:latest"), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// withLibraries adds programs of this machine to files, with the libraries that
// they need: criu, and the tar that it calls, which must be GNU's.
func withLibraries(t *testing.T, files, programs map[string]string) {
	t.Helper()
	for in, here := range programs {
		out, err := exec.Command("ldd", here).Output()
		if err != nil {
			t.Fatalf("%s: %v: run `make deps`", here, err)
		}
		files[in] = here
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/lib") {
				files[word] = word
			}
		}
	}
}

// TestEngineOnCgroupV2 runs the three programs on a v2-only kernel and asserts
// what the containers see.
func TestEngineOnCgroupV2(t *testing.T) {
	t.Parallel() // a machine waits a lot
	kernel(t)
	files := map[string]string{"/test/busybox.tar": busyboxTar(t), "/test/engine.sh": "testdata/engine.sh", "/test/prjquota.img": limited(t, "48M")}
	for _, p := range []string{"gantry", "gantryd"} {
		files["/bin/"+p] = testkit.Bin(t, p)
	}
	plugin := filepath.Join(t.TempDir(), "plugin")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", plugin, "../clients/testdata/volumeplugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	files["/test/plugin/rootfs/plugin"], files["/test/plugin/config.json"] = plugin, "testdata/plugin.json"
	withLibraries(t, files, map[string]string{"/bin/criu": "/usr/sbin/criu", "/bin/tar": "/usr/bin/tar"})
	if out := boot(t, "", files, "sh /test/engine.sh"); !strings.Contains(out, "all passed") {
		t.Error("the script did not reach its end")
	}
}
