package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/shim/protocol"
)

// SuperviseArg is the first argument of a program that shall be a shim; the
// socket to its launcher is descriptor 3. Its argument 2 is the container's ID,
// for people who look at the list of processes.
const SuperviseArg = protocol.SuperviseArg

// A Launcher starts shims from one sealed copy of their program in memory, so
// that no container can reach and change what the next one is started from, and
// an upgrade on disk changes nothing for a running daemon.
type Launcher struct {
	image *os.File

	mu       sync.Mutex
	closed   bool
	pidfds   map[*os.File]struct{} // of the shims that have not ended
	children sync.WaitGroup        // a goroutine for each of them
}

// NewLauncher copies the shim's program into a sealed memfd (memfd_create(2)).
func NewLauncher(program []byte) (*Launcher, error) {
	const name = "gantry-shim"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("shim program in memory: %w", err)
	}
	// A shim is executed through this descriptor's name, at which none of those
	// that it is given may be by then.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 10)
	unix.Close(fd)
	if err != nil {
		return nil, fmt.Errorf("shim program in memory: %w", err)
	}
	image := os.NewFile(uintptr(high), name)
	if _, err = image.Write(program); err == nil {
		_, err = unix.FcntlInt(uintptr(high), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		image.Close()
		return nil, fmt.Errorf("shim program in memory: %w", err)
	}
	return &Launcher{image: image, pidfds: map[*os.File]struct{}{}}, nil
}

// Create starts a shim and returns when the container's first process is
// prepared and blocked before its program runs. On error, and if ctx ends
// before, nothing of the container is left: the shim undoes what it has done
// and ends before Create returns.
func (l *Launcher) Create(ctx context.Context, r Request) (Client, error) {
	n, err := l.Spawn(r.ID)
	if err != nil {
		return nil, err
	}
	return n.Create(ctx, r)
}

// A Nascent is a shim that has been started and waits to be told what for.
type Nascent struct {
	conn  *net.UnixConn
	ended <-chan struct{} // closed once the process has been reaped; nil if nobody knows
}

// Spawn starts the shim of a container before all is known about it: its program
// takes 2 ms to begin, in which the caller can do other things. Either Create or
// Close must follow.
func (l *Launcher) Spawn(id string) (*Nascent, error) {
	n, err := l.spawn(id)
	if err != nil {
		return nil, fmt.Errorf("start shim of container %s: %w", id, err)
	}
	return n, nil
}

// Close ends the shim, which has done nothing.
func (n *Nascent) Close() { n.conn.Close() }

// Create is the Launcher's Create. The Nascent must not be used after it.
func (n *Nascent) Create(ctx context.Context, r Request) (Client, error) {
	wire := (&protocol.Request{
		ID: r.ID, Dir: r.Dir, Job: r.Job.Encode(), Log: r.Log, OpenStdin: r.OpenStdin,
		StdinOnce: r.StdinOnce, Runtime: r.Runtime, Bundle: r.Bundle, Restore: r.Restore,
	}).Encode()
	conn := n.conn
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	err := send(conn, wire, r.Keep)
	var hello protocol.Hello
	if err == nil {
		hello, err = welcomed(conn)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close() // tells a shim that is still at it to undo
		n.awaitEnd()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return newClient(conn, r.Dir, hello), nil
}

// undoWait bounds how long a shim may take to undo what it has done.
const undoWait = 10 * time.Second

// awaitEnd waits for the end of a shim that has been told to undo: until then it
// removes what another shim of the same container would make.
func (n *Nascent) awaitEnd() {
	if n.ended == nil {
		return
	}
	select {
	case <-n.ended:
	case <-time.After(undoWait):
	}
}

// greet sends the first message on a control connection and reads the answer.
func greet(conn *net.UnixConn, message []byte) (protocol.Hello, error) {
	if err := protocol.WriteFrame(conn, 0, 0, message); err != nil {
		return protocol.Hello{}, gone(err)
	}
	return welcomed(conn)
}

// welcomed reads the answer to the first message.
func welcomed(conn *net.UnixConn) (protocol.Hello, error) {
	_, op, payload, err := protocol.ReadFrame(conn)
	if err != nil {
		return protocol.Hello{}, gone(err)
	}
	if op == protocol.OpFail {
		return protocol.Hello{}, protocol.NewReader(payload).Error()
	}
	return protocol.DecodeHello(payload)
}

// gone is the error of a conversation that the shim does not take part in.
func gone(err error) error {
	return errs.New(errs.Unavailable, "the container's shim has gone: %w", err)
}

// spawn executes the program with one end of a socket pair and returns the
// other.
func (l *Launcher) spawn(id string) (*Nascent, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errs.New(errs.Unavailable, "the launcher of shims is closed")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[1])
	conn, err := fileConn(pair[0])
	if err != nil {
		return nil, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer unix.Close(null)
	pidfd := -1
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(int(l.image.Fd())), []string{"gantry-shim", SuperviseArg, id}, &syscall.ProcAttr{
		Dir: "/",
		// The Go runtime reads these before anything else runs: one
		// processor, a collection at 2 MB instead of 4, no look at cgroup
		// limits, no table for a memory profile, and no huge pages where
		// the host gives them unasked: the heap is less than one.
		Env:   []string{"GOMAXPROCS=1", "GOGC=50", "GODEBUG=containermaxprocs=0,updatemaxprocs=0,memprofilerate=0,disablethp=1"},
		Files: []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(pair[1])},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	n := &Nascent{conn: conn}
	if pidfd >= 0 { // else there is nothing to wait with: before Linux 5.4
		unix.SetNonblock(pidfd, true)
		f, ended := os.NewFile(uintptr(pidfd), "pidfd"), make(chan struct{})
		l.pidfds[f] = struct{}{}
		n.ended = ended
		l.children.Go(func() {
			defer close(ended)
			l.reap(pid, f)
		})
	}
	return n, nil
}

// fileConn makes a connection of a descriptor that it takes over.
func fileConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "shim")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("socket pair is a %T", c)
	}
	return u, nil
}

// reap waits for a shim to end without holding a thread for it: a pidfd is
// readable when its process is a zombie (pidfd_open(2)).
func (l *Launcher) reap(pid int, f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Read(func(uintptr) bool {
			var st syscall.WaitStatus
			got, err := syscall.Wait4(pid, &st, syscall.WNOHANG, nil)
			return got == pid || err != nil && err != syscall.EINTR
		})
	}
	l.mu.Lock()
	delete(l.pidfds, f)
	l.mu.Unlock()
	f.Close()
}

// Close frees the program and stops reaping: shims that still run are left to
// the init process. They and their containers go on.
func (l *Launcher) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for f := range l.pidfds {
		f.SetReadDeadline(time.Unix(1, 0))
	}
	l.mu.Unlock()
	l.children.Wait()
	return l.image.Close()
}

// Dial connects to the shim whose run directory is dir, after a restart of the
// daemon or as a further client. If nobody listens there the error is
// errs.Unavailable; ReadExit then tells how the container ended.
func Dial(ctx context.Context, dir string) (Client, error) {
	conn, err := connect(ctx, dir)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	hello, err := greet(conn, protocol.Greeting{Kind: protocol.Control}.Encode())
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return newClient(conn, dir, hello), nil
}

// connect opens a connection to a shim's socket by way of a descriptor of its
// directory, since a socket's path may have 107 bytes only (unix(7)).
func connect(ctx context.Context, dir string) (*net.UnixConn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, gone(err)
	}
	defer d.Close()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), SocketFile))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, gone(err)
	}
	return conn.(*net.UnixConn), nil
}
