// Package server is the supervisor of one container: the process gantry-shim.
//
// Package shim starts it and is its client; cmd/gantry-shim calls Main. It owns
// the container's cgroup, first process, pty or pipes, log files, exec'd
// processes and exit record; it writes into the run directory and the log's
// directory only. It must not know images, networks or the API, and must stay
// small: it idles beside every container, so its dependency list is closed.
//
// Everything goes on when the daemon is gone. What it holds of one container:
//
//	     clients            shim                     container
//	                  +--- fan-out <--- pump <------- stdout
//	stream 1 <--------+    |      <--- pump <------- stderr
//	stream 2 <--------+    +--> log file
//	stream 1 --------------------> input ----------> stdin
//	control  <-------------------> calls: start, signal, wait, exec, …
//
// A pump reads a chunk, gives it to the log, then to every client, and only
// then reads the next: that is the back-pressure, and why nothing is dropped.
package server

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim/protocol"
)

// socketFile is shim.SocketFile.
const socketFile = "shim.sock"

// errorFile, in the run directory, gets what the shim can tell nobody: the trace
// of a crash, a full disk. It is empty as a rule.
const errorFile = "shim.err"

// redirectErrors makes errorFile our standard error.
func redirectErrors(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, errorFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("dup3", unix.Dup3(int(f.Fd()), 2, 0))
}

// launcherFD is the descriptor of the socket to the launcher.
const launcherFD = 3

// lonelyAfterExit is how long the shim of an ended container waits for a client
// when it has none. The exit record tells the same.
const lonelyAfterExit = 10 * time.Second

// Main supervises the container that the launcher at descriptor 3 asks for. It
// returns when the container has ended and nobody needs the shim any more.
func Main() error {
	os.WriteFile("/proc/self/comm", []byte("gantry-shim"), 0) // else it is the memfd's number
	unix.Umask(0)
	unix.CloseOnExec(launcherFD)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	launcher, err := newConn(launcherFD)
	if err != nil {
		return err
	}
	// All that needs no request is done before it comes: the launcher starts a
	// shim while it still finds out what for.
	s := &server{
		reaper: newReaper(),
		execs:  map[string]*process{},
		ctls:   map[*control]struct{}{},
		ended:  make(chan struct{}),
		dying:  make(chan struct{}),
	}
	s.cgroups, s.cgroupsErr = cgroup.Detect()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGTSTP)
	go s.signals(signals)
	given := rights{c: launcher}
	_, _, payload, err := protocol.ReadFrame(&given)
	if err != nil {
		return err
	}
	keep(s, given.take())
	r, err := protocol.DecodeRequest(payload)
	if err == nil {
		err = s.create(r)
	}
	k := s.newControl(launcher)
	if err != nil {
		k.fail(0, err)
		return err
	}
	k.send(0, protocol.OpAnswer, protocol.Hello{Pid: s.main.task.Pid()}.Encode())
	go k.serve()
	<-s.ended
	s.late.Wait()
	return nil
}

// signals reaps at SIGCHLD. It takes the other signals that a service manager
// sends round so that they do not end the shim; were they ignored, the
// container's processes would inherit that (signal(7)).
func (s *server) signals(c <-chan os.Signal) {
	for sig := range c {
		if sig == syscall.SIGCHLD {
			s.reaper.sweep()
		}
	}
}

// server is the state of the shim. Nothing waits while mu is held.
type server struct {
	id      string
	dir     string
	runtime runtime
	reaper  *reaper
	cgroups *cgroup.Host  // nil for cgroupsErr
	group   *cgroup.Group // nil if there is none
	ownPids bool          // the first process is pid 1 of a namespace of its own
	main    *process
	spare   buffers
	trim    trimmer
	lock    *os.File // listening socket
	late    sync.WaitGroup
	trouble logTrouble
	dying   chan struct{} // closed when the first process has ended
	ended   chan struct{} // closed when the shim shall end

	cgroupsErr error

	mu       sync.Mutex
	ctls     map[*control]struct{}
	execs    map[string]*process
	kept     []int  // descriptors that outlive the daemon
	kills    uint64 // by the OOM killer, as far as told
	lonely   *time.Timer
	stopping bool
}

// create does everything up to the prepared first process. What it has done is
// undone on error.
func (s *server) create(r *protocol.Request) (err error) {
	s.id, s.dir = r.ID, r.Dir
	defer func() {
		if err != nil {
			s.undo()
		}
	}()
	if err := redirectErrors(s.dir); err != nil {
		return err
	}
	j, err := job.Decode(r.Job)
	if err != nil {
		return err
	}
	s.main = s.newProcess("", &j.Process)
	s.main.feedOnce = r.StdinOnce
	if s.main.log, err = openLog(s, r.Log); err != nil {
		return err
	}
	s.ownPids = slices.ContainsFunc(j.Namespaces, func(n job.Namespace) bool {
		return n.Type == unix.CLONE_NEWPID && n.Path == ""
	})
	if len(r.Runtime) > 0 {
		s.runtime, err = s.newForeign(r, j)
	} else {
		s.runtime, err = s.newOwn(j, r.Restore)
	}
	if err != nil {
		return err
	}
	want := protocol.Streams{Stdin: r.OpenStdin, Stdout: true, Stderr: true}
	if err := s.main.prepare(want, s.runtime.create); err != nil {
		return err
	}
	return s.listen()
}

func (s *server) undo() {
	if s.main != nil && s.main.task != nil {
		s.reaper.signal(s.main.task.Pid(), unix.SIGKILL)
		<-s.main.done
		return // which cleans up
	}
	if s.main != nil {
		s.main.closeFiles()
	}
	s.cleanUp()
}

// listen makes the socket in the run directory, by a descriptor of the
// directory because a socket's path may have 107 bytes only (unix(7)).
func (s *server) listen() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(s.dir, socketFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	s.lock = os.NewFile(uintptr(fd), socketFile)
	unix.Umask(0o177)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile)})
	unix.Umask(0)
	if err != nil {
		return fmt.Errorf("bind %s/%s: %w", s.dir, socketFile, err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		return os.NewSyscallError("listen", err)
	}
	raw, err := s.lock.SyscallConn()
	if err != nil {
		return err
	}
	go s.accept(raw)
	return nil
}

// accept ends when the listening socket is closed.
func (s *server) accept(raw syscall.RawConn) {
	for {
		fd := -1
		err := raw.Read(func(l uintptr) bool {
			var err error
			fd, _, err = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return err == nil || err != unix.EAGAIN
		})
		if err != nil {
			return
		}
		if fd < 0 { // the client has gone, or there are no descriptors
			time.Sleep(time.Millisecond)
			continue
		}
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
			unix.Close(fd)
			continue
		}
		if c, err := newConn(fd); err == nil {
			go s.welcome(c)
		}
	}
}

// greetWithin is how long a new connection may be silent.
const greetWithin = 10 * time.Second

// welcome serves one connection to its end.
func (s *server) welcome(c *conn) {
	c.f.SetReadDeadline(time.Now().Add(greetWithin))
	given := rights{c: c}
	defer func() { given.close() }()
	_, _, payload, err := protocol.ReadFrame(&given)
	if err != nil {
		c.close()
		return
	}
	c.f.SetReadDeadline(time.Time{})
	g, err := protocol.DecodeGreeting(payload)
	switch {
	case err == nil && g.Kind == protocol.Keep:
		keep(s, given.take())
		protocol.WriteFrame(c.f, 0, protocol.OpAnswer, nil)
		c.close()
		return
	case err == nil && g.Kind == protocol.Kept:
		giveKept(s, c)
		c.close()
		return
	case err == nil && g.Kind == protocol.Control:
		k := s.newControl(c)
		k.send(0, protocol.OpAnswer, protocol.Hello{Pid: s.main.task.Pid()}.Encode())
		if f := s.trouble.now(); f != "" {
			k.send(0, protocol.OpFact, []byte(f))
		}
		k.serve()
		return
	case err == nil && g.Kind == protocol.Stream:
		var p *process
		if p, err = s.find(g.Target); err == nil {
			p.attach(c, g.Streams)
			return
		}
	case err == nil:
		err = errs.New(errs.Invalid, "a connection to the shim of no known kind")
	}
	protocol.WriteFrame(c.f, 0, protocol.OpFail, protocol.AppendError(nil, err))
	c.close()
}

// find returns the process with an exec's ID, or the first one for "".
func (s *server) find(target string) (*process, error) {
	if target == "" {
		return s.main, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.execs[target]; p != nil {
		return p, nil
	}
	return nil, errs.New(errs.NotFound, "No such exec instance: %s", target)
}

// mainExited is called once, when the first process has ended and its output
// has been read; not for one that has never been started.
func (s *server) mainExited(e protocol.Exit) {
	if err := protocol.WriteExit(s.dir, e); err != nil {
		fmt.Fprintln(os.Stderr, "write exit record:", err)
	}
}

// cleanUp removes what outlives the container's processes.
func (s *server) cleanUp() {
	keep(s, nil)
	if s.runtime != nil {
		s.runtime.remove()
	}
	if s.group != nil {
		s.group.Remove()
	}
}

// settle decides whether the shim is still needed. It is called when the
// container has ended and when the number of clients has changed.
func (s *server) settle() {
	started, exited := s.main.status()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lonely != nil {
		s.lonely.Stop()
		s.lonely = nil
	}
	if len(s.ctls) > 0 {
		return
	}
	switch {
	case exited && !started:
		s.endLocked()
	case exited:
		s.lonely = time.AfterFunc(lonelyAfterExit, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.ctls) == 0 {
				s.endLocked()
			}
		})
	case !started:
		// The daemon has died between Create and Start, or has thought
		// better of it. Nobody would find this container.
		s.reaper.signal(s.main.task.Pid(), unix.SIGKILL)
	}
}

// endLocked stops listening and lets Main return. Clients that have not yet
// read all output keep the process up until they have.
func (s *server) endLocked() {
	if s.stopping {
		return
	}
	s.stopping = true
	s.closeSocket()
	close(s.ended)
}

// closeSocket lets nobody in any more. It may be called twice.
func (s *server) closeSocket() {
	os.Remove(filepath.Join(s.dir, socketFile))
	if s.lock != nil {
		s.lock.Close()
	}
}

// shutdown is the call of that name.
func (s *server) shutdown() error {
	started, exited := s.main.status()
	if started && !exited {
		return errs.New(errs.Conflict, "container %s is running", s.id)
	}
	if !exited {
		s.reaper.signal(s.main.task.Pid(), unix.SIGKILL)
	}
	<-s.main.done
	s.closeSocket()
	return nil
}
