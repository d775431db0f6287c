// Package ocispec renders a plan.Plan, and what launch found on the host for
// it, as an OCI runtime spec: the one description that our own runtime and any
// other understands. It owns Docker's default mounts, devices, capabilities
// and paths to hide, and the grammar of users and groups.
//
// The engine's launch package calls it at every start. All of it is functions
// from values to values: it opens no file, and must not know of the store, of
// drivers or of processes. (Its child hostdev looks devices up on the host.)
//
// Source: OCI runtime-spec 1.3; the content is that of Docker's containers as
// recorded.
package ocispec

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Inputs is what launch has found out and made for one start.
type Inputs struct {
	ID       string // container ID
	Hostname string // plan.Plan.Hostname; never empty
	// RootPath is spec.Root.Path; for our own runtime any text, since it
	// gets its overlay by other means.
	RootPath string

	// CgroupPath is spec.Linux.CgroupsPath; CgroupV2 tells which kind the
	// host has.
	CgroupPath string
	CgroupV2   bool

	// NetNS, PIDNS, IPCNS and UTSNS are paths of namespaces to be joined;
	// empty for a fresh one. A namespace that the plan takes from the host
	// needs none.
	NetNS, PIDNS, IPCNS, UTSNS string
	// UserNS is the path of the user namespace to be joined, empty for the
	// host's; UIDMap and GIDMap are its maps.
	UserNS         string
	UIDMap, GIDMap []specs.LinuxIDMapping
	// Mapped are the targets of those Sources whose owners are to be seen
	// through the maps, since they lie on the disk under the ids of inside.
	Mapped map[string]bool
	// ShmPath is the host path to be had at /dev/shm instead of a fresh
	// one: that of the container whose IPC namespace is joined.
	ShmPath string

	User User // as LookupUser found

	// Sources gives, by a mount's Target, the host path to be bound there:
	// the directory of a volume or an image. Binds need none.
	Sources map[string]string
	// Owners gives, by a mount's Target, the maps through which its owners are
	// seen: from the ids on the disk (ContainerID) to those of this host.
	Owners map[string]Owners
	// HostsPath, HostnamePath and ResolvConfPath are host paths of files to
	// be bound over those in /etc; empty for none.
	HostsPath, HostnamePath, ResolvConfPath string

	Devices     []Device                // Plan.Devices, and on AllDevices the host's; see hostdev
	BlockDevice map[string]DeviceNumber // by path, for the blkio limits

	Seccomp *specs.LinuxSeccomp // nil for none
	// LinkEnv are environment variables of legacy links.
	LinkEnv []string
	// InitPath is a host path of a program to be bound at /sbin/docker-init
	// and run as the first process if the plan wants an init. Empty: the
	// runtime has its own, asked for by AnnotationInit.
	InitPath string
	// Caps is the set of capabilities that can be given (bit n for number
	// n): the daemon's own bounding set. 0 for all.
	Caps uint64
	// RecursiveReadOnly says that the kernel can do so (5.12, mount_setattr).
	RecursiveReadOnly bool
	// AppArmor is the profile for a container that names none; "" on a host without.
	AppArmor string
}

// AnnotationInit on a spec asks our runtime to run its own reaper as the
// first process, with the value "1".
const AnnotationInit = "gantry.init"

// DeviceNumber names a device to the kernel.
type DeviceNumber struct{ Major, Minor int64 }

// Device is a device node to be made in a container.
type Device struct {
	Path   string // in the container
	Type   string // "c", "b" or "p"
	Number DeviceNumber
	Mode   os.FileMode // permission bits
	UID    uint32
	GID    uint32
	Access string // some of r, w, m; empty grants nothing
	Host   string // path on the host
}

// Owners are the id maps of a mount.
type Owners struct{ UID, GID []specs.LinuxIDMapping }

// User is a resolved user.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups, exactly; the first is GID.
	Groups []uint32
	Home   string // "/" if nobody knows
}

// UserNamespace is an open user namespace that no process need be in. The files
// are of whoever has it.
type UserNamespace struct {
	User *os.File // nil for the host's
	Net  *os.File // a network namespace that belongs to it; nil if there is none
	// UID and GID are its maps.
	UID, GID []specs.LinuxIDMapping
}

// Close closes the files; the namespaces live on with what runs in them.
func (u UserNamespace) Close() {
	for _, f := range []*os.File{u.User, u.Net} {
		if f != nil {
			f.Close()
		}
	}
}

// Has reports whether ids are mapped. The host's has all.
func (u UserNamespace) Has(uid, gid uint32) bool {
	in := func(list []specs.LinuxIDMapping, id uint32) bool {
		for _, m := range list {
			if id >= m.ContainerID && id-m.ContainerID < m.Size {
				return true
			}
		}
		return false
	}
	return u.User == nil || in(u.UID, uid) && in(u.GID, gid)
}
