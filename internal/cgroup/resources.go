package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// A write is one value for one file of a group.
type write struct {
	controller string // v1 controller, "" for the v2 tree
	file       string
	value      string
	// other is a file to try when the first does not exist: the same limit
	// under the name that another I/O scheduler or kernel gives it.
	other string
	// optional values are dropped where the kernel has no file for them.
	optional bool
	// early values may be refused: the same write comes again later.
	early bool
}

// apply makes the writes in order.
func (g *Group) apply(ws []write) error {
	for _, w := range ws {
		dir := g.dir(w.controller)
		if dir == "" {
			if w.optional {
				continue
			}
			return errs.New(errs.Unsupported, "set %s: cgroup controller %s is not mounted on this host", w.file, w.controller)
		}
		err := writeFile(filepath.Join(dir, w.file), []byte(w.value))
		if errors.Is(err, os.ErrNotExist) && w.other != "" {
			err = writeFile(filepath.Join(dir, w.other), []byte(w.value))
		}
		switch {
		case err == nil, w.early:
		case errors.Is(err, os.ErrNotExist) && w.optional:
		case errors.Is(err, os.ErrNotExist):
			return errs.New(errs.Unsupported, "set %s: this kernel does not offer it: %w", w.file, err)
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
			return errs.New(errs.Invalid, "set %s to %q: the kernel refuses the value: %w", w.file, strings.TrimSpace(w.value), err)
		case errors.Is(err, unix.EBUSY) && strings.HasPrefix(w.file, "memory."):
			return errs.New(errs.Conflict, "set %s to %s: more than that is in use and can't be reclaimed: %w", w.file, w.value, err)
		default:
			return err
		}
	}
	return nil
}

func itoa[T int64 | int | uint16 | uint32](n T) string { return strconv.FormatInt(int64(n), 10) }
func utoa(n uint64) string                             { return strconv.FormatUint(n, 10) }

// writesV1 says what res means on v1 hierarchies.
func writesV1(res *specs.LinuxResources) ([]write, error) {
	if len(res.Unified) > 0 {
		return nil, errs.New(errs.Unsupported, "unified resources need a cgroup v2 host")
	}
	var ws []write
	add := func(controller, file, value string) {
		ws = append(ws, write{controller: controller, file: file, value: value})
	}
	if m := res.Memory; m != nil {
		ws = append(ws, memoryV1(m)...)
	}
	if c := res.CPU; c != nil {
		ws = append(ws, cpuV1(c)...)
	}
	if p := res.Pids; p != nil && p.Limit != nil && *p.Limit != 0 {
		add("pids", "pids.max", orMax(*p.Limit))
	}
	if b := res.BlockIO; b != nil {
		ws = append(ws, blkioV1(b)...)
	}
	for _, h := range res.HugepageLimits {
		add("hugetlb", "hugetlb."+h.Pagesize+".limit_in_bytes", utoa(h.Limit))
	}
	if n := res.Network; n != nil {
		if n.ClassID != nil {
			add("net_cls", "net_cls.classid", utoa(uint64(*n.ClassID)))
		}
		for _, p := range n.Priorities {
			add("net_prio", "net_prio.ifpriomap", p.Name+" "+utoa(uint64(p.Priority)))
		}
	}
	for _, d := range slices.Sorted(maps.Keys(res.Rdma)) {
		add("rdma", "rdma.max", rdmaLine(d, res.Rdma[d]))
	}
	for _, r := range res.Devices {
		line, err := deviceLine(r)
		if err != nil {
			return nil, err
		}
		file := "devices.deny"
		if r.Allow {
			file = "devices.allow"
		}
		add("devices", file, line)
	}
	return ws, nil
}

func memoryV1(m *specs.LinuxMemory) (ws []write) {
	add := func(file string, n *int64, optional bool) {
		if n != nil && *n != 0 {
			ws = append(ws, write{controller: "memory", file: file, value: itoa(*n), optional: optional})
		}
	}
	// memsw must never be below limit, so which of the two has to go first
	// depends on the present values: memsw is tried before and set after.
	if deref(m.Limit) != 0 && deref(m.Swap) != 0 {
		ws = append(ws, write{controller: "memory", file: "memory.memsw.limit_in_bytes", value: itoa(*m.Swap), optional: true, early: true})
	}
	add("memory.limit_in_bytes", m.Limit, false)
	// Without swap accounting in the kernel there is no memsw file; no
	// limit on swap is then what there is.
	add("memory.memsw.limit_in_bytes", m.Swap, deref(m.Swap) == -1)
	add("memory.soft_limit_in_bytes", m.Reservation, false)
	add("memory.kmem.tcp.limit_in_bytes", m.KernelTCP, true)
	if m.Swappiness != nil {
		ws = append(ws, write{controller: "memory", file: "memory.swappiness", value: utoa(*m.Swappiness)})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		ws = append(ws, write{controller: "memory", file: "memory.oom_control", value: "1"})
	}
	return ws
}

func cpuV1(c *specs.LinuxCPU) (ws []write) {
	add := func(controller, file, value string) {
		ws = append(ws, write{controller: controller, file: file, value: value})
	}
	if c.Shares != nil && *c.Shares != 0 {
		add("cpu", "cpu.shares", utoa(*c.Shares))
	}
	if c.Period != nil && *c.Period != 0 {
		add("cpu", "cpu.cfs_period_us", utoa(*c.Period))
	}
	if c.Quota != nil && *c.Quota != 0 {
		add("cpu", "cpu.cfs_quota_us", itoa(*c.Quota))
	}
	if c.Burst != nil {
		add("cpu", "cpu.cfs_burst_us", utoa(*c.Burst))
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		add("cpu", "cpu.rt_period_us", utoa(*c.RealtimePeriod))
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		add("cpu", "cpu.rt_runtime_us", itoa(*c.RealtimeRuntime))
	}
	if c.Idle != nil {
		add("cpu", "cpu.idle", itoa(*c.Idle))
	}
	if c.Cpus != "" {
		add("cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		add("cpuset", "cpuset.mems", c.Mems)
	}
	return ws
}

func blkioV1(b *specs.LinuxBlockIO) (ws []write) {
	add := func(file, value, other string) {
		ws = append(ws, write{controller: "blkio", file: file, value: value, other: other})
	}
	if b.Weight != nil && *b.Weight != 0 {
		add("blkio.weight", itoa(*b.Weight), "blkio.bfq.weight")
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		add("blkio.leaf_weight", itoa(*b.LeafWeight), "")
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			add("blkio.weight_device", devNumber(d.Major, d.Minor)+" "+itoa(*d.Weight), "blkio.bfq.weight_device")
		}
		if d.LeafWeight != nil {
			add("blkio.leaf_weight_device", devNumber(d.Major, d.Minor)+" "+itoa(*d.LeafWeight), "")
		}
	}
	for _, l := range []struct {
		file string
		devs []specs.LinuxThrottleDevice
	}{
		{"blkio.throttle.read_bps_device", b.ThrottleReadBpsDevice},
		{"blkio.throttle.write_bps_device", b.ThrottleWriteBpsDevice},
		{"blkio.throttle.read_iops_device", b.ThrottleReadIOPSDevice},
		{"blkio.throttle.write_iops_device", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range l.devs {
			add(l.file, devNumber(d.Major, d.Minor)+" "+utoa(d.Rate), "")
		}
	}
	return ws
}

// writesV2 says what res means in the unified hierarchy.
func writesV2(res *specs.LinuxResources) ([]write, error) {
	var ws []write
	add := func(file, value string) { ws = append(ws, write{file: file, value: value}) }
	if m := res.Memory; m != nil {
		mem, err := memoryV2(m)
		if err != nil {
			return nil, err
		}
		ws = append(ws, mem...)
	}
	if c := res.CPU; c != nil {
		ws = append(ws, cpuV2(c)...)
	}
	if p := res.Pids; p != nil && p.Limit != nil && *p.Limit != 0 {
		add("pids.max", orMax(*p.Limit))
	}
	if b := res.BlockIO; b != nil {
		ws = append(ws, ioV2(b)...)
	}
	for _, h := range res.HugepageLimits {
		add("hugetlb."+h.Pagesize+".max", utoa(h.Limit))
		ws = append(ws, write{file: "hugetlb." + h.Pagesize + ".rsvd.max", value: utoa(h.Limit), optional: true})
	}
	for _, d := range slices.Sorted(maps.Keys(res.Rdma)) {
		add("rdma.max", rdmaLine(d, res.Rdma[d]))
	}
	for _, k := range slices.Sorted(maps.Keys(res.Unified)) {
		if strings.ContainsAny(k, "/\x00") || k == "" || k == "." || k == ".." {
			return nil, errs.New(errs.Invalid, "unified resource %q: not a file name", k)
		}
		add(k, res.Unified[k])
	}
	return ws, nil
}

func memoryV2(m *specs.LinuxMemory) (ws []write, err error) {
	limit, swap := deref(m.Limit), deref(m.Swap)
	if limit != 0 {
		ws = append(ws, write{file: "memory.max", value: orMax(limit)})
	}
	// v1 counts memory and swap together, v2 swap alone.
	switch {
	case swap == -1:
		ws = append(ws, write{file: "memory.swap.max", value: "max", optional: true})
	case swap > 0 && limit > 0:
		if swap < limit {
			return nil, errs.New(errs.Invalid, "memory and swap together (%d bytes) are less than memory alone (%d bytes)", swap, limit)
		}
		ws = append(ws, write{file: "memory.swap.max", value: itoa(swap - limit), optional: true})
	case swap > 0 && limit == -1:
		return nil, errs.New(errs.Invalid, "a swap limit needs a memory limit")
	}
	if r := deref(m.Reservation); r != 0 {
		ws = append(ws, write{file: "memory.low", value: orMax(r)})
	}
	return ws, nil
}

func cpuV2(c *specs.LinuxCPU) (ws []write) {
	add := func(file, value string) { ws = append(ws, write{file: file, value: value}) }
	if c.Idle != nil {
		add("cpu.idle", itoa(*c.Idle))
	}
	if c.Shares != nil && *c.Shares != 0 && (c.Idle == nil || *c.Idle == 0) {
		add("cpu.weight", utoa(cpuWeight(*c.Shares)))
	}
	quota, period := deref(c.Quota), uint64(0)
	if c.Period != nil {
		period = *c.Period
	}
	if quota != 0 || period != 0 {
		value := "max"
		if quota > 0 {
			value = itoa(quota)
		}
		if period == 0 {
			period = 100_000
		}
		add("cpu.max", value+" "+utoa(period))
	}
	if c.Burst != nil {
		add("cpu.max.burst", utoa(*c.Burst))
	}
	if c.Cpus != "" {
		add("cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		add("cpuset.mems", c.Mems)
	}
	return ws
}

// cpuWeight maps v1 shares (2 to 262144, default 1024) to a v2 weight (1 to
// 10000, default 100) along the curve through those three points, as current
// OCI runtimes do: log10 w = (l² + 125 l)/612 − 7/34 with l = log2 shares.
func cpuWeight(shares uint64) uint64 {
	if shares <= 2 {
		return 1
	}
	if shares >= 262144 {
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612.0-7.0/34.0)))
}

func ioV2(b *specs.LinuxBlockIO) (ws []write) {
	add := func(file, value, other string) { ws = append(ws, write{file: file, value: value, other: other}) }
	if b.Weight != nil && *b.Weight != 0 {
		// Which of the two there is depends on the I/O scheduler.
		ws = append(ws, write{file: "io.bfq.weight", value: itoa(*b.Weight), optional: true},
			write{file: "io.weight", value: "default " + utoa(ioWeight(*b.Weight)), optional: true})
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			add("io.bfq.weight", devNumber(d.Major, d.Minor)+" "+itoa(*d.Weight), "io.weight")
		}
	}
	for _, l := range []struct {
		key  string
		devs []specs.LinuxThrottleDevice
	}{
		{"rbps", b.ThrottleReadBpsDevice},
		{"wbps", b.ThrottleWriteBpsDevice},
		{"riops", b.ThrottleReadIOPSDevice},
		{"wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range l.devs {
			add("io.max", fmt.Sprintf("%s %s=%d", devNumber(d.Major, d.Minor), l.key, d.Rate), "")
		}
	}
	return ws
}

// ioWeight maps a blkio weight (10 to 1000) to io.weight (1 to 10000).
func ioWeight(weight uint16) uint64 {
	return 1 + (uint64(max(weight, 10))-10)*9999/990
}

// orMax writes a limit as v2 and the pids controller do: any negative number
// is no limit.
func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return itoa(n)
}

func deref(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func devNumber(major, minor int64) string { return itoa(major) + ":" + itoa(minor) }

func rdmaLine(device string, r specs.LinuxRdma) string {
	line := device
	if r.HcaHandles != nil {
		line += " hca_handle=" + utoa(uint64(*r.HcaHandles))
	}
	if r.HcaObjects != nil {
		line += " hca_object=" + utoa(uint64(*r.HcaObjects))
	}
	return line
}
