// Package container owns the containers of this daemon: their records, their
// names and the goroutine that is each one's only writer. It decides with pure
// functions (plan, next) and acts through package launch and the shim.
//
// The API calls it; it calls image, network, volume and launch, and publishes
// events. It must not know HTTP.
//
// # What the Engine can do
//
// ref is a full ID, a name with or without its slash, or a unique prefix of an
// ID. Errors have the kind that the API's status follows from.
//
//	// Control: what changes a container
//	Create(ctx, CreateOptions) (wire.CreateResponse, error)
//	Start(ctx, ref string) error                        // errs.NoChange: runs already
//	Stop(ctx, ref string, StopOptions) error            // errs.NoChange: does not run
//	Restart(ctx, ref string, StopOptions) error
//	Kill(ctx, ref, signal string) error
//	Pause(ctx, ref string) error
//	Unpause(ctx, ref string) error
//	Rename(ctx, ref, name string) error
//	Remove(ctx, ref string, RemoveOptions) error
//	Update(ctx, ref string, wire.UpdateRequest) (wire.UpdateResponse, error)
//	Prune(ctx, filters filter.Args) (wire.ContainersPruned, error)
//
//	// Query: what observes containers; never waits for one, but Wait
//	Inspect(ctx, ref string, InspectOptions) (wire.ContainerJSON, error)
//	List(ctx, ListOptions) ([]wire.ContainerSummary, error)
//	Wait(ctx, ref, condition string) (<-chan wire.WaitResponse, error)
//	Top(ctx, ref, psArgs string) (wire.TopResponse, error)
//	Stats(ctx, ref string, StatsOptions) (iter.Seq2[*wire.Stats, error], error)
//	Counts() Counts
//	Uses(imageID string) []Use
//
//	// Streams
//	Attach(ctx, ref string, AttachOptions) (*Attached, error)
//	Logs(ctx, ref string, LogOptions) (*LogStream, error)  // .TTY; .Entries(ctx) iter.Seq2[logs.Entry, error]
//	Resize(ctx, ref string, height, width uint16) error
//
//	// Execs
//	ExecCreate(ctx, ref string, wire.ExecCreate) (id string, error)
//	ExecStart(ctx, id string, ExecStartOptions) (*Attached, error) // nil if detached; *StreamError
//	ExecInspect(ctx, id string) (wire.ExecInspect, error)
//	ExecResize(ctx, id string, height, width uint16) error
//
//	// Files: of containers, whatever they do
//	ArchiveStat(ctx, ref, path string) (wire.PathStat, error)
//	ArchiveGet(ctx, ref, path string, begin func(wire.PathStat) io.Writer) error
//	ArchivePut(ctx, ref, path string, io.Reader, ExtractOptions) error
//	Export(ctx, ref string, begin func() io.Writer) error
//	Changes(ctx, ref string) ([]wire.FilesystemChange, error)
//	Commit(ctx, ref string, CommitOptions) (imageID string, error)
package container

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/store"
	"gantry/internal/volume"
	"gantry/internal/wire"
)

// Images is what the engine needs of package image.
type Images interface {
	// Resolve finds an image by what a user calls it, for "os/arch[/variant]"
	// or the host's. errs.NotFound: "No such image: x:latest".
	Resolve(ctx context.Context, ref, platform string) (*plan.Image, Image, error)
	// Find returns the ID of the image that ref names; false if there is none.
	Find(ctx context.Context, ref string) (id string, ok bool)
	// Pin keeps the layers of images for a container until Unpin.
	Pin(ctx context.Context, containerID string, imageIDs ...string) error
	Unpin(ctx context.Context, containerID string) error
	// Pinned returns the containers that images are pinned for.
	Pinned(ctx context.Context) ([]string, error)
}

// Volumes is what the engine needs of package volume.
type Volumes interface {
	// Claim finds or makes a volume and notes that the container uses it.
	// It returns the name, which for an anonymous one it chooses.
	Claim(ctx context.Context, containerID string, v volume.Claim) (name string, err error)
	// Path returns where a volume's directory is, "" if it is unknown.
	Path(ctx context.Context, name string) string
	// Forget ends every use by a container and returns the names of
	// anonymous volumes that nobody uses any more.
	Forget(ctx context.Context, containerID string) (anonymous []string, err error)
	// Unclaim ends the use of one volume by a container.
	Unclaim(ctx context.Context, containerID, name string) error
	// Claimants returns the containers that use volumes.
	Claimants(ctx context.Context) ([]string, error)
	// Remove removes a volume that nobody uses.
	Remove(ctx context.Context, name string, o volume.RemoveOptions) error
}

// Launcher is what the engine needs of package launch.
type Launcher interface {
	Check(in launch.Input) error
	Prepare(ctx context.Context, in launch.Input) (*launch.Running, error)
	Release(ctx context.Context, r *launch.Running) error
	Adopt(ctx context.Context, id string) (*launch.Running, error)
	Teardown(ctx context.Context, id string) error
	Destroy(ctx context.Context, id string) error
	Sweep(ctx context.Context, known, up []string) error
	Process(ctx context.Context, in launch.Input, pid int, p *plan.ExecPlan) (*launch.ExecProcess, error)
	Cgroup(id string, p *plan.Plan) *launch.Group
	Limit(ctx context.Context, id string, p *plan.Plan) error
	Files(ctx context.Context, in launch.Input, o launch.FilesOptions) (*launch.FileTree, error)
	Changer
}

// Changer changes a container that runs.
type Changer interface {
	// Source makes ready what a mount is made of; it must be closed.
	Source(ctx context.Context, in launch.Input, m plan.Mount) (*launch.Source, error)
	// Resolv brings its resolv.conf in line with its networks.
	Resolv(in launch.Input, was, now *launch.Sandbox) error
	// Publish makes the published ports those of the plan.
	Publish(ctx context.Context, in launch.Input) (*launch.Sandbox, error)
}

// Networks is what the engine needs of package network.
type Networks interface {
	// Network finds a network by its name, ID or a prefix of that.
	Network(ref string) (wire.Network, error)
	// Connect and Disconnect put a running container on a network and take
	// it off one, and return its sandbox as it is then.
	Connect(ctx context.Context, r launch.Attachment, ref string, s *wire.EndpointSettings) (*launch.Sandbox, error)
	Disconnect(ctx context.Context, r launch.Attachment, ref string) (*launch.Sandbox, error)
	// Stale removes an endpoint whose container is not known any more.
	Stale(ctx context.Context, ref, name string) error
	// Rename makes the networks of a running container call it by another name.
	Rename(ctx context.Context, id, name string) error
}

// Prober makes health probes without a process: netns is the path of a network
// namespace, hosts that of the hosts(5) file for names. The error says why what
// answers is not healthy.
type Prober interface {
	Probe(ctx context.Context, netns, hosts string, p *plan.Probe) (string, error)
}

// Events is where facts for others go.
type Events interface{ Publish(wire.Event) }

// Options is what an engine works with.
type Options struct {
	Store    *store.DB
	Images   Images
	Volumes  Volumes
	Launcher Launcher
	Networks Networks
	Events   Events
	Prober   Prober
	Logs     LogShips // nil: no log goes anywhere
	// Committer makes images of containers.
	Committer Committer
	// Defaults is asked at each create, so that a reloaded configuration holds.
	Defaults func() plan.Defaults
	// Others returns the IDs of containers that the launcher has and somebody else
	// runs; nil for none.
	Others func() []string
	Root   string // data root, absolute
	RunDir string // run root, absolute
	// DetachKeys is the key sequence that ends an attach, such as
	// "ctrl-p,ctrl-q", which an empty string means.
	DetachKeys string
	Log        *slog.Logger
	// Probed is told how each health check ended (0: healthy) and how long it
	// took; nil for nobody.
	Probed func(code int, took time.Duration)
	// LogLost is told of entries of logs that are lost: "unwritten" or "unsent";
	// nil for nobody.
	LogLost func(entries uint64, why string)
}

// Engine runs containers. Its methods are those of its parts: Control changes
// containers, Query observes them, Streams carries their bytes, Execs runs
// further processes in them, Files copies their files.
type Engine struct {
	*Control
	*Query
	*Streams
	*Execs
	*Files
	Checkpoints *Checkpoints
	Members     *Members
	core        *core
}

// The parts of an Engine; each is a view of the same core.
type (
	// Control changes containers.
	Control struct{ *core }
	// Query observes containers.
	Query struct{ *core }
	// Streams carries bytes of containers.
	Streams struct{ *core }
	// Execs runs further processes in containers.
	Execs struct{ *core }
	// Members puts containers on networks and takes them off.
	Members struct{ *core }
	// Files copies files of containers, and makes images of them.
	Files struct{ *core }
)

// core is what the parts share.
type core struct {
	o      Options
	log    *slog.Logger
	table  *table
	execs  *execTable
	layers sizeCache
	// ctx ends when the engine closes; tasks are its goroutines.
	ctx    context.Context
	cancel context.CancelFunc
	tasks  *tasks
	bell   *bell
	// claim serialises creation, renaming and removal where a name changes
	// hands, so that table and store agree.
	claim sync.Mutex
	// hosts serialises changes of running containers' hosts files.
	hosts sync.Mutex
}

// Open brings the engine up: it finds the containers of the store, adopts those
// that run, notes the end of those that ended meanwhile, removes what belongs
// to none, and then starts those that policy wants up. The engine stops looking
// after containers when ctx ends or at Close; they go on.
func Open(ctx context.Context, o Options) (*Engine, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.DetachKeys == "" {
		o.DetachKeys = defaultDetachKeys
	}
	if _, err := parseDetachKeys(o.DetachKeys); err != nil {
		return nil, errs.New(errs.Invalid, "open engine: %w", err)
	}
	run, cancel := context.WithCancel(ctx)
	c := &core{o: o, log: o.Log, table: newTable(), execs: newExecTable(), ctx: run, cancel: cancel, tasks: newTasks(), bell: newBell()}
	if err := (recovery{c}).run(run); err != nil {
		cancel()
		c.tasks.Close()
		return nil, fmt.Errorf("open engine: %w", err)
	}
	return &Engine{&Control{c}, &Query{c}, &Streams{c}, &Execs{c}, &Files{c}, &Checkpoints{c}, &Members{c}, c}, nil
}

// Close ends the engine and waits for its goroutines. The containers and their
// shims go on. Starts that are under way are interrupted and undone.
func (e *Engine) Close() error {
	e.core.cancel()
	for _, a := range e.core.table.all() {
		a.release()
	}
	e.core.tasks.Close()
	return nil
}
