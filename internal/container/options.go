package container

import (
	"time"

	"gantry/internal/filter"
	"gantry/internal/shim"
	"gantry/internal/wire"
)

// CreateOptions is a request to create a container, as the user said it.
type CreateOptions struct {
	Name     string // without the slash; empty for a random one
	Platform string // "os/arch[/variant]", empty for the host's
	Request  wire.CreateRequest
	Extra    wire.CreateExtra
	// BindRoots are, by the targets of bind mounts, the host directories
	// that their sources must be found beneath at every start.
	BindRoots map[string]string
}

// StopOptions says how to stop a container.
type StopOptions struct {
	Signal  string // empty: the container's stop signal
	Timeout *int   // seconds before SIGKILL; nil: the container's; negative: for ever
	// Halt: the daemon ends, and nobody wants the container down for longer
	// than that: its restart policy holds for the next daemon.
	Halt bool
}

// RemoveOptions says what to remove with a container.
type RemoveOptions struct {
	Force   bool // kill it first if it runs
	Volumes bool // its anonymous volumes too
	Link    bool // only the legacy link of that name
}

// ListOptions selects containers.
type ListOptions struct {
	All     bool
	Size    bool
	Limit   int // the newest n, running or not; 0 or less for no limit
	Filters filter.Args
}

// AttachOptions says what a client wants of a container's streams.
type AttachOptions struct {
	shim.Streams
	// Stream asks for live data; Logs for what was logged before.
	Stream, Logs bool
	DetachKeys   string // empty: the daemon's
}

// Attached is a client's end of a process's streams.
type Attached struct {
	// Stream is as shim.Stream says: framed without a terminal, raw with
	// one. Its reading ends when the process's output has ended, or the
	// client has typed the detach keys.
	shim.Stream
	TTY bool
}

// LogOptions selects log lines.
type LogOptions struct {
	Stdout, Stderr bool
	Follow         bool
	Timestamps     bool
	Details        bool
	Since, Until   time.Time
	Tail           int // last n lines; negative for all
}

// ExecStartOptions says how to start an exec.
type ExecStartOptions struct {
	Detach      bool
	TTY         bool
	ConsoleSize *[2]uint // height, width in characters
}

// InspectOptions says what to add to an inspection.
type InspectOptions struct {
	Size bool // SizeRw and SizeRootFs, which walk the file system
}

// StreamError is a failure to start an exec whose text belongs into the stream
// of a client that attached to it (as a frame of standard output and with CRLF),
// because by Docker's protocol the connection is a stream by then. A client
// that detached gets Err as an ordinary error.
type StreamError struct{ Err error }

func (e *StreamError) Error() string { return e.Err.Error() }

// Unwrap returns the error with its kind.
func (e *StreamError) Unwrap() error { return e.Err }

// Counts is how many containers there are, as `docker info` counts them.
type Counts struct{ Total, Running, Paused, Stopped int }

// Use is a container's use of an image.
type Use struct {
	ID, Name string // Name without the slash
	Running  bool
}

// StatsOptions says how to sample a container.
type StatsOptions struct {
	Stream  bool // one sample a second until the context ends
	OneShot bool // at once, without a first sample to compare with
}
