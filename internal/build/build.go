// Package build is the builder: BuildKit in this process, over the stores of
// package content and with its steps run by package launch. What it builds is an
// image at once, since nothing has to be brought from one store to another.
//
// The daemon makes one Builder; the API hands it the connections of BuildKit's
// clients, and builds of its own are solves through Client. It is opened by the
// first build: a daemon that never builds pays nothing. It writes below
// <data root>/build (BuildKit's books) and <run root>/build (what is mounted
// while a build runs), and into the stores. It must not know HTTP routes,
// Dockerfiles in the words of the API, or containers.
//
// A step is confined like a container. Pulled images are checked layer by layer,
// before anything of them is found in the cache.
package build

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/worker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"gantry/internal/build/execute"
	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/plan"
)

// A Launcher runs the containers of steps.
type Launcher = execute.Launcher

// Names are the images that builds make and begin with.
type Names interface {
	// Built records an image that a build has made, whose blobs are in the
	// stores, under its full name; without a name it is a dangling one.
	Built(ctx context.Context, name string, target ocispec.Descriptor) error
}

// Config is what the daemon's configuration says about builds.
type Config struct {
	// Entitlements are what builds may be granted: "network.host",
	// "security.insecure", "device".
	Entitlements []string
	// GC are the rules by which the cache is kept small, tried in order.
	GC []GCRule
	// HistoryAge and HistoryEntries bound the history of builds; zero: 48 hours,
	// 50 entries.
	HistoryAge     time.Duration
	HistoryEntries int64
	// DeviceDirs are where the specifications of devices (CDI) are that steps may
	// ask for; none: no step gets a device.
	DeviceDirs []string
	// HostGateway is the address that steps know as host-gateway.
	HostGateway string
}

// Options is what a Builder works with.
type Options struct {
	Root     string // data root, absolute
	RunDir   string // run root, absolute
	Content  *content.Store
	Names    Names
	Hosts    docker.RegistryHosts // how registries are reached, without credentials
	Launcher Launcher
	Defaults func() plan.Defaults // for the containers of steps
	Config   func() Config        // asked when the builder is opened
	Log      *slog.Logger
}

// A Builder builds images. It is safe for concurrent use.
type Builder struct {
	o Options

	mu     sync.Mutex
	engine *engine // nil until the first build
	closed bool
	cancel context.CancelFunc

	running
}

// New returns a builder that nothing is open of. What an earlier process has
// left mounted is taken away.
func New(o Options) (*Builder, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	dir := TempDir(o.RunDir)
	if err := sweepMounts(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Builder{o: o}, nil
}

// TempDir is the directory for temporary files that the process is to have which
// runs a Builder: BuildKit mounts things, and puts secrets, where the environment
// says that temporary files go, and only what is in a place of ours can be taken
// away after a crash.
func TempDir(runDir string) string { return filepath.Join(runDir, "build") }

// engine is an open BuildKit.
type engine struct {
	live     context.Context // outlives the builds
	ctl      *control.Controller
	sessions *session.Manager
	worker   worker.Worker
	executor *execute.Executor
	server   *grpc.Server
	pipe     *pipe
}

// open returns the engine, which the first call opens.
func (b *Builder) open(ctx context.Context) (*engine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errs.New(errs.Unavailable, "the builder is closed")
	}
	if b.engine != nil {
		return b.engine, nil
	}
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e, err := openEngine(content.Namespaced(live), b.o)
	if err != nil {
		cancel()
		return nil, errs.New(errs.KindOf(err), "open the builder: %w", err)
	}
	e.live = context.WithoutCancel(live)
	b.engine, b.cancel = e, cancel
	return e, nil
}

// Steps returns the IDs of the containers of steps that run. No record has them.
func (b *Builder) Steps() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.engine == nil {
		return nil
	}
	return b.engine.executor.Containers()
}

// exists tells whether there can be cache: something has been built here.
func (b *Builder) exists() bool {
	_, err := os.Stat(filepath.Join(b.o.Root, "build"))
	return err == nil
}

// Close ends the builds that run, and the builder.
func (b *Builder) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.engine == nil {
		return nil
	}
	b.cancel()
	e := b.engine
	e.server.Stop()
	if err := errors.Join(e.pipe.Close(), e.ctl.Close(), sweepMounts(TempDir(b.o.RunDir)), b.o.Content.Ledger.Flush(content.Namespaced(e.live))); err != nil {
		return err
	}
	return markClosed(filepath.Join(b.o.Root, "build"))
}
