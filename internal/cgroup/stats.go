package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats is what a group has used. Times are in nanoseconds, sizes in bytes. A
// number that the host does not count is zero.
type Stats struct {
	CPU    CPUStats
	Memory MemoryStats
	Pids   PidsStats
	IO     IOStats
}

// CPUStats is processor time, and how often a quota held the group back.
type CPUStats struct {
	Total, User, System uint64
	PerCPU              []uint64 // v1 only
	Periods, Throttled  uint64
	ThrottledTime       uint64
}

// MemoryStats is memory in use. Limit is the largest uint64 where there is none.
type MemoryStats struct {
	Usage, MaxUsage, Limit uint64
	Failures               uint64            // times the limit was hit (v1)
	Detail                 map[string]uint64 // memory.stat
}

// PidsStats counts tasks. Limit is zero where there is none.
type PidsStats struct{ Current, Limit uint64 }

// IOStats is block I/O by device and operation.
type IOStats struct {
	Bytes, Ops []IOEntry
}

// IOEntry is a count for one device. Op is "read", "write" and so on, spelt as
// the kernel's version spells it.
type IOEntry struct {
	Major, Minor uint64
	Op           string
	Value        uint64
}

// Stats reads what the group has used.
func (g *Group) Stats() (*Stats, error) {
	s := &Stats{}
	var err error
	if g.host.Mode == V2 {
		err = g.statsV2(s)
	} else {
		err = g.statsV1(s)
	}
	if err != nil {
		return nil, fmt.Errorf("read statistics of cgroup %s: %w", g.path, err)
	}
	return s, nil
}

func (g *Group) statsV2(s *Stats) error {
	dir := g.dir("")
	cpu, err := readKeyed(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return err
	}
	s.CPU = CPUStats{
		Total: cpu["usage_usec"] * 1000, User: cpu["user_usec"] * 1000, System: cpu["system_usec"] * 1000,
		Periods: cpu["nr_periods"], Throttled: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * 1000,
	}
	r := reader{dir: dir}
	s.Memory = MemoryStats{
		Usage: r.number("memory.current"), MaxUsage: r.number("memory.peak"), Limit: r.number("memory.max"),
		Detail: r.keyed("memory.stat"),
	}
	s.Pids = PidsStats{Current: r.number("pids.current"), Limit: noLimitZero(r.number("pids.max"))}
	s.IO = parseIOStat(r.text("io.stat"))
	return r.err
}

func (g *Group) statsV1(s *Stats) error {
	if d := g.dir("cpuacct"); d != "" {
		r := reader{dir: d}
		split := r.keyed("cpuacct.stat")
		s.CPU.Total = r.number("cpuacct.usage")
		// In ticks of 1/100 s (USER_HZ).
		s.CPU.User, s.CPU.System = split["user"]*10_000_000, split["system"]*10_000_000
		for _, f := range strings.Fields(r.text("cpuacct.usage_percpu")) {
			n, _ := strconv.ParseUint(f, 10, 64)
			s.CPU.PerCPU = append(s.CPU.PerCPU, n)
		}
		if r.err != nil {
			return r.err
		}
	}
	if d := g.dir("cpu"); d != "" {
		r := reader{dir: d}
		m := r.keyed("cpu.stat")
		s.CPU.Periods, s.CPU.Throttled, s.CPU.ThrottledTime = m["nr_periods"], m["nr_throttled"], m["throttled_time"]
		if r.err != nil {
			return r.err
		}
	}
	if d := g.dir("memory"); d != "" {
		r := reader{dir: d}
		s.Memory = MemoryStats{
			Usage: r.number("memory.usage_in_bytes"), MaxUsage: r.number("memory.max_usage_in_bytes"),
			Limit: r.number("memory.limit_in_bytes"), Failures: r.number("memory.failcnt"), Detail: r.keyed("memory.stat"),
		}
		if r.err != nil {
			return r.err
		}
	}
	if d := g.dir("pids"); d != "" {
		r := reader{dir: d}
		s.Pids = PidsStats{Current: r.number("pids.current"), Limit: noLimitZero(r.number("pids.max"))}
		if r.err != nil {
			return r.err
		}
	}
	if d := g.dir("blkio"); d != "" {
		r := reader{dir: d}
		s.IO = IOStats{
			Bytes: parseBlkio(r.text("blkio.throttle.io_service_bytes_recursive")),
			Ops:   parseBlkio(r.text("blkio.throttle.io_serviced_recursive")),
		}
		return r.err
	}
	return nil
}

// A reader reads files of one group; the first error stays, and a file that the
// kernel does not have reads as nothing.
type reader struct {
	dir string
	err error
}

func (r *reader) text(name string) string {
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		// The file or the whole group? The latter is an error.
		_, err = os.Stat(r.dir)
	}
	if err != nil && r.err == nil {
		r.err = err
	}
	return string(data)
}

// noLimit is how a number without a bound reads.
const noLimit = ^uint64(0)

func (r *reader) number(name string) uint64 {
	s := strings.TrimSpace(r.text(name))
	if s == "max" {
		return noLimit
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

func (r *reader) keyed(name string) map[string]uint64 { return parseKeyed(r.text(name)) }

func noLimitZero(n uint64) uint64 {
	if n == noLimit {
		return 0
	}
	return n
}

// parseIOStat reads v2's io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …".
func parseIOStat(text string) IOStats {
	var s IOStats
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		major, minor, ok := parseDev(fields[0])
		if !ok {
			continue
		}
		for _, f := range fields[1:] {
			k, v, _ := strings.Cut(f, "=")
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				continue
			}
			switch k {
			case "rbytes":
				s.Bytes = append(s.Bytes, IOEntry{major, minor, "read", n})
			case "wbytes":
				s.Bytes = append(s.Bytes, IOEntry{major, minor, "write", n})
			case "rios":
				s.Ops = append(s.Ops, IOEntry{major, minor, "read", n})
			case "wios":
				s.Ops = append(s.Ops, IOEntry{major, minor, "write", n})
			}
		}
	}
	return s
}

// parseBlkio reads v1's "8:0 Read 4096" lines; the "Total" line is left out.
func parseBlkio(text string) []IOEntry {
	var out []IOEntry
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		major, minor, ok := parseDev(f[0])
		n, err := strconv.ParseUint(f[2], 10, 64)
		if ok && err == nil {
			out = append(out, IOEntry{major, minor, strings.ToLower(f[1]), n})
		}
	}
	return out
}

func parseDev(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 64)
	minor, err2 := strconv.ParseUint(b, 10, 64)
	return major, minor, ok && err1 == nil && err2 == nil
}
