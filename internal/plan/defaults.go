package plan

import (
	"net/netip"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Image is what an image says about containers made of it.
type Image struct {
	Digest string
	Config dockerspec.DockerOCIImageConfig
}

// Defaults is what the daemon says where the user is silent, and what its host
// can do. The zero value of each field means Docker's own default, where there is one.
type Defaults struct {
	Runtime  string   // name; "" is "runc"
	Runtimes []string // names that exist besides Runtime

	LogDriver  string // "" is "json-file"
	LogOptions map[string]string
	LogDrivers []string // names that exist; nil is all that there are

	Ulimits      []Ulimit
	ShmSize      int64  // bytes; 0 is 64 MiB
	IpcMode      string // "" is "private"
	CgroupnsMode string // "" is "private" on cgroup v2, "host" on v1
	CgroupParent string // used when a container names none; "" is launch's own
	Init         bool
	LinkEnv      bool // links set variables too
	StopTimeout  int  // seconds; 0 is 10

	DNS        []netip.Addr
	DNSSearch  []string
	DNSOptions []string

	// Seccomp is "" or Builtin, Unconfined, or a profile's JSON text.
	Seccomp         string
	NoNewPrivileges bool

	UsernsRemap   bool   // ids of containers are mapped to others on the host
	SystemdCgroup bool   // cgroups are made by systemd
	HostHostname  string // for containers in the host's UTS namespace

	Kernel Kernel
}

// Kernel says what the host can do. A missing ability makes a warning and drops the wish.
type Kernel struct {
	CgroupV2 bool
	NCPU     int    // usable processors; 0 for unknown
	CPUs     string // list of usable processors, such as "0-3"; "" for unknown
	Mems     string // list of usable memory nodes; "" for unknown
	LastCap  int    // highest capability number; 0 for unknown

	MemoryLimit, SwapLimit, MemorySwappiness, MemoryReservation bool
	OOMKillDisable, PidsLimit                                   bool
	CPUShares, CPUCfs, CPURealtime, Cpuset                      bool
	BlkioWeight, BlkioWeightDevice                              bool
	BlkioReadBps, BlkioWriteBps, BlkioReadIOps, BlkioWriteIOps  bool
	CgroupNamespaces, Seccomp, AppArmor, IPv4Forwarding         bool
}

// CompleteKernel is a Kernel with all that a current one can do on cgroup v1 or v2,
// for ncpu processors.
func CompleteKernel(ncpu int, v2 CgroupVersion) Kernel {
	return Kernel{
		CgroupV2: v2 == CgroupV2, NCPU: ncpu,
		MemoryLimit: true, SwapLimit: true, MemorySwappiness: v2 != CgroupV2, MemoryReservation: true,
		OOMKillDisable: v2 != CgroupV2, PidsLimit: true,
		CPUShares: true, CPUCfs: true, CPURealtime: v2 != CgroupV2, Cpuset: true,
		BlkioWeight: true, BlkioWeightDevice: true,
		BlkioReadBps: true, BlkioWriteBps: true, BlkioReadIOps: true, BlkioWriteIOps: true,
		CgroupNamespaces: true, Seccomp: true, IPv4Forwarding: true,
	}
}

// CgroupVersion is 1 or 2.
type CgroupVersion int

// The versions.
const (
	CgroupV1 CgroupVersion = 1
	CgroupV2 CgroupVersion = 2
)

// complete puts Docker's defaults where the daemon has none of its own.
func (d Defaults) complete() Defaults {
	d.Runtime = firstNonEmpty(d.Runtime, "runc")
	d.LogDriver = firstNonEmpty(d.LogDriver, "json-file")
	d.IpcMode = firstNonEmpty(d.IpcMode, string(Private))
	if d.LogDrivers == nil {
		d.LogDrivers = append(LogDrivers(), LogNone)
	}
	if d.ShmSize == 0 {
		d.ShmSize = 64 << 20
	}
	if d.StopTimeout == 0 {
		d.StopTimeout = 10
	}
	return d
}
