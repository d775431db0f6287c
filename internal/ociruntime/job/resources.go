package job

import (
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// visitResources carries the whole of the spec's resource limits: the shim
// gives them to package cgroup unread.
func visitResources(c *coder, r *specs.LinuxResources) {
	list(c, &r.Devices, func(c *coder, d *specs.LinuxDeviceCgroup) {
		c.flag(&d.Allow)
		c.str(&d.Type)
		opt(c, &d.Major, num[int64])
		opt(c, &d.Minor, num[int64])
		c.str(&d.Access)
	})
	opt(c, &r.Memory, visitMemory)
	opt(c, &r.CPU, visitCPU)
	opt(c, &r.Pids, func(c *coder, p *specs.LinuxPids) { opt(c, &p.Limit, num[int64]) })
	opt(c, &r.BlockIO, visitBlockIO)
	list(c, &r.HugepageLimits, func(c *coder, h *specs.LinuxHugepageLimit) {
		c.str(&h.Pagesize)
		num(c, &h.Limit)
	})
	opt(c, &r.Network, func(c *coder, n *specs.LinuxNetwork) {
		opt(c, &n.ClassID, num[uint32])
		list(c, &n.Priorities, func(c *coder, p *specs.LinuxInterfacePriority) {
			c.str(&p.Name)
			num(c, &p.Priority)
		})
	})
	table(c, &r.Rdma, func(c *coder, l *specs.LinuxRdma) {
		opt(c, &l.HcaHandles, num[uint32])
		opt(c, &l.HcaObjects, num[uint32])
	})
	table(c, &r.Unified, visitString)
}

func visitMemory(c *coder, m *specs.LinuxMemory) {
	//lint:ignore SA1019 deprecated fields still arrive
	for _, p := range []**int64{&m.Limit, &m.Reservation, &m.Swap, &m.Kernel, &m.KernelTCP} {
		opt(c, p, num[int64])
	}
	opt(c, &m.Swappiness, num[uint64])
	opt(c, &m.DisableOOMKiller, visitFlag)
	opt(c, &m.UseHierarchy, visitFlag)
	opt(c, &m.CheckBeforeUpdate, visitFlag)
}

func visitCPU(c *coder, p *specs.LinuxCPU) {
	opt(c, &p.Shares, num[uint64])
	opt(c, &p.Quota, num[int64])
	opt(c, &p.Burst, num[uint64])
	opt(c, &p.Period, num[uint64])
	opt(c, &p.RealtimeRuntime, num[int64])
	opt(c, &p.RealtimePeriod, num[uint64])
	c.str(&p.Cpus)
	c.str(&p.Mems)
	opt(c, &p.Idle, num[int64])
}

func visitBlockIO(c *coder, b *specs.LinuxBlockIO) {
	opt(c, &b.Weight, num[uint16])
	opt(c, &b.LeafWeight, num[uint16])
	list(c, &b.WeightDevice, func(c *coder, d *specs.LinuxWeightDevice) {
		num(c, &d.Major)
		num(c, &d.Minor)
		opt(c, &d.Weight, num[uint16])
		opt(c, &d.LeafWeight, num[uint16])
	})
	for _, l := range []*[]specs.LinuxThrottleDevice{
		&b.ThrottleReadBpsDevice, &b.ThrottleWriteBpsDevice, &b.ThrottleReadIOPSDevice, &b.ThrottleWriteIOPSDevice,
	} {
		list(c, l, func(c *coder, d *specs.LinuxThrottleDevice) {
			num(c, &d.Major)
			num(c, &d.Minor)
			num(c, &d.Rate)
		})
	}
}

// table carries a map, sorted by key so that equal values have equal forms.
func table[T any](c *coder, m *map[string]T, visit func(*coder, *T)) {
	type entry struct {
		key   string
		value T
	}
	var entries []entry
	for _, k := range slices.Sorted(maps.Keys(*m)) {
		entries = append(entries, entry{k, (*m)[k]})
	}
	list(c, &entries, func(c *coder, e *entry) {
		c.str(&e.key)
		visit(c, &e.value)
	})
	if !c.decoding || len(entries) == 0 {
		return
	}
	*m = make(map[string]T, len(entries))
	for _, e := range entries {
		(*m)[e.key] = e.value
	}
}
