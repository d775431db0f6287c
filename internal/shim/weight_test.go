package shim_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/cgroup"
	"gantry/internal/shim"
)

func memoryLimit(n int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n, Swap: &n}}
}

// smaps returns the sums of a process's memory map, in KiB (proc(5)).
func smaps(t testing.TB, pid int) map[string]int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]int{}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "kB" {
			m[strings.TrimSuffix(f[0], ":")], _ = strconv.Atoi(f[1])
		}
	}
	return m
}

// The promise: an idle shim weighs 1.5 MB at most.
func TestIdleWeight(t *testing.T) {
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	b.start()
	var pss int
	for range 50 {
		time.Sleep(100 * time.Millisecond)
		if pss = smaps(t, b.shimPid())["Pss"]; pss <= 1000 {
			break
		}
	}
	t.Logf("idle: %v", smaps(t, b.shimPid()))
	if pss > 1536 {
		t.Errorf("an idle shim weighs %d KiB", pss)
	}
}

// Thousands of execs must leave the shim as it was. GANTRY_EXECS sets how many.
func TestManyExecs(t *testing.T) {
	n := 300
	if s := os.Getenv("GANTRY_EXECS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	b.start()
	run := func(i int) {
		e := b.exec("e"+strconv.Itoa(i), shim.Streams{Stdout: true}, process("true"))
		if err := e.Start(b.ctx()); err != nil {
			t.Fatal(err)
		}
		frames(t, e.Stream())
		if got, err := e.Wait(b.ctx()); err != nil || got.Code != 0 {
			t.Fatalf("%+v %v", got, err)
		}
		e.Close()
	}
	const warm = 200 // until the collector has run, whose tables are never given back
	for i := range warm {
		run(i)
	}
	count := func(what string) int {
		names, _ := os.ReadDir(fmt.Sprintf("/proc/%d/%s", b.shimPid(), what))
		return len(names)
	}
	time.Sleep(2500 * time.Millisecond)
	before, fdsBefore, threadsBefore := smaps(t, b.shimPid())["Pss"], count("fd"), count("task")
	start := time.Now()
	for i := range n {
		run(warm + i)
	}
	t.Logf("%v for each exec", time.Since(start)/time.Duration(n))
	time.Sleep(2500 * time.Millisecond)
	after, fdsAfter, threadsAfter := smaps(t, b.shimPid())["Pss"], count("fd"), count("task")
	t.Logf("%d execs: PSS %d KiB before, %d KiB after; descriptors %d, %d; threads %d, %d", n, before, after, fdsBefore, fdsAfter, threadsBefore, threadsAfter)
	if after > before+600 { // the tables of a first collection, at most
		t.Errorf("%d KiB before, %d KiB after", before, after)
	}
	if fdsAfter != fdsBefore {
		t.Errorf("%d descriptors before, %d after", fdsBefore, fdsAfter)
	}
	if threadsAfter > threadsBefore+4 { // the runtime keeps those that a busy moment has made
		t.Errorf("%d threads before, %d after", threadsBefore, threadsAfter)
	}
}

// BenchmarkRun is a container's whole life: create, start, wait, shut down.
func BenchmarkRun(b *testing.B) {
	l := launcher(b)
	r := request(b, "true")
	// As the daemon has it: a run directory in memory, fast moves between
	// cgroups.
	dir, err := os.MkdirTemp("/dev/shm", "gantry-bench-*")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	r.Dir = dir
	host, err := cgroup.Detect()
	if err != nil {
		b.Fatal(err)
	}
	fast, err := host.FastMoves()
	if err != nil {
		b.Fatal(err)
	}
	if fast != nil {
		defer fast.Close()
	}
	for b.Loop() {
		c, err := l.Create(b.Context(), r)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		if e, err := c.Wait(b.Context()); err != nil || e.Code != 0 {
			b.Fatal(e, err)
		}
		if err := c.Shutdown(b.Context()); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
