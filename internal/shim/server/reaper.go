package server

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// A reaper is the only one in the shim that waits for processes, but for those
// that the runtime starts and waits for itself inside of spawn. It collects the
// shim's children by their pids and, while nobody spawns, also strays: orphans
// of containers without a pid namespace of their own, which the kernel gives to
// the shim as their subreaper (prctl(2)).
type reaper struct {
	mu       sync.Mutex
	spawning int
	children map[int]*child
}

type child struct {
	exited func(syscall.WaitStatus)
	// starting: the runtime has it in hand, and reaps it itself if it can't
	// be started.
	starting bool
}

func newReaper() *reaper { return &reaper{children: map[int]*child{}} }

// spawn calls f, which may start and wait for helpers of its own. If f returns
// the pid of a new child, exited is called once when that has ended. It must
// not block.
func (r *reaper) spawn(f func() (int, error), exited func(syscall.WaitStatus)) error {
	r.mu.Lock()
	r.spawning++
	r.mu.Unlock()
	pid, err := f()
	r.mu.Lock()
	r.spawning--
	if err == nil && pid > 0 {
		r.children[pid] = &child{exited: exited}
	}
	r.mu.Unlock()
	r.sweep() // it may have ended before anybody knew it
	return err
}

// start calls f, which releases the child and may start, and wait for, helpers
// and the child itself.
func (r *reaper) start(pid int, f func() error) error {
	r.mu.Lock()
	r.spawning++
	c := r.children[pid]
	if c != nil {
		c.starting = true
	}
	r.mu.Unlock()
	err := f()
	r.mu.Lock()
	r.spawning--
	if c != nil {
		c.starting = false
	}
	r.mu.Unlock()
	r.sweep()
	return err
}

// sweep collects what has ended.
func (r *reaper) sweep() {
	type end struct {
		exited func(syscall.WaitStatus)
		status syscall.WaitStatus
	}
	var ends []end
	r.mu.Lock()
	for pid, c := range r.children {
		if c.starting {
			continue
		}
		var st syscall.WaitStatus
		// An error is ECHILD: it could not be started and is gone.
		if got, err := wait(pid, &st); got == pid || err != nil {
			ends = append(ends, end{c.exited, st})
			delete(r.children, pid)
		}
	}
	for r.spawning == 0 {
		var st syscall.WaitStatus
		pid, err := wait(-1, &st)
		if pid <= 0 || err != nil {
			break
		}
		if c := r.children[pid]; c != nil {
			ends = append(ends, end{c.exited, st})
			delete(r.children, pid)
		}
	}
	r.mu.Unlock()
	for _, e := range ends {
		e.exited(e.status)
	}
}

func wait(pid int, st *syscall.WaitStatus) (int, error) {
	for {
		got, err := syscall.Wait4(pid, st, syscall.WNOHANG, nil)
		if err != syscall.EINTR {
			return got, err
		}
	}
}

// signal sends sig to a child. It can't hit another process that has got its
// number: a child keeps it until it is reaped, and that takes mu.
func (r *reaper) signal(pid int, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.children[pid] == nil {
		return errs.New(errs.Conflict, "process %d has ended", pid)
	}
	if err := unix.Kill(pid, sig); err != nil {
		if err == unix.EINVAL {
			return errs.New(errs.Invalid, "signal %d: %w", int(sig), err)
		}
		return errs.New(errs.Conflict, "signal %d to process %d: %w", int(sig), pid, err)
	}
	return nil
}

// exitCode is the code that a shell, and Docker, give to an end.
func exitCode(st syscall.WaitStatus) int {
	if st.Signaled() {
		return 128 + int(st.Signal())
	}
	return st.ExitStatus()
}
