// Package launch turns a plan into a running process and undoes it again: an
// ordered list of steps (rootfs, volumes, network, files, bundle, process),
// each with what undoes it. One teardown serves a failed start, a stop, a
// removal and the recovery after a crash; it needs nothing but the container's
// ID, and may be run twice.
//
// The engine's container package calls it, later the builder and the cluster
// agent too. It writes below <data root>/containers/<id> and <run root>/c/<id>,
// and has networks, volumes and shims made by those who own them. It keeps no
// state of its own and must not know of names, restarts, health or the API.
package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
	"gantry/internal/launch/lookup"
	"gantry/internal/launch/rootfs"
	"gantry/internal/network"
	"gantry/internal/ociruntime/job"
	"gantry/internal/ocispec"
	"gantry/internal/plan"
	"gantry/internal/shim"
	"gantry/internal/volume"
)

// Input is what to launch.
type Input struct {
	ID   string
	Name string // without the slash
	Plan *plan.Plan
	// Lower are the read-only directories of the image, topmost first.
	Lower []string
	// Whole says that the only one of Lower is the image's whole tree: the
	// container gets a copy of it, not an overlay.
	Whole bool
	// Root, if set, is where the container writes, instead of a directory of
	// its own: it is the caller's, and stays. Then there may be no Lower.
	Root *Root
	// Images are those of the images that are mounted, by target.
	Images map[string][]string
	// Trees are the files of further mounts of type "image", by target.
	Trees map[string]Tree
	Joins Joins
	// Linked are further lines for its /etc/hosts, LinkEnv variables that it
	// gets unless it has its own of that name.
	Linked  []HostRecord
	LinkEnv []string
	// Reaches are the exposed ports of the linked containers, by their IDs.
	Reaches network.Reaches
	// Restore is the checkpoint that the process is made of again, or nil.
	Restore *shim.Checkpoint
}

// Root is a directory that a container writes to. Work, on the same file system,
// is for the kernel; it may be empty if nothing lies below Upper.
type Root struct{ Upper, Work string }

// A Tree is what a mount shows: read-only directories, topmost first, and over
// them, unless it is read-only, a writable one.
type Tree struct {
	Lower []string
	Root
}

// HostRecord is a line of /etc/hosts.
type HostRecord struct {
	Addr  netip.Addr
	Names []string
}

// String returns the line, without its end.
func (r HostRecord) String() string { return r.Addr.String() + "\t" + strings.Join(r.Names, " ") }

// HostNames are the names that a container has for its own addresses.
func HostNames(hostname, domain string) []string { return network.HostNames(hostname, domain) }

// Joins names the other containers whose namespaces the plan asks to join, and
// the host pids of their first processes.
type Joins struct {
	Network string // container ID
	// Host pids of the containers joined; 0 for none.
	NetworkPID, PID, IPC, UTS int
}

// Running is a container's process, as whoever launched or found it sees it.
type Running struct {
	ID      string
	Client  shim.Client
	Sandbox *network.Sandbox // nil if its network is not ours
	Steps   []Timing         // how long each step took; empty if it was adopted
}

// The parts of other packages that callers of launch meet.
type (
	Sandbox     = network.Sandbox
	Endpoint    = network.Endpoint
	Attachment  = network.AttachRequest
	Group       = cgroup.Group
	Usage       = cgroup.Stats
	UsageIO     = cgroup.IOEntry
	ExecProcess = job.Process
	FileTree    = rootfs.Tree
	FilesUpper  = rootfs.Upper
	FileChange  = rootfs.Change
	Extraction  = rootfs.ExtractOptions
	// UserNamespace is an open user namespace.
	UserNamespace = ocispec.UserNamespace
)

// Timing is the duration of one step.
type Timing struct {
	Step string
	Took time.Duration
}

// Networks is what launch needs of package network.
type Networks interface {
	Begin(ctx context.Context, r network.AttachRequest) (*network.Half, error)
	// Republish makes the published ports of a running container those of r.
	Republish(ctx context.Context, r network.AttachRequest) (*network.Sandbox, error)
	Detach(ctx context.Context, id string) error
	Sandbox(id string) (*network.Sandbox, bool)
	// Files renders /etc/hosts and /etc/resolv.conf for a container with a
	// sandbox of its own.
	Files(s *network.Sandbox, f network.HostFiles) (hosts, resolv []byte, err error)
}

// Volumes is what launch needs of package volume.
type Volumes interface {
	MountAs(ctx context.Context, r volume.MountRequest) (volume.Mounted, error)
	Unmount(ctx context.Context, containerID string) error
	// MarkUsed notes that a volume has its first content.
	MarkUsed(ctx context.Context, name string) error
}

// Devices knows devices by the names of those who make them.
type Devices interface {
	// Add edits the specification of a container so that it has those that
	// its plan requests.
	Add(spec *specs.Spec, p *plan.Plan) error
}

// Quota bounds what directories hold.
type Quota interface {
	// Supported says why nothing can be bounded.
	Supported() error
	// Set bounds directories, together, to so many bytes.
	Set(owner string, size uint64, dirs ...string) error
	// Release takes the bound off a directory that is to be removed.
	Release(dir string) error
}

// UserNamespaces makes user namespaces, and knows whether containers get one
// unasked.
type UserNamespaces interface {
	Remaps() bool
	// Open makes one, with a network namespace of its own, for a container
	// that wants the shared range of ids or (plan.Auto) one of its own.
	Open(id, mode string) (UserNamespace, error)
	// Join opens that of a process.
	Join(pid int) (UserNamespace, error)
	// Release gives a container's own range back.
	Release(id string) error
}

// Shims starts supervisor processes.
type Shims interface {
	Spawn(id string) (*shim.Nascent, error)
}

// Options is what a Launcher works with.
type Options struct {
	Root     string // data root, absolute
	RunDir   string // run root, absolute
	Networks Networks
	Volumes  Volumes
	Users    UserNamespaces // nil if there are none
	Quota    Quota          // nil if there is none
	Devices  Devices        // nil if there are none
	Shims    Shims
	Cgroups  *cgroup.Host
	// CgroupParent is the path below which containers get their groups;
	// "/gantry" if empty. With Systemd it is a slice; "system.slice" if empty.
	CgroupParent string
	Systemd      bool   // systemd makes the control groups, as scopes
	ScopePrefix  string // of the scopes' names, which tells daemons apart; "gantry" if empty
	// Runtime gives, by name, the program and arguments of another OCI
	// runtime, and nil for our own. It may be nil: then there is no other.
	Runtime func(name string) []string
	Log     *slog.Logger // for how long each step takes; nil for nowhere
	// Launched is told how long the steps of each start took; nil for nobody.
	Launched func(id string, steps []Timing)
	// Fail is called before each step is done ("network") and undone
	// ("undo network"); an error makes it fail there. For crash tests only.
	Fail func(point string) error
}

// A Launcher launches containers. It may be used at once for several, and for
// one container by one caller at a time.
type Launcher struct {
	o       Options
	filters *lookup.Filters
}

// New returns a launcher. Nothing is read or written before it is used.
func New(o Options) *Launcher {
	if o.CgroupParent == "" {
		o.CgroupParent = "/gantry"
		if o.Systemd {
			o.CgroupParent = "system.slice"
		}
	}
	if o.ScopePrefix == "" {
		o.ScopePrefix = "gantry"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Launcher{o: o, filters: lookup.NewFilters()}
}

// dir is a container's directory below the data root.
func (l *Launcher) dir(id string) string { return filepath.Join(l.o.Root, "containers", id) }

// runDir is a container's directory below the run root.
func (l *Launcher) runDir(id string) string { return filepath.Join(l.o.RunDir, "c", id) }

// Check finds, before a container is made, what its image and its plan say
// against each other.
func (l *Launcher) Check(in Input) error {
	if in.Plan.RootSize > 0 {
		if l.o.Quota == nil || in.Whole {
			return errs.New(errs.Invalid, noQuota)
		}
		if err := l.o.Quota.Supported(); err != nil {
			return errs.New(errs.Invalid, noQuota+": %w", err)
		}
	}
	dir := in.Plan.Process.Dir
	if dir == "" || dir == "/" || len(in.Lower) == 0 {
		return nil
	}
	view, err := rootfs.Open(in.Lower[0], in.Lower[1:])
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	defer view.Close()
	if view.IsFile(dir) {
		return errs.New(errs.Unknown, "Cannot mkdir: %s is not a directory", dir)
	}
	return nil
}

// Prepare does every step up to the process, which is then blocked before its
// first instruction. If a step fails, or ctx ends, all steps before it have
// been undone when Prepare returns.
func (l *Launcher) Prepare(ctx context.Context, in Input) (*Running, error) {
	b := newBuild(l, in)
	timings, err := run(ctx, b.steps(), l.o.Fail)
	b.close()
	if err != nil {
		return nil, err
	}
	return &Running{ID: in.ID, Client: b.client, Sandbox: b.sandbox, Steps: timings}, nil
}

// Release lets a prepared process go. On error everything has been undone. A
// *shim.StartError in the chain says that the user's program could not be
// executed.
func (l *Launcher) Release(ctx context.Context, r *Running) error {
	began := time.Now()
	err := l.fail("start")
	if err == nil {
		err = r.Client.Start(ctx)
	}
	r.Steps = append(r.Steps, Timing{"start", time.Since(began)})
	if err == nil {
		for _, s := range r.Steps {
			l.o.Log.Debug("launched", "id", r.ID, "step", s.Step, "took", s.Took)
		}
		if l.o.Launched != nil {
			l.o.Launched(r.ID, r.Steps)
		}
		return nil
	}
	err = startError(err)
	undo := context.WithoutCancel(ctx)
	shutErr := r.Client.Shutdown(undo)
	if errs.Is(shutErr, errs.Unavailable) || errs.Is(shutErr, errs.NotFound) {
		shutErr = nil // it has ended by itself
	}
	r.Client.Close()
	if downErr := l.Teardown(undo, r.ID); downErr != nil {
		return errs.With(errs.KindOf(err), errors.Join(err, shutErr, downErr))
	}
	return err
}

func (l *Launcher) fail(point string) error {
	if l.o.Fail == nil {
		return nil
	}
	return l.o.Fail(point)
}

// noQuota is what Docker's users read; what is missing follows.
const noQuota = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"

// Texts that begin what Docker's clients read when the runtime fails.
const (
	runtimeFailed = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
	initFailed    = runtimeFailed + "unable to start container process: error during container init: "
)

// startError words a failure of the runtime as Docker does. What is the user's
// to mend is Invalid.
func startError(err error) error {
	var s *shim.StartError
	switch {
	case errors.As(err, &s):
		return errs.New(errs.Invalid, initFailed+"%w", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return errs.New(errs.KindOf(err), runtimeFailed+"unable to start container process: %w", err)
}

// Adopt finds the process of a container that an earlier daemon launched.
// errs.Unavailable: no shim answers.
func (l *Launcher) Adopt(ctx context.Context, id string) (*Running, error) {
	c, err := shim.Dial(ctx, l.runDir(id))
	if err != nil {
		return nil, err
	}
	r := &Running{ID: id, Client: c}
	if s, ok := l.o.Networks.Sandbox(id); ok {
		r.Sandbox = s
	}
	return r, nil
}
