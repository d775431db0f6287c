// Package job is the flat description of a process to isolate: what the parent
// half of the runtime sends to the child half. FromSpec makes one from an OCI
// runtime spec, purely; Encode and Decode are the wire form (no JSON, no
// reflection, since every container's init pays for what it links).
//
// The engine's launch package and the OCI command line make jobs, the shim
// carries them, package ociruntime executes them. This package writes nothing.
// It must not touch the kernel and must import nothing but the standard
// library, x/sys, runtime-spec and errs.
package job

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Overlay says which directories make a container's root file system
// (overlayfs, Documentation/filesystems/overlayfs.rst).
type Overlay struct {
	Lower []string // read-only layers, topmost first; without any, Upper is the root itself
	Upper string   // the container's own writable layer
	Work  string   // overlayfs's scratch directory, on Upper's file system
	// Options are further mount options, such as "index=off".
	Options []string
	// Mapped shows the layers' owners through the maps of the job's user
	// namespace; without, they are the host's.
	Mapped bool
	// Bounded has the overlay write within project quotas.
	Bounded bool
}

// A Job is a container's first process and everything that isolates it. A nil
// or empty field means that the matching step is left out.
type Job struct {
	ID     string // container ID, for hooks' state and messages
	Bundle string // absolute path of the bundle, for hooks' state; may be empty

	Process Process
	// Reaper keeps a small process as pid 1 that starts Process, forwards
	// signals to it and reaps orphans (docker run --init).
	Reaper bool

	Namespaces  []Namespace
	UIDMap      []IDMap
	GIDMap      []IDMap
	TimeOffsets []TimeOffset

	Hostname   string
	Domainname string
	Sysctls    []KeyValue // sorted by key

	Root    Root
	Mounts  []Mount
	Devices []Device
	// MaskedPaths are hidden by an empty directory or the null device,
	// ReadonlyPaths are made read-only. Absolute in the container.
	MaskedPaths   []string
	ReadonlyPaths []string

	Personality *uint64 // argument of personality(2)
	Hooks       Hooks
	Annotations []KeyValue // sorted by key; for hooks' state

	// Cgroup is opaque to the runtime: the shim creates and joins the group.
	Cgroup Cgroup
	// StdinOpen says that somebody will feed standard input. Opaque to the
	// runtime, for the shim.
	StdinOpen bool
}

// A Process is one process in a container: the first one or an exec'd one.
type Process struct {
	Args []string // Args[0] is looked up in Env's PATH if it holds no slash
	Env  []string // KEY=value
	Cwd  string   // absolute in the container; created for a first process

	UID    uint32
	GID    uint32
	Groups []uint32 // exactly the supplementary groups
	Umask  uint32   // 0 to 0o777; FromSpec gives 0o022 unless the spec says otherwise

	Caps            Caps
	NoNewPrivileges bool
	Rlimits         []Rlimit
	OOMScoreAdj     *int32 // -1000 to 1000

	Terminal      bool
	ConsoleHeight uint16 // in characters; 0 for the kernel's default
	ConsoleWidth  uint16

	Seccomp *Seccomp

	AppArmor string // profile name, "unconfined" allowed
	SELinux  string // label

	Scheduler  *Scheduler
	IOPriority *IOPriority
	// Affinity is the CPU set while joining and FinalAffinity the one the
	// program runs with: bit n of word n/64 (sched_setaffinity(2)).
	Affinity      []uint64
	FinalAffinity []uint64
}

// Caps are the five capability sets of capabilities(7), bit n for capability n.
type Caps struct {
	Bounding, Effective, Inheritable, Permitted, Ambient uint64
}

// Rlimit is one argument of setrlimit(2).
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

// Seccomp is a compiled system call filter.
type Seccomp struct {
	Filter []byte // struct sock_filter array in the host's byte order, 8 bytes each
	Flags  uint32 // SECCOMP_FILTER_FLAG_* of seccomp(2); TSYNC and NEW_LISTENER are refused
}

// Scheduler holds the fields of struct sched_attr (sched_setattr(2)).
type Scheduler struct {
	Policy                    uint32
	Flags                     uint64
	Nice                      int32
	Priority                  uint32
	Runtime, Deadline, Period uint64 // nanoseconds
}

// IOPriority is the argument of ioprio_set(2).
type IOPriority struct {
	Class    uint8 // 1 real time, 2 best effort, 3 idle
	Priority uint8 // 0 highest to 7 lowest
}

// A Namespace is created for the container, or joined if Path is set.
type Namespace struct {
	Type uint32 // CLONE_NEW*
	Path string // absolute path of an existing one on the host
}

// IDMap is one line of /proc/<pid>/uid_map (user_namespaces(7)).
type IDMap struct{ Inside, Outside, Size uint32 }

// HostRoot returns what root of the job's user namespace is on the host, and
// -1 for what its maps do not say.
func (j *Job) HostRoot() (uid, gid int) { return hostRoot(j.UIDMap), hostRoot(j.GIDMap) }

func hostRoot(maps []IDMap) int {
	for _, m := range maps {
		if m.Inside == 0 && m.Size > 0 {
			return int(m.Outside)
		}
	}
	return -1
}

// TimeOffset is one line of /proc/<pid>/timens_offsets (time_namespaces(7)).
type TimeOffset struct {
	Clock string // "monotonic" or "boottime"
	Secs  int64
	Nanos uint32
}

// KeyValue is one entry of what was a map in the spec.
type KeyValue struct{ Key, Value string }

// Root is the container's root file system: Overlay, or a directory at Path.
type Root struct {
	Overlay  *Overlay
	Path     string // absolute on the host
	Readonly bool
	// Propagation is MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE, with
	// MS_REC or without; 0 is the default, MS_REC|MS_SLAVE.
	Propagation uint32
}

// A Mount is one further mount, options parsed.
type Mount struct {
	Target string // absolute in the container
	Type   string // file system type; "bind" for a bind mount
	Source string // a host path for a bind mount
	// Set and Clear are MOUNT_ATTR_* bits (mount_setattr(2)) of this mount,
	// RecSet and RecClear of everything mounted below it as well.
	Set, Clear       uint64
	RecSet, RecClear uint64
	Recursive        bool // rbind
	// Propagation is as in Root, 0 for private as a whole tree.
	Propagation uint32
	// Flags are MS_* bits that belong to the file system: MS_RDONLY through
	// MS_SYNCHRONOUS and so on are only set here for a new file system.
	Flags uint32
	Data  []string // file-system-specific options, "key" or "key=value"
	// CopyUp fills a new tmpfs with what the image has at Target.
	CopyUp bool
	// IDMap: the mount shows owners through these maps; with neither map
	// given the container's own are meant. IDMapRec does so for the tree.
	IDMapped bool
	IDMapRec bool
	UIDMap   []IDMap
	GIDMap   []IDMap
	// NoFollow: the last component of Source, or of Target, is not followed
	// if it is a symbolic link (src-nofollow, dest-nofollow).
	SourceNoFollow bool
	TargetNoFollow bool
	// SourceBeneath is a directory of the host that Source is beneath: no
	// symbolic link on the way may lead out of it (src-beneath=dir, an option
	// of our own). Empty for a source anywhere.
	SourceBeneath string
}

// A Device is a device node below the container's /dev.
type Device struct {
	Path         string // absolute in the container
	Mode         uint32 // S_IFCHR, S_IFBLK or S_IFIFO with permissions
	Major, Minor uint32
	UID, GID     uint32
}

// Hooks are programs of the host's user that run at fixed moments.
type Hooks struct {
	Prestart, CreateRuntime, CreateContainer, StartContainer, Poststart, Poststop []Hook
}

// A Hook is one such program. It gets the container's state on standard input.
type Hook struct {
	Path    string // absolute
	Args    []string
	Env     []string
	Timeout uint32 // seconds; 0 for none
}

// Cgroup says where the container's processes are counted and limited.
type Cgroup struct {
	Path      string // below each hierarchy's root, or systemd's slice:prefix:name
	Resources *specs.LinuxResources
}
