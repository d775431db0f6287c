package plan

import (
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Update returns p with the limits of req that are not zero, and its restart
// policy if it has one. containerID is for the texts of conflicts, which are
// of kind Conflict; wrong values are Invalid.
func Update(p *Plan, containerID string, req wire.UpdateConfig, d Defaults) (*Plan, []string, error) {
	warn := warnings{}
	r := req.Resources
	if r.Memory == 0 && r.MemorySwap > 0 {
		r.Memory = p.Resources.Memory // new swap belongs to the old memory
	}
	if r.PidsLimit != nil && *r.PidsLimit <= 0 {
		r.PidsLimit = new(int64) // both 0 and -1 mean no limit here
	}
	if err := checkResources(&r, d.Kernel, &warn); err != nil {
		return nil, nil, err
	}
	if err := checkRestart(req.RestartPolicy); err != nil {
		return nil, nil, err
	}
	res, err := mergeResources(p.Resources, r)
	if err != nil {
		return nil, nil, errs.New(errs.Conflict, "Cannot update container %s: %w", containerID, err)
	}
	if err := checkRestartHealth(req.RestartPolicy, p.Health); err != nil {
		return nil, nil, err
	}
	restart := p.Restart
	if req.RestartPolicy.Name != "" {
		if p.AutoRemove && !req.RestartPolicy.IsNone() {
			return nil, nil, errs.New(errs.Conflict, "Cannot update container %s: Restart policy cannot be updated because AutoRemove is enabled for the container", containerID)
		}
		restart = req.RestartPolicy
	}
	return p.withResources(res, restart), warn.list(), nil
}

// mergeResources puts the limits of new that are set over old.
func mergeResources(old, new wire.Resources) (wire.Resources, error) {
	conflict := func(a, b string) (wire.Resources, error) {
		return old, errs.New(errs.Conflict, "Conflicting options: %s cannot be updated as %s has already been set", a, b)
	}
	switch {
	case new.NanoCPUs > 0 && old.CPUPeriod > 0:
		return conflict("Nano CPUs", "CPU Period")
	case new.NanoCPUs > 0 && old.CPUQuota > 0:
		return conflict("Nano CPUs", "CPU Quota")
	case new.CPUPeriod > 0 && old.NanoCPUs > 0:
		return conflict("CPU Period", "NanoCPUs")
	case new.CPUQuota > 0 && old.NanoCPUs > 0:
		return conflict("CPU Quota", "NanoCPUs")
	case new.Memory > 0 && new.Memory > old.MemorySwap && new.MemorySwap == 0:
		// Also without a limit so far, and with endless swap: as Docker.
		return old, errs.New(errs.Conflict, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	over(&old.BlkioWeight, new.BlkioWeight)
	over(&old.CPUShares, new.CPUShares)
	over(&old.NanoCPUs, new.NanoCPUs)
	over(&old.CPUPeriod, new.CPUPeriod)
	over(&old.CPUQuota, new.CPUQuota)
	over(&old.CPURealtimePeriod, new.CPURealtimePeriod)
	over(&old.CPURealtimeRuntime, new.CPURealtimeRuntime)
	over(&old.CpusetCpus, new.CpusetCpus)
	over(&old.CpusetMems, new.CpusetMems)
	over(&old.Memory, new.Memory)
	over(&old.MemorySwap, new.MemorySwap)
	over(&old.MemoryReservation, new.MemoryReservation)
	over(&old.PidsLimit, new.PidsLimit)
	if len(new.BlkioWeightDevice) > 0 {
		old.BlkioWeightDevice = new.BlkioWeightDevice
	}
	if len(new.BlkioDeviceReadBps) > 0 {
		old.BlkioDeviceReadBps = new.BlkioDeviceReadBps
	}
	if len(new.BlkioDeviceWriteBps) > 0 {
		old.BlkioDeviceWriteBps = new.BlkioDeviceWriteBps
	}
	if len(new.BlkioDeviceReadIOps) > 0 {
		old.BlkioDeviceReadIOps = new.BlkioDeviceReadIOps
	}
	if len(new.BlkioDeviceWriteIOps) > 0 {
		old.BlkioDeviceWriteIOps = new.BlkioDeviceWriteIOps
	}
	return old, nil
}

// over writes v to p unless it is zero.
func over[T comparable](p *T, v T) {
	var zero T
	if v != zero {
		*p = v
	}
}
