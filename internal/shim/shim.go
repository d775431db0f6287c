// Package shim is the engine's side of a container's supervisor process: it
// starts one gantry-shim for each container, talks to it over its socket, and
// finds it again after the daemon has died.
//
// The process itself lives in shim/server and is no part of the daemon. The
// engine's launch package is the only caller. A shim owns its container's
// first process, its pty or pipes, its log files, its exec'd children and its
// exit record; it must not know of images, networks or the API.
package shim

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim/protocol"
)

// Names of the files in a container's run directory.
const (
	SocketFile = "shim.sock" // the shim's socket, mode 0600
	ExitFile   = "exit"      // the exit record, written once and durably
)

// A Request says what a new shim shall run.
type Request struct {
	ID  string   // container ID, for names of processes and in log records
	Dir string   // the container's run directory, mode 0700, for socket and exit record
	Job *job.Job // the container's first process and its isolation
	Log LogConfig
	// OpenStdin keeps the process's standard input open for attaching
	// clients; else it is /dev/null.
	OpenStdin bool
	// StdinOnce closes standard input when the first client that was
	// attached to it has gone.
	StdinOnce bool
	// Runtime is the path and arguments of another OCI runtime's program
	// that shall do the isolation from a bundle at Bundle; empty for our own.
	Runtime []string
	Bundle  string
	// Restore is the checkpoint that the process is made of again; nil for a
	// new one.
	Restore *Checkpoint
	// Keep are files that the shim holds for whoever asks (Kept), until the
	// container has ended. They stay the caller's.
	Keep []*os.File
}

// The values that both sides of the socket know.
type (
	// Checkpoint is a container's processes on the disk.
	Checkpoint = protocol.Checkpoint
	// LogConfig says where a shim writes the container's output.
	LogConfig = protocol.LogConfig
	// Exit is the end of a process.
	Exit = protocol.Exit
	// StartError is a failure to run the user's program that is the user's
	// to mend.
	StartError = protocol.StartError
	// Streams says which standard streams a client wants.
	Streams = protocol.Streams
)

// ReadExit reads the exit record that a shim left in its run directory. If
// there is none the error is errs.NotFound.
func ReadExit(dir string) (Exit, error) { return protocol.ReadExit(dir) }

// TakeExecExit reads and removes the record of an exec's end, which a shim leaves
// in its run directory when the client that made the exec has gone. If there is
// none the error is errs.NotFound.
func TakeExecExit(dir, execID string) (Exit, error) {
	e, err := protocol.ReadExecExit(dir, execID)
	if errs.Is(err, errs.NotFound) {
		return e, err
	}
	return e, errors.Join(err, os.Remove(filepath.Join(dir, protocol.ExecExitFile(execID))))
}

// A Client is a connection to one live shim. All methods may be called at once
// from several goroutines; each fails with an errs.Unavailable when the shim is
// gone.
type Client interface {
	// Pid returns the container's first process in the host's pid namespace.
	Pid() int
	// Start releases the prepared process. A *StartError says that the
	// user's program could not be executed.
	Start(ctx context.Context) error
	// Wait returns when the first process has ended and its output has been
	// read to the end. If the shim has died it returns the exit record, or
	// errs.NotFound if there is none: the container is lost.
	Wait(ctx context.Context) (Exit, error)
	// Facts gives what happens in the meantime: "oom"; "log-lost N: why",
	// the container's log can't be written and N entries are lost so far;
	// "log-back N", it can be again. It is closed with the connection.
	Facts() <-chan string
	// Signal sends sig to the first process, by pidfd.
	Signal(ctx context.Context, sig int) error
	// Resize sets the size of the container's terminal in characters.
	Resize(ctx context.Context, height, width uint16) error
	// Attach opens a stream to the container's standard streams.
	Attach(ctx context.Context, want Streams) (Stream, error)
	// Exec prepares a further process in the container's namespaces and
	// cgroup, isolated as p says; execID names it. It runs at Exec.Start.
	Exec(ctx context.Context, execID string, p *job.Process, want Streams) (Exec, error)
	// Resume returns an exec that an earlier client has started, and whose
	// pid it knows. It asks nothing: the first call on an exec that has ended
	// meanwhile is errs.NotFound.
	Resume(execID string, pid int) Exec
	// Mounts returns the mount points of the container that can be taken
	// away, each with the tag that it was made with: "" at the start.
	Mounts(ctx context.Context) (map[string]string, error)
	// Mount adds a mount to the running container. errs.Conflict: there is
	// one at this place.
	Mount(ctx context.Context, tag string, m *job.Mount) error
	// Unmount takes one of Mounts away, and nothing else: errs.Conflict if
	// something else has taken its place.
	Unmount(ctx context.Context, mountPoint string) error
	// Checkpoint writes the container's processes to the disk. Unless they are
	// left running they are killed.
	Checkpoint(ctx context.Context, c Checkpoint) error
	// Shutdown tells a shim whose container has ended to end too.
	Shutdown(ctx context.Context) error
	// Close ends this connection; the shim and the container go on.
	Close() error
}

// A Stream is a client's view of a process's standard streams. Reading gives,
// without a terminal, frames as the Docker API frames them (8 bytes: stream
// number 1 or 2, three zeros, length as uint32 big endian; then the payload)
// and, with one, the terminal's bytes. Reading ends with io.EOF when the
// process's output has ended. Writing feeds standard input; CloseWrite ends it.
//
// A client that does not read slows the process down; nothing is dropped. What
// is left when the process ends goes to a slow client afterwards, without
// holding up Wait. Ending standard input ends the stream too, as in Docker,
// unless it closes the process's own: for an exec without a terminal always,
// for a container without one if StdinOnce is set.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// An Exec is a further process in a container.
type Exec interface {
	// Stream is nil if no stream was wanted. It is live before Start.
	Stream() Stream
	Start(ctx context.Context) error // *StartError as for the container
	Pid() int                        // host pid, valid after Start
	Wait(ctx context.Context) (Exit, error)
	Signal(ctx context.Context, sig int) error
	Resize(ctx context.Context, height, width uint16) error
	// Close forgets the exec in this process; it goes on in the shim.
	Close() error
}
