package server

import (
	"context"
	"iter"

	"gantry/internal/container"
	"gantry/internal/filter"
	"gantry/internal/logs"
	"gantry/internal/wire"
)

// What the server needs of the rest, in pieces small enough to fake. ref is
// what the client named the object by; the errors carry the kind that the
// status follows from and the text that the client sees.

// Lifecycle makes containers and runs them.
type Lifecycle interface {
	Create(ctx context.Context, o container.CreateOptions) (wire.CreateResponse, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, o container.StopOptions) error
	Restart(ctx context.Context, ref string, o container.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
}

// States changes containers that exist.
type States interface {
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Rename(ctx context.Context, ref, name string) error
	Remove(ctx context.Context, ref string, o container.RemoveOptions) error
	Update(ctx context.Context, ref string, c wire.UpdateRequest) (wire.UpdateResponse, error)
}

// Views looks at containers.
type Views interface {
	Inspect(ctx context.Context, ref string, o container.InspectOptions) (wire.ContainerJSON, error)
	List(ctx context.Context, o container.ListOptions) ([]wire.ContainerSummary, error)
	Top(ctx context.Context, ref, psArgs string) (wire.TopResponse, error)
	Stats(ctx context.Context, ref string, o container.StatsOptions) (iter.Seq2[*wire.Stats, error], error)
	Prune(ctx context.Context, f filter.Args) (wire.ContainersPruned, error)
}

// Streams carries bytes of containers, and the news of their end.
type Streams interface {
	Attach(ctx context.Context, ref string, o container.AttachOptions) (*container.Attached, error)
	Logs(ctx context.Context, ref string, o container.LogOptions) (*container.LogStream, error)
	Resize(ctx context.Context, ref string, height, width uint16) error
	Wait(ctx context.Context, ref, condition string) (<-chan wire.WaitResponse, error)
}

// Execs runs further processes in containers.
type Execs interface {
	ExecCreate(ctx context.Context, ref string, c wire.ExecCreate) (string, error)
	ExecStart(ctx context.Context, id string, o container.ExecStartOptions) (*container.Attached, error)
	ExecInspect(ctx context.Context, id string) (wire.ExecInspect, error)
	ExecResize(ctx context.Context, id string, height, width uint16) error
}

// System describes the daemon and its machine.
type System interface {
	Info(ctx context.Context) (wire.Info, error)
	Version(ctx context.Context) wire.Version
}

// Doctor finds, and removes if asked to, what exists on the machine and belongs
// to no container. The value is written as JSON.
type Doctor interface {
	Examine(ctx context.Context) (any, error)
	Mend(ctx context.Context) (any, error)
}

// entries is what the log writer reads.
type entries = iter.Seq2[logs.Entry, error]
