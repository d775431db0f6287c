package hostinfo

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"gantry/internal/cgroup"
	"gantry/internal/plan"
)

// Kernel finds out what the kernel can do for containers: a limit exists if the
// file that it is written to does.
func Kernel(cg *cgroup.Host) plan.Kernel {
	has := func(controller, file string) bool {
		dir, ok := cg.V1[controller]
		if !ok {
			return false
		}
		_, err := os.Stat(filepath.Join(dir, file))
		return err == nil
	}
	k := plan.Kernel{NCPU: runtime.NumCPU()}
	if cg.Mode == cgroup.V2 {
		k = kernelV2(cg.V2)
	} else {
		k.MemoryLimit = has("memory", "memory.limit_in_bytes")
		k.SwapLimit = has("memory", "memory.memsw.limit_in_bytes")
		k.MemorySwappiness = has("memory", "memory.swappiness")
		k.MemoryReservation = has("memory", "memory.soft_limit_in_bytes")
		k.OOMKillDisable = has("memory", "memory.oom_control")
		k.CPUShares = has("cpu", "cpu.shares")
		k.CPUCfs = has("cpu", "cpu.cfs_quota_us")
		k.CPURealtime = has("cpu", "cpu.rt_period_us")
		k.Cpuset = has("cpuset", "cpuset.cpus")
		k.PidsLimit = has("pids", "cgroup.procs")
		k.BlkioWeight = has("blkio", "blkio.weight") || has("blkio", "blkio.bfq.weight")
		k.BlkioWeightDevice = has("blkio", "blkio.weight_device") || has("blkio", "blkio.bfq.weight_device")
		k.BlkioReadBps = has("blkio", "blkio.throttle.read_bps_device")
		k.BlkioWriteBps = has("blkio", "blkio.throttle.write_bps_device")
		k.BlkioReadIOps = has("blkio", "blkio.throttle.read_iops_device")
		k.BlkioWriteIOps = has("blkio", "blkio.throttle.write_iops_device")
		k.CPUs, k.Mems = line(cg.V1["cpuset"], "cpuset.effective_cpus", "cpuset.cpus"), line(cg.V1["cpuset"], "cpuset.effective_mems", "cpuset.mems")
	}
	k.NCPU = runtime.NumCPU()
	k.LastCap, _ = strconv.Atoi(line("/proc/sys/kernel", "cap_last_cap"))
	k.CgroupNamespaces = exists("/proc/self/ns/cgroup")
	k.Seccomp = exists("/proc/sys/kernel/seccomp/actions_avail")
	k.AppArmor = line("/sys/module/apparmor/parameters", "enabled") == "Y"
	k.IPv4Forwarding = Sysctl("net/ipv4/ip_forward")
	return k
}

// kernelV2 reads the controllers of the unified hierarchy; each has all of its
// files.
func kernelV2(mount string) plan.Kernel {
	k := plan.Kernel{CgroupV2: true}
	for _, c := range strings.Fields(line(mount, "cgroup.controllers")) {
		switch c {
		case "memory":
			k.MemoryLimit, k.MemoryReservation = true, true
			k.SwapLimit = exists("/proc/swaps")
		case "cpu":
			k.CPUShares, k.CPUCfs = true, true
		case "cpuset":
			k.Cpuset = true
		case "pids":
			k.PidsLimit = true
		case "io":
			k.BlkioWeight, k.BlkioWeightDevice = true, true
			k.BlkioReadBps, k.BlkioWriteBps, k.BlkioReadIOps, k.BlkioWriteIOps = true, true, true, true
		}
	}
	k.CPUs, k.Mems = line(mount, "cpuset.cpus.effective"), line(mount, "cpuset.mems.effective")
	return k
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// line returns the text of the first file of dir that is not empty.
func line(dir string, files ...string) string {
	for _, f := range files {
		if data, err := os.ReadFile(filepath.Join(dir, f)); err == nil {
			if s := strings.TrimSpace(string(data)); s != "" {
				return s
			}
		}
	}
	return ""
}
