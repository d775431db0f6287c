package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects to an address as a process in the namespace would. A socket
// belongs to the namespace that its maker's thread is in at that moment: the
// thread visits it for the one call, and the rest is the poller's work.
func dial(ctx context.Context, netns string, to netip.AddrPort) (net.Conn, error) {
	family := unix.AF_INET6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if a := to.Addr().Unmap(); a.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	}
	fd, err := socketIn(netns, family)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", to, err)
	}
	err = unix.Connect(fd, sa)
	f := os.NewFile(uintptr(fd), "probe") // non-blocking: the poller takes it
	defer f.Close()
	if err == unix.EINPROGRESS {
		err = finish(ctx, f)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("dial %s: %w", to, err)
	}
	return net.FileConn(f)
}

// finish waits for the end of a connect(2) that goes on.
func finish(ctx context.Context, f *os.File) error {
	defer context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		// Ready means writable: an error of the connection is in SO_ERROR, and
		// a peer says that there is one.
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			failed = err
		case n != 0:
			failed = unix.Errno(n)
		default:
			if _, err := unix.Getpeername(int(fd)); err == unix.ENOTCONN {
				return false
			}
		}
		return true
	})
	if failed != nil {
		return failed
	}
	return err
}

// socketIn makes a socket in a namespace. If the thread can't return it ends with
// its goroutine, instead of serving others from the wrong place.
func socketIn(netns string, family int) (int, error) {
	type made struct {
		fd  int
		err error
	}
	done := make(chan made, 1)
	go func() {
		fd, err := visit(netns, family)
		done <- made{fd, err}
	}()
	m := <-done
	return m.fd, m.err
}

// visit makes the socket on the goroutine's own thread, which stays locked to it
// unless it is back where it came from.
func visit(netns string, family int) (int, error) {
	there, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("the container's network: %w", err)
	}
	defer unix.Close(there)
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return -1, err
	}
	defer unix.Close(home)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return -1, fmt.Errorf("enter the container's network: %w", err)
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if back := unix.Setns(home, unix.CLONE_NEWNET); back == nil {
		runtime.UnlockOSThread()
	}
	return fd, err
}
