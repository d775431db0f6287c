// Package config reads how a daemon is set up: the flags of its command line
// and the keys of its daemon.json, which are dockerd's and a few of our own.
//
// One table (options.go) says for each setting its flag, its key, its form and
// whether it works, is accepted without effect, or is refused and why. The
// daemon's wiring calls Load and reads the fields of Config; SIGHUP calls it
// again. The package reads one file and writes nothing; it must not know what
// the settings do.
//
// Source: dockerd of Docker Engine 29 (92 flags, 96 keys).
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
)

// Where things are unless said otherwise.
const (
	DefaultFile   = "/etc/gantry/daemon.json"
	DefaultRoot   = "/var/lib/gantry"
	DefaultRun    = "/run/gantry"
	DefaultGroup  = "gantry"
	DefaultBridge = "gantry0"
	// OwnRuntime is the name of the built-in runtime.
	OwnRuntime = "gantry"
)

// A Config is how a daemon is set up. The zero value of a field means its
// documented default has been left to the part that uses it.
type Config struct {
	File     string // daemon.json
	Hosts    []string
	Group    string // of the unix socket
	Root     string // data
	Run      string // sockets, namespaces: gone after a reboot
	Instance string // name that tells daemons of one host apart; empty for the host's first
	PidFile  string

	Debug     bool
	LogLevel  string // of the daemon's own messages: debug, info, warn, error
	LogFormat string // text or json
	Labels    []string

	TLS       *bool // nil: not said
	TLSVerify bool
	TLSCA     string
	TLSCert   string
	TLSKey    string

	Runtimes       map[string]Runtime
	DefaultRuntime string
	CgroupParent   string
	CgroupDriver   string // cgroupfs or systemd, from exec-opts
	CgroupnsMode   string // host or private; empty: private on cgroup v2
	IPCMode        string // private or shareable
	Init           bool
	InitPath       string
	NoNewPrivs     bool
	UsernsRemap    string // default, user[:group] or uid[:gid]; empty or "host" for none
	SeccompProfile string // a file, "unconfined" or empty for the built-in one
	ShmSize        int64  // bytes
	Ulimits        map[string]Ulimit

	StorageDriver string // one of StorageDriver; empty for overlayfs

	LogDriver string // of containers
	LogOpts   map[string]string

	Bridge         string // "none" for no default network
	BIP            netip.Prefix
	FixedCIDR      netip.Prefix
	DefaultGateway netip.Addr
	IPv6           bool // on the default network
	BIP6           netip.Prefix
	FixedCIDR6     netip.Prefix
	// DefaultGateway6 is as DefaultGateway.
	DefaultGateway6 netip.Addr
	// NetworkOpts are options of new networks by driver.
	NetworkOpts    map[string]map[string]string
	HostIP         netip.Addr // to publish ports on
	MTU            int
	ICC            bool
	IPForward      bool
	Relay          bool // published ports that packet rules can't serve
	FilterPorts    bool // published ports obey the host's own filters
	DirectRouting  bool // published ports are reached at containers' own addresses, too
	AcceptMark     Mark // of packets that containers take at every port
	IPMasq         bool
	Pools          []Pool
	DNS            []netip.Addr
	DNSOptions     []string
	DNSSearch      []string
	HostGatewayIPs []netip.Addr

	DiskBudget string // of images, build cache and logs together; empty: none

	StopTimeout     int // seconds a container has to stop
	ShutdownTimeout int // seconds the daemon's requests have to end
	LiveRestore     bool
	Experimental    bool
	CDISpecDirs     []string // empty: the usual ones
	MetricsAddr     string   // host:port of /metrics; empty for nowhere
	// AuthorizationPlugins are asked about every request, in their order.
	AuthorizationPlugins []string
	DebugSocket          string      // unix socket of the profiler; empty for none
	APISockets           []APISocket // further sockets whose requests a policy bounds
	Features             map[string]bool

	RegistryMirrors    []string
	InsecureRegistries []string
	HTTPProxy          string
	HTTPSProxy         string
	NoProxy            string
	LazyPull           bool                // images in eStargz form run before they are here
	Registries         map[string]Registry // by the beginning of image names
	MaxDownloads       int                 // connections that fetch layers at once
	MaxUploads         int                 // layers that a push sends at once
	DownloadAttempts   int                 // of each layer
	Builder            Builder

	// Warnings are the settings that were accepted and have no effect.
	Warnings []string
}

// A Registry is how images whose names begin alike are reached.
type Registry struct {
	Mirrors  []string          `json:"mirrors,omitempty"`  // URLs, tried before the registry itself
	Rewrite  map[string]string `json:"rewrite,omitempty"`  // regular expression → repository at the mirrors
	Insecure bool              `json:"insecure,omitempty"` // TLS is optional and not checked
	CA       string            `json:"ca,omitempty"`       // file, PEM
	Cert     string            `json:"cert,omitempty"`     // file of the client's certificate, PEM
	Key      string            `json:"key,omitempty"`      // file of its key
	// AuthHosts may see the registry's credentials, besides its own site.
	AuthHosts []string `json:"auth-hosts,omitempty"`
}

// A Runtime is another OCI runtime's program.
type Runtime struct {
	Path string   `json:"path"`
	Args []string `json:"runtimeArgs,omitempty"`
}

// An APISocket is a further unix socket of the API.
type APISocket struct {
	Path   string `json:"path"`
	Policy string `json:"policy"`          // a file, or the name of a ready policy
	Mode   string `json:"mode,omitempty"`  // octal; 0660 unless said
	Group  string `json:"group,omitempty"` // that may connect; the daemon's unless said
}

// A Ulimit is a default resource limit of containers.
type Ulimit struct {
	Name string
	Hard int64
	Soft int64
}

// A Pool is a range that networks take their subnets of Size bits from.
type Pool struct {
	Base netip.Prefix `json:"base"`
	Size int          `json:"size"`
}

// Default returns the settings of a daemon that nobody has set up.
func Default() *Config {
	return &Config{
		File: DefaultFile, Root: DefaultRoot, Run: DefaultRun, Group: DefaultGroup,
		LogLevel: "info", LogFormat: "text",
		Runtimes: map[string]Runtime{}, DefaultRuntime: OwnRuntime, CgroupDriver: "cgroupfs", IPCMode: "private",
		ShmSize: 64 << 20, Ulimits: map[string]Ulimit{},
		LogDriver: "json-file", LogOpts: map[string]string{},
		ICC: true, IPForward: true, IPMasq: true, Relay: true,
		MaxDownloads: 3, MaxUploads: 5, DownloadAttempts: 5,
		StopTimeout: 10, ShutdownTimeout: 15, LiveRestore: true, Builder: Builder{NetworkHost: true}, Features: map[string]bool{},
	}
}

// finish fills in what follows from other settings.
func (c *Config) finish() error {
	for _, dir := range []*string{&c.Root, &c.Run} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	if c.Instance == "" {
		c.Instance = InstanceOf(c.Root, c.Run)
	}
	if c.Bridge == "" {
		c.Bridge = DefaultBridge
		if c.Instance != "" {
			c.Bridge = "gantry-" + c.Instance
		}
	}
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"unix://" + c.Run + "/gantry.sock"}
	}
	if c.Debug {
		c.LogLevel = "debug"
	}
	return c.check()
}

// InstanceOf derives the name of a daemon from its directories: empty for the
// usual ones, else eight characters that stay the same for the same pair.
func InstanceOf(root, run string) string {
	if root == DefaultRoot && run == DefaultRun {
		return ""
	}
	sum := sha256.Sum256([]byte(root + "\x00" + run))
	return hex.EncodeToString(sum[:4])
}

// String names the daemon in messages.
func (c *Config) String() string {
	if c.Instance == "" {
		return "gantryd"
	}
	return fmt.Sprintf("gantryd (instance %s)", c.Instance)
}

// Mark is what a packet's firewall mark has to be in the bits of Mask; none if that
// is 0.
type Mark struct{ Value, Mask uint32 }
