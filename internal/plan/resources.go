package plan

import (
	"fmt"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// minMemory is the least memory limit: below it not even the runtime's init
// would get as far as the user's program.
const minMemory = 6 << 20

// checkResources refuses limits that can't be and drops those that the kernel
// lacks.
func checkResources(r *wire.Resources, k Kernel, w *warnings) error {
	if err := checkMemory(r, k, w); err != nil {
		return err
	}
	if err := checkCPU(r, k, w); err != nil {
		return err
	}
	if err := checkCpuset(r, k, w); err != nil {
		return err
	}
	return checkBlkio(r, k, w)
}

func checkMemory(r *wire.Resources, k Kernel, w *warnings) error {
	if r.Memory != 0 && r.Memory < minMemory {
		return errs.New(errs.Invalid, "Minimum memory limit allowed is 6MB")
	}
	if r.Memory > 0 && !k.MemoryLimit {
		w.add("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.")
		r.Memory, r.MemorySwap = 0, -1
	}
	if r.Memory > 0 && r.MemorySwap != -1 && !k.SwapLimit {
		w.add("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
		r.MemorySwap = -1
	}
	if r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory {
		return errs.New(errs.Invalid, "Minimum memoryswap limit should be larger than memory limit, see usage")
	}
	if r.Memory == 0 && r.MemorySwap > 0 {
		return errs.New(errs.Invalid, "You should always set the Memory limit when using Memoryswap limit, see usage")
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness != -1 && !k.MemorySwappiness {
		w.add("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
		r.MemorySwappiness = nil
	}
	if s := r.MemorySwappiness; s != nil && (*s < -1 || *s > 100) {
		return errs.New(errs.Invalid, "Invalid value: %d, valid memory swappiness range is 0-100", *s)
	}
	if r.MemoryReservation > 0 && !k.MemoryReservation {
		w.add("Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.")
		r.MemoryReservation = 0
	}
	if r.MemoryReservation > 0 && r.MemoryReservation < minMemory {
		return errs.New(errs.Invalid, "Minimum memory reservation allowed is 6MB")
	}
	if r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation {
		return errs.New(errs.Invalid, "Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	checkOOMAndPids(r, k, w)
	return nil
}

func checkOOMAndPids(r *wire.Resources, k Kernel, w *warnings) {
	if r.OomKillDisable != nil && !k.OOMKillDisable {
		if *r.OomKillDisable {
			w.add("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
		}
		r.OomKillDisable = nil
	}
	if r.OomKillDisable != nil && *r.OomKillDisable && r.Memory == 0 {
		w.add("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	if r.PidsLimit != nil && !k.PidsLimit {
		if *r.PidsLimit > 0 {
			w.add("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.")
		}
		r.PidsLimit = nil
	}
}

// minNanoCPUs is a hundredth of a processor: the kernel's least quota of 1 ms in
// a period of 100.
const minNanoCPUs = 1e7

func checkCPU(r *wire.Resources, k Kernel, w *warnings) error {
	if r.NanoCPUs > 0 && r.CPUPeriod > 0 {
		return errs.New(errs.Invalid, "Conflicting options: Nano CPUs and CPU Period cannot both be set")
	}
	if r.NanoCPUs > 0 && r.CPUQuota > 0 {
		return errs.New(errs.Invalid, "Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	}
	if r.NanoCPUs > 0 && !k.CPUCfs {
		return errs.New(errs.Invalid, "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted")
	}
	if r.NanoCPUs < 0 || r.NanoCPUs > 0 && r.NanoCPUs < minNanoCPUs || k.NCPU > 0 && r.NanoCPUs > int64(k.NCPU)*1e9 {
		return errs.New(errs.Invalid, "range of CPUs is from 0.01 to %d.00, as there are only %[1]d CPUs available", k.NCPU)
	}
	if r.CPUShares > 0 && !k.CPUShares {
		w.add("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.")
		r.CPUShares = 0
	}
	if (r.CPUPeriod != 0 || r.CPUQuota != 0) && !k.CPUCfs {
		w.add("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
		r.CPUPeriod, r.CPUQuota = 0, 0
	}
	if r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000) {
		return errs.New(errs.Invalid, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	}
	if r.CPUQuota > 0 && r.CPUQuota < 1000 {
		return errs.New(errs.Invalid, "CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	if r.CPUPercent > 0 {
		w.add("linux does not support CPU percent. Percent discarded.")
		r.CPUPercent = 0
	}
	return nil
}

func checkCpuset(r *wire.Resources, k Kernel, w *warnings) error {
	if (r.CpusetCpus != "" || r.CpusetMems != "") && !k.Cpuset {
		w.add("Your kernel does not support cpuset or the cgroup is not mounted. CPUset discarded.")
		r.CpusetCpus, r.CpusetMems = "", ""
	}
	if err := checkSet(r.CpusetCpus, k.CPUs, "cpus", "CPUs"); err != nil {
		return err
	}
	return checkSet(r.CpusetMems, k.Mems, "mems", "memory nodes")
}

// checkSet checks that the list want, such as "0-2,4", is within have.
func checkSet(want, have, name, noun string) error {
	asked, err := parseSet(want)
	if err != nil {
		return errs.New(errs.Invalid, "Invalid value %s for cpuset %s: %w", want, name, err)
	}
	if have == "" {
		return nil
	}
	there, err := parseSet(have)
	if err != nil {
		return errs.New(errs.Corrupt, "list of %s of this host: %w", noun, err)
	}
	for n := range asked {
		if !there[n] {
			return errs.New(errs.Invalid, "Requested %s are not available - requested %s, available: %s", noun, want, have)
		}
	}
	return nil
}

// maxSetMember bounds a list, so that "0-4000000000" costs nothing; it is the
// greatest number of processors a kernel can be built for.
const maxSetMember = 8192

func parseSet(s string) (map[int]bool, error) {
	out := map[int]bool{}
	if s == "" {
		return out, nil
	}
	for _, item := range strings.Split(s, ",") {
		lo, hi, ranged := strings.Cut(item, "-")
		if !ranged {
			hi = lo
		}
		a, errA := strconv.Atoi(lo)
		b, errB := strconv.Atoi(hi)
		if errA != nil || errB != nil || a < 0 || b < a {
			return nil, fmt.Errorf("invalid format: %s", s)
		}
		if b > maxSetMember {
			return nil, fmt.Errorf("value of out range, maximum is %d", maxSetMember)
		}
		for ; a <= b; a++ {
			out[a] = true
		}
	}
	return out, nil
}

func checkBlkio(r *wire.Resources, k Kernel, w *warnings) error {
	if r.BlkioWeight > 0 && !k.BlkioWeight {
		w.add("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
		r.BlkioWeight = 0
	}
	if r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return errs.New(errs.Invalid, "Range of blkio weight is from 10 to 1000")
	}
	if len(r.BlkioWeightDevice) > 0 && !k.BlkioWeightDevice {
		w.add("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.")
		r.BlkioWeightDevice = nil
	}
	if len(r.BlkioDeviceReadBps) > 0 && !k.BlkioReadBps {
		w.add("Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.")
		r.BlkioDeviceReadBps = nil
	}
	if len(r.BlkioDeviceWriteBps) > 0 && !k.BlkioWriteBps {
		w.add("Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.")
		r.BlkioDeviceWriteBps = nil
	}
	if len(r.BlkioDeviceReadIOps) > 0 && !k.BlkioReadIOps {
		w.add("Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.")
		r.BlkioDeviceReadIOps = nil
	}
	if len(r.BlkioDeviceWriteIOps) > 0 && !k.BlkioWriteIOps {
		w.add("Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.")
		r.BlkioDeviceWriteIOps = nil
	}
	return nil
}
