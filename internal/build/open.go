package build

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/remotecache"
	inlinecache "github.com/moby/buildkit/cache/remotecache/inline"
	localcache "github.com/moby/buildkit/cache/remotecache/local"
	registrycache "github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	snapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/solver/llbsolver/cdidevices"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/source/local"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/network"
	buildkit "github.com/moby/buildkit/version"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.opentelemetry.io/otel/metric/noop"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"gantry/internal/build/execute"
	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/version"
	"gantry/internal/wire"
)

// hostGateway is the label by which BuildKit's clients learn what host-gateway
// means.
const hostGateway = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"

// openEngine opens BuildKit. ctx lives as long as it.
func openEngine(ctx context.Context, o Options) (*engine, error) {
	dir, run, conf := filepath.Join(o.Root, "build"), TempDir(o.RunDir), o.Config()
	for _, d := range []string{dir, run} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	if o.Content.Layout().Driver == content.EROFS {
		return nil, errs.New(errs.Unsupported, "the storage driver erofs has no writable layers to build in; use overlayfs, btrfs or vfs")
	}
	nameVersion()
	found, err := devices(conf.DeviceDirs)
	if err != nil {
		return nil, err
	}
	eo := execute.Options{Launcher: o.Launcher, Defaults: o.Defaults}
	if found != nil {
		eo.Devices = found.FindDevices
	}
	steps := execute.New(eo)
	if err := checkBooks(ctx, dir, o.Content); err != nil {
		return nil, err
	}
	history, err := openLater(ctx, filepath.Join(dir, "history.db"), o.Content, laterAfter)
	if err != nil {
		return nil, err
	}
	w, err := openWorker(ctx, dir, run, o, conf, steps, found, history)
	if err != nil {
		return nil, err
	}
	all := &worker.Controller{}
	if err := all.Add(w); err != nil {
		return nil, err
	}
	sessions, err := session.NewManager()
	if err != nil {
		return nil, err
	}
	gateways, err := gateway.NewGatewayFrontend(all.Infos(), nil)
	if err != nil {
		return nil, err
	}
	keys, err := bboltcachestorage.NewStore(filepath.Join(dir, "cache.db"))
	if err != nil {
		return nil, err
	}
	e := &engine{sessions: sessions, worker: w, executor: steps}
	e.ctl, err = control.NewController(control.Opt{
		SessionManager: sessions, WorkerController: all,
		Frontends: map[string]frontend.Frontend{
			"dockerfile.v0":          forwarder.NewGatewayForwarder(all.Infos(), dockerfile.Build),
			"gateway.v0":             gateways,
			wire.CacheMountsFrontend: cacheMounts{worker: w, stores: o.Content, names: o.Names, differ: walking.NewWalkingDiff(w.ContentStore())},
		},
		CacheManager: solver.NewCacheManager(ctx, "local", keys, &remembering{CacheResultStorage: worker.NewCacheResultStorage(all), blobs: w.ContentStore()}),
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registrycache.ResolveCacheExporterFunc(sessions, o.Hosts),
			"local":    localcache.ResolveCacheExporterFunc(sessions),
			"inline":   inlinecache.ResolveCacheExporterFunc(),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"registry": registrycache.ResolveCacheImporterFunc(sessions, w.ContentStore(), o.Hosts),
			"local":    localcache.ResolveCacheImporterFunc(sessions),
		},
		Entitlements: conf.Entitlements, MeterProvider: noop.NewMeterProvider(),
		HistoryConfig: historyConfig(conf), HistoryDB: history, CacheStore: keys, LeaseManager: w.LeaseManager(), ContentStore: w.ContentStore(),
		GarbageCollect: w.GarbageCollect, GracefulStop: ctx.Done(),
	})
	if err != nil {
		return nil, err
	}
	e.server = newServer(e.ctl)
	e.pipe = newPipe()
	go func() { _ = e.server.Serve(e.pipe) }() // until the pipe is closed
	return e, nil
}

// historyConfig bounds the history of builds; nil bounds it as BuildKit does.
func historyConfig(c Config) *config.HistoryConfig {
	if c.HistoryAge == 0 && c.HistoryEntries == 0 {
		return nil
	}
	h := &config.HistoryConfig{MaxAge: config.Duration{Duration: cmp.Or(c.HistoryAge, 48*time.Hour)}}
	n := cmp.Or(c.HistoryEntries, 50)
	h.MaxEntries = &n
	return h
}

// devices are the devices that steps may ask for, nil for none.
func devices(dirs []string) (*cdidevices.Manager, error) {
	if len(dirs) == 0 {
		return nil, nil
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...))
	if err != nil {
		return nil, err
	}
	return cdidevices.NewManager(cache, nil), nil
}

// nameVersion tells BuildKit which version of it this is; its clients ask.
func nameVersion() {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/moby/buildkit" {
			buildkit.Version = m.Version
		}
	}
}

// openWorker opens what solves, over the stores of o.
func openWorker(ctx context.Context, dir, run string, o Options, conf Config, steps *execute.Executor, found *cdidevices.Manager, history *later) (*imageWorker, error) {
	id, err := base.ID(dir)
	if err != nil {
		return nil, err
	}
	books, err := openBooks(dir)
	if err != nil {
		return nil, err
	}
	driver, s := o.Content.Layout().Driver, o.Content
	names := layerNames{s}
	blobs := snapshot.NewContentStore(blobs{s.Blobs(), names, history}, content.Namespace)
	labels := map[string]string{
		label.Executor: "containerd", label.Snapshotter: driver, label.ContainerdNamespace: content.Namespace,
		label.Network: "bridge", label.SELinuxEnabled: "false",
	}
	if name, err := os.Hostname(); err == nil {
		labels[label.Hostname] = name
	}
	if conf.HostGateway != "" {
		labels[hostGateway] = conf.HostGateway
	}
	named := imageStore{Store: s.Images(), names: o.Names, stores: s}
	w, err := base.NewWorker(ctx, base.WorkerOpt{
		ID: id, Root: dir, Labels: labels, Platforms: []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())},
		GCPolicy: policies(conf.GC), BuildkitVersion: client.BuildkitVersion{Package: "gantry", Version: version.Version, Revision: version.Commit},
		NetworkProviders: map[pb.NetMode]network.Provider{},
		Executor:         steps,
		CDIManager:       found,
		Snapshotter:      snapshot.NewSnapshotter(driver, unpacked{s.Snapshots(), names}, content.Namespace, nil),
		ContentStore:     blobs, Applier: applier{s}, Differ: walking.NewWalkingDiff(blobs),
		ImageStore: images.Store(named), RegistryHosts: o.Hosts,
		LeaseManager:   leaseutil.WithNamespace(holders{s.Ledger, names}, content.Namespace),
		GarbageCollect: func(ctx context.Context) (gc.Stats, error) { return nil, s.Collect(ctx) },
		MetadataStore:  books, MountPoolRoot: filepath.Join(run, "mounts"),
	})
	if err != nil {
		return nil, err
	}
	dirs, err := local.NewSource(local.Opt{CacheAccessor: w.CacheMgr})
	if err != nil {
		return nil, err
	}
	w.SourceManager.Register(knownDirs{dirs, w.CacheMgr})
	return &imageWorker{w, s}, nil
}
