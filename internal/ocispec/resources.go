package ocispec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/plan"
	"gantry/internal/wire"
)

// cfsPeriod is the period in microseconds against which NanoCpus is counted.
const cfsPeriod = 100000

// Resources writes p's limits. in gives Devices and BlockDevice; the rest is
// not read. It is also what an update of a running container applies.
func Resources(p *plan.Plan, in Inputs) (*specs.LinuxResources, error) {
	rules, err := deviceRules(p, in)
	if err != nil {
		return nil, err
	}
	io, err := blockIO(p.Resources, in)
	if err != nil {
		return nil, err
	}
	out := &specs.LinuxResources{
		Devices: rules,
		Memory:  memory(p.Resources),
		CPU:     cpu(p.Resources),
		BlockIO: io,
	}
	if l := p.Resources.PidsLimit; l != nil {
		limit := *l
		if limit <= 0 {
			limit = -1
		}
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	return out, nil
}

func memory(r wire.Resources) *specs.LinuxMemory {
	m := specs.LinuxMemory{}
	if r.Memory > 0 {
		m.Limit = &r.Memory
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	if r.MemorySwap != 0 {
		m.Swap = &r.MemorySwap
	}
	if s := r.MemorySwappiness; s != nil && *s >= 0 {
		n := uint64(*s)
		m.Swappiness = &n
	}
	if d := r.OomKillDisable; d != nil && *d {
		m.DisableOOMKiller = d
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

func cpu(r wire.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares != 0 {
		n := uint64(max(r.CPUShares, 0))
		c.Shares = &n
	}
	if r.NanoCPUs > 0 {
		period, quota := uint64(cfsPeriod), r.NanoCPUs*cfsPeriod/1e9
		c.Period, c.Quota = &period, &quota
	}
	if r.CPUPeriod != 0 {
		n := uint64(r.CPUPeriod)
		c.Period = &n
	}
	if r.CPUQuota != 0 {
		c.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod != 0 {
		n := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod = &n
	}
	if r.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func blockIO(r wire.Resources, in Inputs) (*specs.LinuxBlockIO, error) {
	var out specs.LinuxBlockIO
	any := false
	if r.BlkioWeight > 0 {
		out.Weight, any = &r.BlkioWeight, true
	}
	number := func(path string) (DeviceNumber, error) {
		n, ok := in.BlockDevice[path]
		if !ok {
			return n, fmt.Errorf("no such device: %s", path)
		}
		return n, nil
	}
	for _, w := range r.BlkioWeightDevice {
		if w == nil {
			continue
		}
		n, err := number(w.Path)
		if err != nil {
			return nil, err
		}
		d := specs.LinuxWeightDevice{Weight: &w.Weight}
		d.Major, d.Minor = n.Major, n.Minor
		out.WeightDevice, any = append(out.WeightDevice, d), true
	}
	for _, l := range []struct {
		to   *[]specs.LinuxThrottleDevice
		from throttles
	}{
		{&out.ThrottleReadBpsDevice, r.BlkioDeviceReadBps},
		{&out.ThrottleWriteBpsDevice, r.BlkioDeviceWriteBps},
		{&out.ThrottleReadIOPSDevice, r.BlkioDeviceReadIOps},
		{&out.ThrottleWriteIOPSDevice, r.BlkioDeviceWriteIOps},
	} {
		for _, t := range l.from {
			if t == nil {
				continue
			}
			n, err := number(t.Path)
			if err != nil {
				return nil, err
			}
			d := specs.LinuxThrottleDevice{Rate: t.Rate}
			d.Major, d.Minor = n.Major, n.Minor
			*l.to, any = append(*l.to, d), true
		}
	}
	if !any {
		return nil, nil
	}
	return &out, nil
}

type throttles = []*wire.ThrottleDevice

// BlockPaths are the paths of the devices that p limits, for Inputs.BlockDevice.
func BlockPaths(p *plan.Plan) []string {
	var out []string
	for _, w := range p.Resources.BlkioWeightDevice {
		if w != nil {
			out = append(out, w.Path)
		}
	}
	r := p.Resources
	for _, t := range slices.Concat(r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps) {
		if t != nil {
			out = append(out, t.Path)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// deviceRules is the list of what may be opened. It begins with a refusal of
// everything, so that what is not named is denied whatever a parent group
// allows.
func deviceRules(p *plan.Plan, in Inputs) ([]specs.LinuxDeviceCgroup, error) {
	if p.Security.Privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, nil
	}
	rules := defaultDeviceRules()
	for _, d := range in.Devices {
		if d.Access != "" && d.Type != "p" {
			rules = append(rules, allow(d.Type, d.Number.Major, d.Number.Minor, d.Access))
		}
	}
	for _, text := range p.DeviceRules {
		r, err := parseRule(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// wildcard stands for every number in allow.
const wildcard = -1

func allow(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
	if major != wildcard {
		r.Major = &major
	}
	if minor != wildcard {
		r.Minor = &minor
	}
	return r
}

// defaultDeviceRules: any node may be made, and those opened that are the
// process's own or give away nothing.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		allow("c", wildcard, wildcard, "m"),
		allow("b", wildcard, wildcard, "m"),
		allow("c", 1, 3, "rwm"),          // null
		allow("c", 1, 5, "rwm"),          // zero
		allow("c", 1, 7, "rwm"),          // full
		allow("c", 1, 8, "rwm"),          // random
		allow("c", 1, 9, "rwm"),          // urandom
		allow("c", 5, 0, "rwm"),          // tty
		allow("c", 5, 1, "rwm"),          // console
		allow("c", 5, 2, "rwm"),          // ptmx
		allow("c", 136, wildcard, "rwm"), // pts
	}
}

// parseRule reads "c 1:3 rwm": type a, b or c, numbers or *, access.
func parseRule(text string) (specs.LinuxDeviceCgroup, error) {
	invalid := fmt.Errorf("invalid device cgroup rule format: '%s'", text)
	f := strings.Split(text, " ")
	if len(f) != 3 || len(f[0]) != 1 || !strings.Contains("abc", f[0]) {
		return specs.LinuxDeviceCgroup{}, invalid
	}
	ma, mi, ok := strings.Cut(f[1], ":")
	if !ok || f[2] == "" || len(f[2]) > 3 || strings.Trim(f[2], "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, invalid
	}
	major, err := ruleNumber(ma)
	if err != nil {
		return specs.LinuxDeviceCgroup{}, invalid
	}
	minor, err := ruleNumber(mi)
	if err != nil {
		return specs.LinuxDeviceCgroup{}, invalid
	}
	return allow(f[0], major, minor, f[2]), nil
}

func ruleNumber(s string) (int64, error) {
	if s == "*" {
		return wildcard, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int64(n), err
}

func devices(in Inputs) []specs.LinuxDevice {
	if in.UserNS != "" {
		return nil // see boundDevices
	}
	var out []specs.LinuxDevice
	for _, d := range in.Devices {
		mode := d.Mode
		out = append(out, specs.LinuxDevice{
			Path: d.Path, Type: d.Type, Major: d.Number.Major, Minor: d.Number.Minor,
			FileMode: &mode, UID: &d.UID, GID: &d.GID,
		})
	}
	return out
}

// boundDevices are the devices of a container in a user namespace, where nodes
// can't be made: the host's own.
func boundDevices(in Inputs) []specs.Mount {
	if in.UserNS == "" {
		return nil
	}
	var out []specs.Mount
	for _, d := range in.Devices {
		out = append(out, specs.Mount{Destination: d.Path, Type: "bind", Source: d.Host, Options: []string{"bind", "rprivate"}})
	}
	return out
}
