package cgroup_test

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

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
)

// host returns the machine's hierarchies. These tests need root; in CI their
// absence is a failure.
func host(t *testing.T) *cgroup.Host {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("cgroup tests need root")
		}
		t.Skip("needs root")
	}
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newGroup(t *testing.T, res *specs.LinuxResources) (*cgroup.Host, *cgroup.Group) {
	t.Helper()
	h := host(t)
	g := h.Group(fmt.Sprintf("/gantry-test-%d/%s", os.Getpid(), strings.ToLower(t.Name())))
	if err := g.Create(res); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.Remove(), h.Group(filepath.Dir(g.Path())).Remove()); err != nil {
			t.Error(err)
		}
		if g.Exists() {
			t.Error("the group is still there")
		}
	})
	return h, g
}

func sleeper(t *testing.T, g *cgroup.Group) *exec.Cmd {
	t.Helper()
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if err := g.Add(c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return c
}

func n[T any](v T) *T { return &v }

func TestCreateLimitsRemove(t *testing.T) {
	_, g := newGroup(t, &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: n[int64](64 << 20), Swap: n[int64](64 << 20)},
		Pids:    &specs.LinuxPids{Limit: n[int64](50)},
		CPU:     &specs.LinuxCPU{Quota: n[int64](50000), Period: n[uint64](100000)},
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Type: "a", Access: "rwm"}, {Allow: true, Type: "c", Major: n[int64](1), Minor: n[int64](3), Access: "rwm"}},
	})
	c := sleeper(t, g)
	pids, err := g.Procs()
	if err != nil || len(pids) != 1 || pids[0] != c.Process.Pid {
		t.Fatalf("Procs = %v, %v; want %d", pids, err, c.Process.Pid)
	}
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory.Limit != 64<<20 || s.Pids.Current != 1 || s.Pids.Limit != 50 {
		t.Errorf("stats = %+v", s)
	}
	for _, limit := range []int64{128 << 20, 32 << 20} { // up, then down again
		if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}); err != nil {
			t.Fatal(err)
		}
		if s, err = g.Stats(); err != nil || s.Memory.Limit != uint64(limit) {
			t.Errorf("after update to %d: %+v, %v", limit, s, err)
		}
	}
}

func TestDevicesAreDenied(t *testing.T) {
	_, g := newGroup(t, &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Type: "a", Access: "rwm"}, {Allow: true, Type: "c", Major: n[int64](1), Minor: n[int64](3), Access: "rwm"}},
	})
	run := func(dev string) error {
		c := exec.Command("sh", "-c", "read go; exec dd if="+dev+" of=/dev/null count=0")
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := g.Add(c.Process.Pid); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(in, "go")
		return c.Wait()
	}
	if err := run("/dev/null"); err != nil {
		t.Errorf("/dev/null: %v", err)
	}
	if err := run("/dev/zero"); err == nil {
		t.Error("/dev/zero could be opened")
	}
}

func TestFreezeThawKill(t *testing.T) {
	_, g := newGroup(t, nil)
	c := sleeper(t, g)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := g.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("wait: %v", err)
	}
}

func TestOOMIsSeen(t *testing.T) {
	_, g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n[int64](8 << 20), Swap: n[int64](8 << 20)}})
	w, err := g.WatchOOM()
	if err != nil || w == nil {
		t.Fatalf("WatchOOM = %v, %v", w, err)
	}
	defer w.Close()
	hog := exec.Command("sh", "-c", "read go; exec head -c 64m /dev/zero | tail -c 64m")
	in, _ := hog.StdinPipe()
	if err := hog.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(hog.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	w.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := w.Read(make([]byte, 256)); err != nil {
		t.Errorf("no sign of OOM: %v", err)
	}
	hog.Wait()
	if kills, err := g.OOMKills(); err != nil || kills == 0 {
		t.Errorf("OOMKills = %d, %v", kills, err)
	}
}

func TestRemoveIsIdempotentAndRecursive(t *testing.T) {
	h, g := newGroup(t, nil)
	if err := h.Group(g.Path() + "/child/grandchild").Create(nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Remove(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWholeHostIsRefused: a wrong path must never reach everybody.
func TestWholeHostIsRefused(t *testing.T) {
	h := host(t)
	for _, path := range []string{"", "/", "//", "/.", "/a/.."} {
		g := h.Group(path)
		for what, err := range map[string]error{"kill": g.Kill(), "freeze": g.Freeze(t.Context()), "remove": g.Remove(), "create": g.Create(nil)} {
			if !errs.Is(err, errs.Invalid) {
				t.Errorf("%s %q: %v, want it refused", what, path, err)
			}
		}
	}
}

// TestOwnGroupIsRefused: neither may a process end itself by mistake.
func TestOwnGroupIsRefused(t *testing.T) {
	h, g := newGroup(t, nil)
	script := "echo $$ >" + filepath.Join(cgroupDir(h), g.Path(), "cgroup.procs") + " && exec " + os.Args[0] + " -test.run '^TestOwnGroupHelper$'"
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "GANTRY_OWN_GROUP="+g.Path())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// cgroupDir returns the mount point of one hierarchy.
func cgroupDir(h *cgroup.Host) string {
	if h.V2 != "" {
		return h.V2
	}
	return h.V1["pids"]
}

// TestOwnGroupHelper is the process of TestOwnGroupIsRefused.
func TestOwnGroupHelper(t *testing.T) {
	path := os.Getenv("GANTRY_OWN_GROUP")
	if path == "" {
		t.Skip("only a helper")
	}
	g := host(t).Group(path)
	if err := g.Kill(); !errs.Is(err, errs.Invalid) {
		t.Errorf("kill: %v", err)
	}
	if err := g.Freeze(t.Context()); !errs.Is(err, errs.Invalid) {
		t.Errorf("freeze: %v", err)
	}
}

func TestFastMovesLeaveNoMount(t *testing.T) {
	h := host(t)
	f, err := h.FastMoves()
	if err != nil {
		t.Fatal(err)
	}
	if f != nil {
		defer f.Close()
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), "name=gantry") {
		t.Errorf("the hierarchy is visible in the mount table (%v)", err)
	}
}

// TestSystemdScope needs systemd as the host's first process; the machine of
// test/vm has it.
func TestSystemdScope(t *testing.T) {
	h := host(t)
	if !cgroup.SystemdRuns() {
		t.Skip("systemd does not manage this host")
	}
	g, err := h.SystemdGroup(fmt.Sprintf(":gantrytest:%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Create(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: n[int64](64 << 20), Swap: n[int64](64 << 20)},
		Pids:   &specs.LinuxPids{Limit: n[int64](50)},
		CPU:    &specs.LinuxCPU{Quota: n[int64](50000), Period: n[uint64](100000), Shares: n[uint64](512)},
	}); err != nil {
		t.Fatal(err)
	}
	c := sleeper(t, g)
	if pids, err := g.Procs(); err != nil || len(pids) != 1 || pids[0] != c.Process.Pid {
		t.Errorf("Procs = %v, %v", pids, err)
	}
	// A reload must not take the limits back.
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Errorf("daemon-reload: %v: %s", err, out)
	}
	if s, err := g.Stats(); err != nil || s.Memory.Limit != 64<<20 || s.Pids.Limit != 50 {
		t.Errorf("stats = %+v, %v", s, err)
	}
	if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n[int64](96 << 20), Swap: n[int64](96 << 20)}}); err != nil {
		t.Fatal(err)
	}
	if s, err := g.Stats(); err != nil || s.Memory.Limit != 96<<20 {
		t.Errorf("after update: %+v, %v", s, err)
	}
	second := exec.Command("sleep", "60")
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	defer second.Wait()
	if err := g.Add(second.Process.Pid); err != nil {
		t.Error(err)
	}
	if err := errors.Join(g.Kill(), g.Remove(), g.Remove()); err != nil {
		t.Error(err)
	}
	if g.Exists() {
		t.Error("the scope is still there")
	}
}

// TestHugePagesAndRDMA: what the hierarchies can limit is limited, and what they
// can't is refused by name. The machine of test/vm has both controllers.
func TestHugePagesAndRDMA(t *testing.T) {
	h, g := newGroup(t, nil)
	sizes, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil || len(sizes) == 0 {
		t.Skip("no huge pages")
	}
	res := &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}
	switch err := g.Update(res); {
	case h.Mode != cgroup.V2 && h.V1["hugetlb"] == "":
		if !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "hugetlb") {
			t.Errorf("no controller: %v", err)
		}
	case err != nil:
		t.Error(err)
	case h.Mode == cgroup.V2:
		for _, file := range []string{"hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"} {
			got, err := os.ReadFile(filepath.Join(h.V2, g.Path(), file))
			if err != nil || strings.TrimSpace(string(got)) != "4194304" {
				t.Errorf("%s: %q, %v", file, got, err)
			}
		}
	}
	// No such adapter here: an error about the value, or about the controller.
	err = g.Update(&specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"nosuch0": {HcaHandles: n[uint32](2)}}})
	if err == nil || !strings.Contains(err.Error(), "rdma") {
		t.Errorf("rdma: %v", err)
	}
	bad := &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "3MB", Limit: 4 << 20}}}
	if err := g.Update(bad); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a page size that does not exist: %v", err)
	}
}
