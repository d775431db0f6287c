// Package plan decides what a container shall be: New turns what the user asked
// for, the image's configuration and the daemon's defaults into a Plan; Exec does
// the same for a further process, and Update for changed limits. It owns the rules of `docker create`:
// grammar, defaults, conflicts, and the texts that clients match.
//
// The engine's container package calls it at create, keeps the Plan in the
// container's record, and hands it to launch and ocispec at start. Everything
// here is a function from values to values: it reads no file, asks no kernel
// and writes nothing. What needs the host (does the source of a bind mount exist,
// which user is "www-data") is left as data for launch. It must not know of the store, of processes
// or of HTTP.
//
// Source of the rules: Docker Engine API 1.56, and its answers as recorded.
package plan

import (
	"net/netip"
	"time"

	"gantry/internal/wire"
)

// Version is the layout of a stored Plan. A reader of a record with a higher
// one must refuse it; lower ones are brought up by the record's owner.
const Version = 1

// Plan is everything decided about a container before it exists. It is never
// changed after New; the With… and Inherit methods return changed copies.
type Plan struct {
	Version int

	// Config, HostConfig and Endpoints are what inspect shows: the user's
	// words, with the image's configuration merged in and Docker's defaults
	// filled in. Config.Hostname is empty when the short ID shall be used:
	// see Plan.Hostname.
	Config     wire.ContainerConfig
	HostConfig wire.HostConfig
	Endpoints  map[string]*wire.EndpointSettings // by network name or ID

	ImageDigest string // of the image's manifest or config, "" for no image

	Process    Process
	Domainname string
	Init       bool // a reaper is to be the first process

	Namespaces Namespaces
	Mounts     []Mount // by depth of Target, then as Docker registers them
	ReadOnly   bool    // root file system
	ShmSize    int64   // bytes of /dev/shm

	Devices        []Device
	DeviceRules    []string             // as the user said: "c 1:3 rwm"
	DeviceRequests []wire.DeviceRequest // GPUs and others by name; see cdi
	AllDevices     bool                 // privileged: every device of the host

	Resources   wire.Resources // normalised; limits the kernel lacks are dropped
	Ulimits     []Ulimit       // by name, the daemon's defaults merged in
	OOMScoreAdj int
	Sysctls     map[string]string

	Security Security

	Log     Log
	Restart wire.RestartPolicy // Name is never empty
	Stop    Stop
	Health  *Health // nil: none

	// Runtime is the name of the OCI runtime; CgroupParent the parent
	// group, "" for the daemon's.
	Runtime      string
	CgroupParent string

	DNS        []netip.Addr
	DNSSearch  []string
	DNSOptions []string
	ExtraHosts []string // "name:address"; the address may be host-gateway
	Links      []Link

	// Ports are to be published on the host, Exposed are those the
	// container says it serves; PublishAll publishes the latter too.
	Ports      wire.PortMap
	Exposed    wire.PortSet
	PublishAll bool

	VolumesFrom []VolumesFrom
	// After are the containers that this one is started after.
	After []After `json:",omitempty"`
	// NetRate bounds the traffic of each of its networks.
	NetRate wire.NetRate `json:",omitzero"`

	AutoRemove  bool
	Labels      map[string]string
	Annotations map[string]string
	StorageOpt  map[string]string
	// RootSize bounds the container's own layer, in bytes; 0 for no bound.
	RootSize int64 `json:",omitempty"`
}

// Process is a process to run, first or further.
type Process struct {
	Args []string
	// Env is the user's and the image's environment, without what
	// Environ adds.
	Env      []string
	Dir      string   // absolute and clean; "/" if nobody said
	User     string   // "", name, uid, name:group, uid:gid: see ocispec.LookupUser
	GroupAdd []string // names or numbers
	TTY      bool
	// Console is the first size of the terminal, height and width in
	// characters; zero for the terminal's own.
	Console [2]uint16
	// OpenStdin keeps standard input open; StdinOnce closes it with the
	// first attached client.
	OpenStdin, StdinOnce bool
	Umask                *uint32
}

// Mode says where one of a container's namespaces comes from.
type Mode string

// The modes.
const (
	Private   Mode = "private"   // its own
	Host      Mode = "host"      // the host's
	Container Mode = "container" // that of Namespace.Container
	None      Mode = "none"      // network: own, without any interface; IPC: own, without /dev/shm
	Shareable Mode = "shareable" // IPC: own, others may join
	Auto      Mode = "auto"      // user: own, with ids that no other container has
	Network   Mode = "network"   // network: own, attached to Namespace.Network
)

// Namespace is the decision about one namespace.
type Namespace struct {
	Mode      Mode
	Container string `json:",omitempty"` // name or ID as the user said
	Network   string `json:",omitempty"` // name or ID as the user said
}

// Namespaces is the decision about each of them. A container always has its
// own mount namespace.
type Namespaces struct {
	Network, PID, IPC, UTS, Cgroup, User Namespace
}

// Origin says which part of a request a mount comes from.
type Origin string

// The origins, in the order of precedence: a later one gives way.
const (
	FromBinds   Origin = "binds"
	FromMounts  Origin = "mounts"
	FromTmpfs   Origin = "tmpfs"
	FromOther   Origin = "volumes-from"
	FromVolumes Origin = "volumes" // Config.Volumes, the image's included
)

// Mount is one decided mount.
type Mount struct {
	Type   wire.MountType // bind, volume, tmpfs or image
	Target string         // absolute and clean, in the container
	// Source is the host path of a bind mount, the reference of an image
	// mount; empty otherwise.
	Source string `json:",omitempty"`
	// Name is the volume's; empty for an anonymous one that the engine has
	// still to name (WithVolumeNames).
	Name          string            `json:",omitempty"`
	Anonymous     bool              `json:",omitempty"`
	Driver        string            `json:",omitempty"` // of a volume; "local" if nobody said
	DriverOptions map[string]string `json:",omitempty"`
	VolumeLabels  map[string]string `json:",omitempty"`
	Subpath       string            `json:",omitempty"` // within a volume or an image
	NoCopy        bool              `json:",omitempty"` // do not copy the image's content into a fresh volume

	ReadOnly bool `json:",omitempty"`
	// A read-only mount is so with all below it as far as the kernel can;
	// ReadOnlyTop leaves what is below alone, ReadOnlyForce fails when the
	// kernel can't.
	ReadOnlyTop   bool `json:",omitempty"`
	ReadOnlyForce bool `json:",omitempty"`
	NonRecursive  bool `json:",omitempty"` // without the mounts below Source
	// Propagation is one of [r]private, [r]shared, [r]slave; empty on
	// volumes that nobody gave one.
	Propagation string `json:",omitempty"`

	// CreateSource says that a missing Source shall be made, as a
	// directory; without it a missing one is SourceMissing.
	CreateSource bool `json:",omitempty"`
	// Within is the host directory beneath which Source must be found when
	// the mount is made, whatever links lead there; empty for anywhere.
	Within string `json:",omitempty"`

	// IDMap says how the owners of a bind are seen; nil for as they are.
	IDMap *IDMap `json:",omitempty"`

	Options string `json:",omitempty"` // of tmpfs, comma separated, not yet checked
	Mode    string `json:",omitempty"` // the third field of a -v, as inspect shows it
	From    Origin
}

// Device is a device of the host, or a directory of such, to be had inside.
type Device struct {
	Host        string // path on the host
	Container   string // path in the container
	Permissions string // some of r, w, m
}

// Ulimit is one resource limit (getrlimit(2)).
type Ulimit struct {
	Name string // lower case without RLIMIT_, such as "nofile"; not yet checked
	Soft int64  // -1 for none
	Hard int64
}

// Unconfined and Builtin are values of Security.Seccomp beside a profile's
// JSON text.
const (
	Unconfined = "unconfined"
	Builtin    = "builtin"
)

// Security is what a container's processes may do.
type Security struct {
	Privileged bool
	// CapAdd and CapDrop are checked and in the form CAP_X, or ALL.
	CapAdd, CapDrop []string
	NoNewPrivileges bool
	// Seccomp is Unconfined, Builtin or the text of a profile in JSON.
	Seccomp string
	// AppArmor is a profile's name, Unconfined, or empty for the host's
	// usual.
	AppArmor string
	// Labels are SELinux options; kept, nothing reads them.
	Labels []string
	// MaskedPaths can't be read, ReadonlyPaths can't be written.
	MaskedPaths, ReadonlyPaths []string
	WritableCgroups            bool
}

// Log is where the output goes.
type Log struct {
	Driver  string
	Options map[string]string
}

// Stop is how the container is asked to end.
type Stop struct {
	Signal  int // number
	Timeout int // seconds until SIGKILL; negative for never
}

// Health is a command, or a probe by the daemon, that tells whether the
// container works. Zero values have been replaced by Docker's defaults.
type Health struct {
	Args          []string
	Probe         *Probe `json:",omitempty"` // instead of Args
	Interval      time.Duration
	Timeout       time.Duration
	StartPeriod   time.Duration
	StartInterval time.Duration
	Retries       int
}

// Link is a legacy link to another container.
type Link struct {
	Container string // name or ID
	Alias     string
}

// VolumesFrom names a container whose mounts are to be had too.
type VolumesFrom struct {
	Container string // name or ID
	ReadOnly  bool   // else as the other has them
}
