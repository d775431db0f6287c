package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/wire"
)

// statsPause lies between two samples.
const statsPause = time.Second

// userHZ is the number of clock ticks a second in /proc (proc(5)).
const userHZ = 100

// Stats samples what a container uses. The sequence ends with its one sample,
// or with o.Stream when ctx ends or the container is removed. A container that
// is down gives samples of nothing.
func (c *Query) Stats(ctx context.Context, ref string, o StatsOptions) (iter.Seq2[*wire.Stats, error], error) {
	a, err := c.table.find(ref)
	if err != nil {
		return nil, err
	}
	return func(yield func(*wire.Stats, error) bool) {
		var before *wire.Stats
		if !o.Stream && !o.OneShot && a.view().state.Phase.live() {
			before, _ = c.sample(a)
			if !sleep(ctx, statsPause) {
				return
			}
		}
		for {
			s, err := c.sample(a)
			if err == nil && before != nil {
				s.PreRead, s.PreCPUStats = before.Read, before.CPUStats
			}
			if !yield(s, err) || err != nil || !o.Stream {
				return
			}
			before = s
			if !sleep(ctx, statsPause) || a.view().state.Phase == Removed {
				return
			}
		}
	}, nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// sample reads one sample.
func (c *core) sample(a *actor) (*wire.Stats, error) {
	v := a.view()
	w := &wire.Stats{ID: a.id, Name: "/" + v.rec.Name, OSType: "linux"}
	if !v.state.Phase.live() {
		return w, nil
	}
	s, err := c.o.Launcher.Cgroup(a.id, v.rec.Plan).Stats()
	if err != nil {
		if !a.view().state.Phase.live() || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return w, nil // it ended in between
		}
		return nil, err
	}
	w.Read = time.Now().UTC()
	host, err := readHost()
	if err != nil {
		return nil, err
	}
	fillStats(w, s, host)
	if v.sandbox != nil && v.pid > 0 {
		w.Networks = interfaces(fmt.Sprintf("/proc/%d/net/dev", v.pid))
	}
	return w, nil
}

// hostUsage is the machine's part of a sample.
type hostUsage struct {
	cpu    uint64 // nanoseconds that all processors have run, idle included
	cpus   uint32
	memory uint64 // bytes
}

func readHost() (hostUsage, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return hostUsage{}, errs.New(errs.Unknown, "read the host's usage: %w", err)
	}
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return hostUsage{}, errs.New(errs.Unknown, "read the host's memory: %w", err)
	}
	return parseHost(string(stat), string(mem)), nil
}

// parseHost reads /proc/stat and /proc/meminfo (proc(5)).
func parseHost(stat, meminfo string) hostUsage {
	var h hostUsage
	for line := range strings.Lines(stat) {
		f := strings.Fields(line)
		if len(f) < 8 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		if f[0] != "cpu" {
			h.cpus++
			continue
		}
		for _, ticks := range f[1:8] { // user … softirq; guest time is in user already
			n, _ := strconv.ParseUint(ticks, 10, 64)
			h.cpu += n * (uint64(time.Second) / userHZ)
		}
	}
	for line := range strings.Lines(meminfo) {
		if v, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			h.memory = n << 10
		}
	}
	return h
}

// fillStats turns a group's usage into the API's words. It is pure.
func fillStats(w *wire.Stats, s *launch.Usage, host hostUsage) {
	w.CPUStats = wire.CPUStats{
		CPUUsage:    wire.CPUUsage{TotalUsage: s.CPU.Total, PercpuUsage: s.CPU.PerCPU, UsageInKernelmode: s.CPU.System, UsageInUsermode: s.CPU.User},
		SystemUsage: host.cpu, OnlineCPUs: host.cpus,
		ThrottlingData: wire.ThrottlingData{Periods: s.CPU.Periods, ThrottledPeriods: s.CPU.Throttled, ThrottledTime: s.CPU.ThrottledTime},
	}
	w.MemoryStats = wire.MemoryStats{
		Usage: s.Memory.Usage, MaxUsage: s.Memory.MaxUsage, Stats: s.Memory.Detail, Failcnt: s.Memory.Failures, Limit: s.Memory.Limit,
	}
	// v1 says "no limit" by a number near the top of the int64 range.
	if host.memory > 0 && w.MemoryStats.Limit > min(host.memory, math.MaxInt64) {
		w.MemoryStats.Limit = host.memory
	}
	w.PidsStats = wire.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit}
	w.BlkioStats = wire.BlkioStats{
		IoServiceBytesRecursive: ioEntries(s.IO.Bytes), IoServicedRecursive: ioEntries(s.IO.Ops),
		IoQueuedRecursive: []wire.BlkioStatEntry{}, IoServiceTimeRecursive: []wire.BlkioStatEntry{}, IoWaitTimeRecursive: []wire.BlkioStatEntry{},
		IoMergedRecursive: []wire.BlkioStatEntry{}, IoTimeRecursive: []wire.BlkioStatEntry{}, SectorsRecursive: []wire.BlkioStatEntry{},
	}
}

func ioEntries(in []launch.UsageIO) []wire.BlkioStatEntry {
	out := make([]wire.BlkioStatEntry, 0, len(in))
	for _, e := range in {
		out = append(out, wire.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
	}
	return out
}

// interfaces reads the counters of a container's network interfaces, all but
// the loopback one; nil if its process has gone.
func interfaces(path string) map[string]wire.NetworkStats {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return parseNetDev(string(data))
}

// parseNetDev reads /proc/<pid>/net/dev (proc(5)).
func parseNetDev(text string) map[string]wire.NetworkStats {
	out := map[string]wire.NetworkStats{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		name = strings.TrimSpace(name)
		if !ok || len(f) < 12 || name == "lo" {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
		out[name] = wire.NetworkStats{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	return out
}
