// Package daemon puts the parts of gantryd together: it opens the store, the
// images, the networks, the volumes, the engine and the server in order, closes
// them in reverse, and obeys signals in between. It is wiring only: whatever
// decides anything is in the packages that it opens.
//
// cmd/gantryd calls Run. It locks both roots, and writes the pid file and the
// engine's identity.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"gantry/internal/build"
	"gantry/internal/cdi"
	"gantry/internal/cgroup"
	"gantry/internal/config"
	"gantry/internal/container"
	"gantry/internal/daemon/handover"
	"gantry/internal/daemon/hostinfo"
	"gantry/internal/daemon/listen"
	"gantry/internal/daemon/shimbin"
	"gantry/internal/daemon/telemetry"
	"gantry/internal/doctor"
	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/extension"
	"gantry/internal/launch"
	"gantry/internal/logs/ship"
	"gantry/internal/network"
	"gantry/internal/network/ipam"
	"gantry/internal/plan"
	"gantry/internal/plugin"
	"gantry/internal/probe"
	"gantry/internal/quota"
	"gantry/internal/server"
	"gantry/internal/shim"
	"gantry/internal/store"
	"gantry/internal/version"
	"gantry/internal/volume"
)

// A Daemon is everything that is open.
type Daemon struct {
	config  atomic.Pointer[config.Config]
	log     *slog.Logger
	level   *slog.LevelVar
	bus     *event.Bus
	engine  *container.Engine
	server  *server.Server
	builder *build.Builder
	// extensions are the plugins that are installed as images.
	extensions *extension.Manager
	doors      doors
	locks      map[string]*durable.Lock
	handed     *handover.State // what the program before left; nil if there was none
	// next gives the program that shall take over; upgrading says that one is
	// about to.
	next      chan string
	upgrading bool
	files     []*os.File  // of an upgrade: closed if nobody referred to them
	alarm     *time.Timer // for a new program that does not come up
	args      []string
	about     *about
	id        string
	tls       *listen.TLS // of the TCP sockets; nil without
	metrics   *telemetry.Metrics
	tracer    *telemetry.Tracer
	closers   []closer // in the order of opening
}

// A closer undoes one step of open.
type closer struct {
	what  string
	close func(context.Context) error
	stays bool // at an upgrade: the next program takes it over
}

// later has a part closed at the end.
func (d *Daemon) later(what string, f func(context.Context) error) {
	d.closers = append(d.closers, closer{what: what, close: f})
}

// last is later for what the next program of an upgrade takes over as it is.
func (d *Daemon) last(what string, f func(context.Context) error) {
	d.closers = append(d.closers, closer{what, f, true})
}

// open opens every part. What was opened before an error is closed again.
func open(ctx context.Context, c *config.Config, d *Daemon) (_ *Daemon, err error) {
	d.bus, d.metrics, d.tracer = event.New(), telemetry.New(), &telemetry.Tracer{}
	d.config.Store(c)
	defer func() {
		if err != nil {
			d.upgrading = d.handed != nil // which is given back
			err = errors.Join(err, d.close(context.WithoutCancel(ctx)))
		}
	}()
	if err := checkLogDefaults(c); err != nil {
		return nil, err
	}
	if err := d.hold(c); err != nil {
		return nil, err
	}
	shims, err := newShims()
	if err != nil {
		return nil, err
	}
	d.later("shims", func(context.Context) error { return shims.Close() })
	db, err := store.Open(c.Root + "/state.db")
	if err != nil {
		return nil, err
	}
	d.later("store", func(context.Context) error { return db.Close() })
	if err := d.bus.Journal(c.Root + "/events.jsonl"); err != nil {
		return nil, err
	}
	d.later("events", func(context.Context) error { d.bus.Close(); return nil })
	images, err := d.openImages(ctx, c)
	if err != nil {
		return nil, err
	}
	plugins := plugin.New(plugin.Directories(c.Run))
	opts := networkOptions(c, db, d.bus)
	opts.Plugins = plugins
	networks, err := network.Open(ctx, opts)
	if err != nil {
		return nil, err
	}
	d.later("networks", func(ctx context.Context) error {
		return networks.Close(ctx, network.CloseOptions{Remove: !d.upgrading})
	})
	volumes, err := volume.Open(volume.Options{Store: db, Dir: c.Root + "/volumes", Events: d.bus, Plugins: plugins})
	if err != nil {
		return nil, err
	}
	return d, d.openEngine(ctx, c, parts{shims, db, images, networks, volumes, plugins})
}

// newShims returns what starts shims. The program, megabytes, is not kept.
func newShims() (*shim.Launcher, error) {
	program, err := shimbin.Program()
	if err != nil {
		return nil, err
	}
	return shim.NewLauncher(program)
}

// parts are what the engine stands on.
type parts struct {
	shims    *shim.Launcher
	db       *store.DB
	images   *imageStore
	networks *network.Networks
	volumes  *volume.Volumes
	plugins  *plugin.Plugins
}

// openEngine opens the engine and the server over it.
func (d *Daemon) openEngine(ctx context.Context, c *config.Config, p parts) error {
	cgroups, err := cgroup.Detect()
	if err != nil {
		return err
	}
	fast, err := cgroups.FastMoves() // docs/adr/0001
	switch {
	case err != nil:
		d.log.Warn("starts are slower than they could be", "error", err)
	case fast != nil:
		d.later("fast moves between control groups", func(context.Context) error { return fast.Close() })
	}
	parent := cgroupParent(c)
	if c.CgroupDriver == "systemd" {
		if !cgroup.SystemdRuns() {
			return errs.New(errs.Unsupported, "exec-opt native.cgroupdriver=systemd: systemd does not run on this host (there is no /run/systemd/system); use cgroupfs")
		}
	} else {
		d.last("control groups", func(context.Context) error { removeParent(cgroups, parent); return nil })
	}
	users, err := userNamespaces(c)
	if err != nil {
		return err
	}
	launcher := launch.New(launch.Options{
		Users: users, Quota: quota.New(c.Root), Devices: cdi.Devices{Dirs: func() []string { return cdiDirs(d.config.Load()) }},
		Root: c.Root, RunDir: c.Run, Networks: launchNetworks{p.networks}, Volumes: p.volumes, Shims: p.shims,
		Cgroups: cgroups, CgroupParent: parent, Systemd: c.CgroupDriver == "systemd", ScopePrefix: scopePrefix(c), Runtime: d.runtime, Log: d.log,
		Launched: meter{d}.launched,
	})
	host, kernel := hostinfo.Read(), hostinfo.Kernel(cgroups)
	// The networks switch it on with the first container.
	kernel.IPv4Forwarding = kernel.IPv4Forwarding || c.IPForward
	seccomp, err := seccompText(c.SeccompProfile)
	if err != nil {
		return err
	}
	usual := func() plan.Defaults { return defaults(d.config.Load(), kernel, seccomp, host.Name) }
	if err := d.openBuilder(p, launcher, usual); err != nil {
		return err
	}
	if err := openExtensions(ctx, d, c, p, launcher, usual); err != nil {
		return err
	}
	ships := ship.New(ctx, d.log)
	d.later("logs", func(context.Context) error { ships.Close(); return nil })
	d.engine, err = container.Open(ctx, container.Options{
		Store: p.db, Images: p.images, Volumes: p.volumes, Networks: network.Members{Networks: p.networks}, Launcher: launcher, Events: d.bus, Prober: probe.Prober{}, Logs: ships, Committer: p.images,
		Defaults: usual, Others: d.extensions.Containers,
		Root: c.Root, RunDir: c.Run, Log: d.log, Probed: meter{d}.probed, LogLost: meter{d}.logLost,
	})
	if err != nil {
		return err
	}
	d.later("engine", func(context.Context) error { return d.engine.Close() })
	id, err := engineID(c.Root)
	if err != nil {
		return err
	}
	sys := &about{
		id: id, driver: p.images.content.Layout().Driver, host: host, kernel: kernel, cgroups: cgroups, bus: d.bus, config: d.config.Load,
		counts: d.engine.Counts, images: p.images.Count, networks: p.networks.Warnings,
		plugins: p.plugins.Known,
	}
	p.images.uses = d.engine.Uses
	d.about, d.id = sys, id
	d.measure(sys)
	return d.openServer(ctx, c, p, sys, newDoctor(c, launcher, d.engine, unlisted(d), p.networks, p.volumes, layerSource(p.images.content)))
}

// openServer makes the server; it listens nowhere yet.
func (d *Daemon) openServer(ctx context.Context, c *config.Config, p parts, sys *about, doc *doctor.Doctor) error {
	du, jobs, err := d.openDisk(ctx, p, sys)
	if err != nil {
		return err
	}
	doc.Sources = append(doc.Sources, budgetSource(sys.budget), firewallSource(p.networks))
	registry := d.registries(p.images)
	if err := openLazy(ctx, d, c.Root+"/lazy", p.images, registry); err != nil {
		return err
	}
	d.server = server.New(ctx, server.Options{
		Lifecycle: d.engine, States: d.engine, Views: d.engine, Streams: d.engine, Execs: d.engine, Files: d.engine, Changes: d.engine, Checkpoints: d.engine.Checkpoints,
		Images: imageAPI{p.images}, Archives: imageArchives{p.images, registry}, Registry: registry, Tools: imageTools{p.images, registry}, Networks: p.networks, Members: d.engine.Members, Volumes: volumeAPI{p.volumes}, Plugins: d.extensions, Transfers: volume.Transfers{Volumes: p.volumes},
		System: sys, Events: d.bus, Doctor: examiner{doc}, Why: explainer{d.engine, p.networks},
		Disk: du, Jobs: jobs, Pins: p.images, Builder: d.builder, Builds: d.classicBuilder(p, registry),
		Product: "Docker/" + version.Engine + " (linux)", Driver: p.images.content.Layout().Driver,
		Experimental: d.config.Load().Experimental, Log: d.log,
		Authorizer: authorizer{p.plugins, d.config.Load}, Answered: meter{d}.answered, Profiler: d.profiler, Upgrades: upgrades{d},
	})
	d.later("server", func(ctx context.Context) error { return d.server.Shutdown(ctx) })
	return nil
}

// close closes what is open, last first. Containers go on.
func (d *Daemon) close(ctx context.Context) error {
	var all []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		if d.upgrading && d.closers[i].stays {
			continue
		}
		began := time.Now()
		if err := d.closers[i].close(ctx); err != nil {
			all = append(all, fmt.Errorf("close %s: %w", d.closers[i].what, err))
		}
		d.log.Debug("closed", "part", d.closers[i].what, "took", time.Since(began))
	}
	d.closers = nil
	return errors.Join(all...)
}

// cgroupParent is where containers without a parent of their own get their
// groups.
func cgroupParent(c *config.Config) string {
	switch {
	case c.CgroupParent != "":
		return c.CgroupParent
	case c.CgroupDriver == "systemd":
		return "system.slice"
	case c.Instance != "":
		return "/gantry-" + c.Instance
	}
	return "/gantry"
}

// scopePrefix begins the names of the scopes that systemd makes for containers.
func scopePrefix(c *config.Config) string {
	if c.Instance != "" {
		return "gantry-" + c.Instance
	}
	return "gantry"
}

// removeParent takes the parent of the containers' groups off the machine if no
// container runs: a group with children can't be removed.
func removeParent(h *cgroup.Host, parent string) {
	roots := slices.Collect(maps.Values(h.V1))
	if h.V2 != "" {
		roots = append(roots, h.V2)
	}
	for _, root := range roots {
		_ = os.Remove(filepath.Join(root, parent))
	}
}

// networkOptions turns the configuration into that of the networks.
func networkOptions(c *config.Config, db *store.DB, bus *event.Bus) network.Options {
	o := network.Options{
		Store: db, RunDir: c.Run, Events: bus, Instance: c.Instance, Bridge: c.Bridge,
		Subnet: c.BIP, Range: c.FixedCIDR, IPv6: c.IPv6, Subnet6: c.BIP6, Range6: c.FixedCIDR6,
		Gateway: c.DefaultGateway, Gateway6: c.DefaultGateway6, NetworkOptions: c.NetworkOpts, MTU: c.MTU, HostIP: c.HostIP,
		Keeper:         shimKeeper(c.Run + "/c"),
		IsolateDefault: !c.ICC, NoMasquerade: !c.IPMasq, NoIPForward: !c.IPForward,
		FilterPorts: c.FilterPorts, NoRelay: !c.Relay, DirectRouting: c.DirectRouting, AcceptMark: network.Mark(c.AcceptMark),
	}
	for _, p := range c.Pools {
		o.Pools = append(o.Pools, ipam.Source{Base: p.Base, Bits: p.Size})
	}
	if len(c.HostGatewayIPs) > 0 {
		o.HostGateway = c.HostGatewayIPs[0]
	}
	return o
}
