package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"gantry/internal/cgroup"
	"gantry/internal/config"
	"gantry/internal/container"
	"gantry/internal/daemon/hostinfo"
	"gantry/internal/durable"
	"gantry/internal/event"
	"gantry/internal/plan"
	"gantry/internal/server"
	"gantry/internal/version"
	"gantry/internal/wire"
)

// about answers what the API asks about the daemon itself.
type about struct {
	id      string
	driver  string // of storage
	host    hostinfo.Host
	kernel  plan.Kernel
	cgroups *cgroup.Host
	bus     *event.Bus
	config  func() *config.Config
	counts  func() container.Counts
	images  func(context.Context) (int, error)
	budget  func() wire.DiskBudget
	// networks says what keeps containers from being reached.
	networks func(context.Context) ([]string, error)
	plugins  func(what string) []string // those that implement what
}

// Version is what /version says. The version is that of the Docker Engine that
// this one behaves as, since clients compare it; ours is a component.
func (a *about) Version(context.Context) wire.Version {
	v := wire.Version{
		Version: version.Engine, APIVersion: server.MaxVersion, MinAPIVersion: server.MinVersion,
		Os: "linux", Arch: runtime.GOARCH, GitCommit: version.Commit, GoVersion: runtime.Version(), KernelVersion: a.host.Kernel,
	}
	v.Platform.Name = "Gantry"
	v.Components = []system.ComponentVersion{
		{Name: "Engine", Version: version.Engine, Details: map[string]string{
			"ApiVersion": server.MaxVersion, "MinAPIVersion": server.MinVersion, "Arch": runtime.GOARCH, "Os": "linux",
			"Experimental": strconv.FormatBool(a.config().Experimental), "GitCommit": version.Commit, "GoVersion": runtime.Version(), "KernelVersion": a.host.Kernel,
		}},
		{Name: "gantry", Version: version.Version, Details: map[string]string{"GitCommit": version.Commit}},
	}
	return v
}

// Info is what /info says.
func (a *about) Info(ctx context.Context) (wire.Info, error) {
	c := a.config()
	n := a.counts()
	images, err := a.images(ctx)
	if err != nil {
		return wire.Info{}, err
	}
	reach, err := a.networks(ctx)
	if err != nil {
		return wire.Info{}, err
	}
	info := wire.Info{
		ID: a.id, Name: a.host.Name, ServerVersion: version.Engine,
		Containers: n.Total, ContainersRunning: n.Running, ContainersPaused: n.Paused, ContainersStopped: n.Stopped, Images: images,
		Driver: a.driver, DriverStatus: append([][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}, budgetStatus(a.budget())...),
		Plugins: system.PluginsInfo{
			Volume: append([]string{"local"}, a.plugins("VolumeDriver")...), Network: append([]string{"bridge", "host", "ipvlan", "macvlan", "null"}, a.plugins("NetworkDriver")...), Authorization: c.AuthorizationPlugins, Log: plan.LogDrivers(),
		},
		MemoryLimit: a.kernel.MemoryLimit, SwapLimit: a.kernel.SwapLimit, CPUCfsPeriod: a.kernel.CPUCfs, CPUCfsQuota: a.kernel.CPUCfs,
		CPUShares: a.kernel.CPUShares, CPUSet: a.kernel.Cpuset, PidsLimit: a.kernel.PidsLimit, OomKillDisable: a.kernel.OOMKillDisable,
		IPv4Forwarding: a.kernel.IPv4Forwarding,
		Debug:          c.Debug, NFd: hostinfo.OpenFiles(), NGoroutines: runtime.NumGoroutine(), NEventsListener: a.bus.Listeners(),
		SystemTime:    time.Now().Format(time.RFC3339Nano),
		LoggingDriver: c.LogDriver, CgroupDriver: c.CgroupDriver, CgroupVersion: a.cgroups.Mode.String(),
		KernelVersion: a.host.Kernel, OperatingSystem: a.host.OS, OSVersion: a.host.OSVersion, OSType: "linux", Architecture: a.host.Architecture,
		NCPU: a.host.CPUs, MemTotal: a.host.Memory, DockerRootDir: c.Root,
		HTTPProxy: c.HTTPProxy, HTTPSProxy: c.HTTPSProxy, NoProxy: c.NoProxy,
		Labels: append([]string{}, c.Labels...), ExperimentalBuild: c.Experimental,
		Runtimes: runtimeInfo(c), DefaultRuntime: c.DefaultRuntime, LiveRestoreEnabled: true, InitBinary: "gantry-shim",
		SecurityOptions:    securityOptions(c, a.kernel),
		FirewallBackend:    &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs:        cdiDirs(c),
		DiscoveredDevices:  discovered(c),
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     registryConfig(c),
		Warnings:           append(warnings(a.kernel), reach...),
	}
	info.Swarm.LocalNodeState = "inactive"
	return info, nil
}

// runtimeInfo lists the runtimes as clients know them: a path, or none for our
// own, which is in every shim.
func runtimeInfo(c *config.Config) map[string]system.RuntimeWithStatus {
	m := map[string]system.RuntimeWithStatus{}
	own := system.RuntimeWithStatus{}
	own.Path = "gantry-shim"
	m[config.OwnRuntime] = own
	for name, cmd := range runtimes(c) {
		r := system.RuntimeWithStatus{}
		r.Path, r.Args = cmd[0], cmd[1:]
		m[name] = r
	}
	return m
}

// securityOptions says what guards containers by default.
func securityOptions(c *config.Config, k plan.Kernel) []string {
	opts := []string{}
	if k.Seccomp {
		profile := c.SeccompProfile
		if profile == "" {
			profile = plan.Builtin
		}
		opts = append(opts, "name=seccomp,profile="+profile)
	}
	if k.CgroupV2 {
		opts = append(opts, "name=cgroupns")
	}
	if remaps(c) {
		opts = append(opts, "name=userns")
	}
	if c.NoNewPrivs {
		opts = append(opts, "name=no-new-privileges")
	}
	return opts
}

func registryConfig(c *config.Config) *registry.ServiceConfig {
	mirrors := append([]string{}, c.RegistryMirrors...)
	r := &registry.ServiceConfig{
		IndexConfigs: map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: mirrors, Secure: true, Official: true}},
		// This machine itself is always among them.
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		Mirrors:               mirrors,
	}
	add := func(host string, mirrors []string, secure bool) {
		if r.IndexConfigs[host] == nil {
			r.IndexConfigs[host] = &registry.IndexInfo{Name: host, Mirrors: append([]string{}, mirrors...), Secure: secure}
		}
	}
	for _, i := range c.InsecureRegistries {
		if p, err := netip.ParsePrefix(i); err == nil {
			r.InsecureRegistryCIDRs = append(r.InsecureRegistryCIDRs, p)
			continue
		}
		add(strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(i, "https://"), "http://"), "/"), nil, false)
	}
	for prefix, t := range c.Registries {
		add(prefix, t.Mirrors, !t.Insecure)
	}
	return r
}

// warnings says what this machine lacks, in the words that clients show.
func warnings(k plan.Kernel) []string {
	var list []string
	lacks := func(ok bool, what string) {
		if !ok {
			list = append(list, "WARNING: "+what)
		}
	}
	lacks(k.MemoryLimit, "No memory limit support")
	lacks(k.SwapLimit, "No swap limit support")
	lacks(k.CPUCfs, "No cpu cfs quota support")
	lacks(k.CPUShares, "No cpu shares support")
	lacks(k.Cpuset, "No cpuset support")
	lacks(k.PidsLimit, "No pids limit support")

	return list
}

// engineID returns the daemon's lasting identity, made at the first start.
func engineID(root string) (string, error) {
	path := filepath.Join(root, "engine-id")
	data, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a random UUID (RFC 9562)
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	return id, durable.WriteFile(path, []byte(id+"\n"), 0o600)
}
