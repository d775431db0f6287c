// Package ociruntime turns a job into an isolated process, without C and
// without another runtime's program. It has two halves that talk over a socket:
// the parent half runs in the shim, the child half is the same binary executed
// again inside the new namespaces, where it prepares everything and finally
// becomes the user's program.
//
//	parent (shim)                       child
//	─────────────                       ─────
//	clone(2) ───────────────────────────▶ raw child: system calls only
//	          ◀── 'm' ask for id maps ──   joins namespaces, becomes root of a
//	          ─── 'm' written ──────────▶  user namespace (only if there is one)
//	          ◀── 't' time offsets ─────
//	          ─── 't' written ──────────▶
//	          ◀── 'p' pid of sibling ───  (only if it cloned again)
//	detached root mount, bind sources   execveat(memfd) "gantry-init"
//	as descriptors; cgroup joined
//	          ─── 's' job, descriptors ─▶ ChildMain: names, mounts, devices
//	prestart, ◀── 'h' hooks ────────────  (only if there are such hooks)
//	createRuntime
//	          ─── 'h' have run ─────────▶ createContainer hooks, pivot_root
//	          ◀── 'c' pty master ───────  (only with a terminal)
//	Create    ◀── 'r' ready ────────────  blocked
//	returns
//	Start     ─── 'g' go ───────────────▶ startContainer hooks, user, limits,
//	          ◀── closed: executed ─────  filter, execve(2)
//	          ◀── 'e' code and text ────  …or any failure, at any moment
//
// Every mount is made on a descriptor of its target (package rootpath), its
// source is opened before the container's root is entered, and the root itself
// is a detached mount: nothing appears in the host's mount table, so nothing is
// left there when anything dies. Sources: OCI runtime-spec 1.3; clone(2),
// mount_namespaces(7), pivot_root(2), open_tree(2), fsopen(2).
//
// The shim and the OCI command line call it. It writes into the container's
// root file system and into procfs, and makes no file of its own. It must not
// know images, networks, the API, or which cgroup a process is in: joining one
// is the caller's (Options.Joined).
package ociruntime

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
)

// Options says how to start a process: a container's first (Create) or a
// further one (Exec).
type Options struct {
	// Exe is the program to execute as the child half; nil for this process's
	// own (put into a sealed memfd first if it is not in one). SealSelf makes
	// one to be used many times.
	Exe *os.File
	// Stdio are descriptors for 0, 1 and 2; nil is /dev/null. Not used with a
	// terminal. They stay the caller's.
	Stdio [3]*os.File
	// ExtraFiles become descriptors 3, 4, … of the program. They stay the
	// caller's.
	ExtraFiles []*os.File
	// CgroupFD is an open cgroup v2 directory to be born in, 0 for none.
	CgroupFD int
	// Joined, if set, is called with the new process's pid as soon as it
	// exists, to put it into its cgroups. It runs while the child half starts
	// up; the child touches nothing of the container before it has returned.
	// Limits on the number of processes should be set after Create.
	Joined func(pid int) error
	// Fifo, if set, makes the child wait for ReleaseFifo instead of Start, so
	// that this process may end meanwhile (the OCI command line).
	Fifo string
}

// ExecError says that the user's program could not be executed.
type ExecError struct {
	Code int    // for the command line: 127 not found, 126 can't be executed
	Text string // for example: exec: "nosuch": executable file not found in $PATH
}

func (e *ExecError) Error() string { return e.Text }

// An Init is a prepared process. It is a child of this process, which has to
// reap it: with Wait, or on its own.
type Init struct {
	pid     int
	pidfd   int
	sock    int
	console *os.File
	job     *job.Job // nil for an exec'd process
	mounts  []MountID
}

// Pid returns the process's id in this process's pid namespace.
func (i *Init) Pid() int { return i.pid }

// Pidfd returns a descriptor of the process (pidfd_open(2)), valid until Close.
func (i *Init) Pidfd() int { return i.pidfd }

// Console returns the terminal's master, or nil. It is the caller's to close.
func (i *Init) Console() *os.File { return i.console }

// Mounts returns what became of each of the job's mounts, in their order.
func (i *Init) Mounts() []MountID { return i.mounts }

// Close releases the descriptors of a started process, not the process, and
// kills one that has not been started.
func (i *Init) Close() error {
	if i.sock >= 0 {
		i.kill()
	}
	if i.pidfd >= 0 {
		unix.Close(i.pidfd)
		i.pidfd = -1
	}
	return nil
}

// Signal sends sig by pidfd: it can't hit another process.
func (i *Init) Signal(sig unix.Signal) error {
	if i.pidfd < 0 {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(i.pidfd, sig, nil, 0)
}

// Wait reaps the process and returns its exit status: what it exited with, or
// 128 plus the signal that ended it.
func (i *Init) Wait() (int, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(i.pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", i.pid, err)
		}
		return ExitCode(ws), nil
	}
}

// ExitCode is a wait status as shells and Docker count it.
func ExitCode(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// Start lets the prepared process execute the user's program and returns when
// it has: nil, or an *ExecError, or another error when a late step failed. After
// an error the process is gone and reaped.
func (i *Init) Start() error {
	if i.sock < 0 {
		return errs.New(errs.Conflict, "process %d has been started already", i.pid)
	}
	if err := send(i.sock, frameGo, nil); err != nil {
		i.kill()
		return fmt.Errorf("start: the prepared process is gone: %w", err)
	}
	f, err := recv(i.sock)
	if errors.Is(err, errClosed) {
		unix.Close(i.sock)
		i.sock = -1
		return i.poststart()
	}
	i.kill()
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return frameErr(f)
}

// poststart runs the hooks of that name. The process runs by then, so the spec
// wants failures logged only: they are the caller's as an error of this kind.
func (i *Init) poststart() error {
	if i.job == nil || len(i.job.Hooks.Poststart) == 0 {
		return nil
	}
	if err := RunHooks(i.job.Hooks.Poststart, HookState(i.job, "running", i.pid)); err != nil {
		i.Signal(unix.SIGKILL)
		return fmt.Errorf("poststart hook: %w", err)
	}
	return nil
}

// kill ends a process that has not executed the user's program and reaps it,
// so that its namespaces are gone when it returns.
func (i *Init) kill() {
	if i.sock >= 0 {
		unix.Close(i.sock)
		i.sock = -1
	}
	if i.console != nil {
		i.console.Close()
	}
	if i.pid > 0 {
		unix.Kill(i.pid, unix.SIGKILL)
		i.Wait()
	}
}

// frameErr turns what a child said into an error.
func frameErr(f frame) error {
	switch f.kind {
	case frameError:
		if f.aux0() != 0 {
			return &ExecError{Code: f.aux0(), Text: f.text()}
		}
		return errors.New(f.text())
	case frameRaw:
		if f.size == 0 {
			return fmt.Errorf("%s: the parent is gone", rawStep(f.aux))
		}
		return fmt.Errorf("%s: %w", rawStep(f.aux), unix.Errno(f.size))
	}
	return fmt.Errorf("the container's init sent an unexpected message of kind %q", f.kind)
}

// An error frame's payload is one byte of exit code and the text.
func (f frame) aux0() int {
	if len(f.payload) == 0 {
		return 0
	}
	return int(f.payload[0])
}

func (f frame) text() string {
	if len(f.payload) < 2 {
		return "the container's init failed without a reason"
	}
	return string(f.payload[1:])
}

// Create makes the container's namespaces, prepares its first process and
// returns when that is blocked right before executing the user's program. After
// an error nothing is left: child, namespaces and mounts are gone.
func Create(j *job.Job, o Options) (*Init, error) {
	p := &launch{o: o, job: j, proc: &j.Process, procfs: -1}
	defer p.close()
	if err := p.createPlan(); err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	i, err := p.run()
	if err != nil {
		var ee *ExecError
		if errors.As(err, &ee) {
			return nil, err
		}
		return nil, fmt.Errorf("create container: %w", err)
	}
	i.job = j
	return i, nil
}

// A Target is a running container to put a further process in.
type Target struct {
	Pid   int // of the container's first process
	Pidfd int // of the same, to be sure that it is still that one; 0 for none
}

// Exec prepares a further process in the namespaces of the target's. As with
// Create, it is blocked before executing the user's program when Exec returns.
func Exec(t Target, p *job.Process, o Options) (*Init, error) {
	l := &launch{o: o, proc: p, procfs: -1}
	defer l.close()
	if err := l.execPlan(t); err != nil {
		return nil, fmt.Errorf("exec in container: %w", err)
	}
	i, err := l.run()
	if err != nil {
		var ee *ExecError
		if errors.As(err, &ee) {
			return nil, err
		}
		return nil, fmt.Errorf("exec in container: %w", err)
	}
	return i, nil
}

// ReleaseFifo lets a process created with Options.Fifo go on. It fails with
// errs.Conflict if the process waits no more.
func ReleaseFifo(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENXIO {
		return errs.New(errs.Conflict, "start: the container's init does not wait any more")
	}
	if err != nil {
		return fmt.Errorf("start: open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte{'g'}); err != nil {
		return fmt.Errorf("start: write %s: %w", path, err)
	}
	return nil
}
