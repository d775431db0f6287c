package server

import (
	"os"

	"gantry/internal/ociruntime/job"
)

// A runtime isolates processes: our own, or another OCI runtime's program.
type runtime interface {
	// create prepares the container's first process. The files are its
	// standard streams; nil if it has a terminal.
	create(stdio [3]*os.File) (task, error)
	// exec prepares a further process in the container.
	exec(p *job.Process, stdio [3]*os.File) (task, error)
	// mounts returns the mounts that can be taken away, nil if none can.
	mounts() *mounts
	// remove forgets the container, whose processes have ended.
	remove()
}

// A task is a prepared process: a child of the shim that waits to be started.
type task interface {
	Pid() int
	// Console returns the master side of its terminal, to be closed by the
	// caller.
	Console() *os.File
	// Start releases it. A *protocol.StartError says that its program can't
	// be executed.
	Start() error
}
