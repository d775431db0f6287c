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
	"log/slog"
	"time"

	"gantry/internal/cgroup"
	"gantry/internal/network"
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
	Joins Joins
}

// Joins names the other containers whose namespaces the plan asks to join, and
// the host pids of their first processes.
type Joins struct {
	Network       string // container ID
	PID, IPC, UTS int    // host pid of the container joined; 0 for none
}

// Running is a container's process, as whoever launched or found it sees it.
type Running struct {
	ID      string
	Client  shim.Client
	Sandbox *network.Sandbox // nil if its network is not ours
	Steps   []Timing         // how long each step took; empty if it was adopted
}

// Timing is the duration of one step.
type Timing struct {
	Step string
	Took time.Duration
}

// Networks is what launch needs of package network.
type Networks interface {
	Attach(ctx context.Context, r network.AttachRequest) (*network.Sandbox, error)
	Detach(ctx context.Context, id string) error
	Sandbox(ctx context.Context, id string) (*network.Sandbox, error)
	HostFiles(ctx context.Context, s *network.Sandbox, f network.HostFiles) (hosts, resolv []byte, err error)
}

// Volumes is what launch needs of package volume.
type Volumes interface {
	Mount(ctx context.Context, containerID, name string) (volume.Mounted, error)
	Unmount(ctx context.Context, containerID string) error
	MarkUsed(ctx context.Context, name string) error
}

// Shims starts supervisor processes and finds them again.
type Shims interface {
	Create(ctx context.Context, r shim.Request) (shim.Client, error)
	Dial(ctx context.Context, dir string) (shim.Client, error)
}

// Options is what a Launcher works with.
type Options struct {
	Root         string // data root, absolute
	RunDir       string // run root, absolute
	Networks     Networks
	Volumes      Volumes
	Shims        Shims
	Cgroups      *cgroup.Host
	CgroupParent string // path below which containers get their groups, such as "/gantry"
	// Runtimes gives, by name, the program and arguments of other OCI
	// runtimes. A name that is not there is our own.
	Runtimes map[string][]string
	Log      *slog.Logger // nil: nothing is traced
	// Fail is called before each step and each undoing with its name; an
	// error makes it fail there. For crash tests only.
	Fail func(point string) error
}
