package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listeners opens a datagram socket and a listening stream socket at an IPv4
// address in the namespace of the calling thread. Both are non-blocking, keep
// the namespace alive, and queue what comes until someone reads.
func Listeners(at netip.AddrPort) (udp, tcp *os.File, err error) {
	if udp, err = bound(unix.SOCK_DGRAM, at); err != nil {
		return nil, nil, err
	}
	if tcp, err = bound(unix.SOCK_STREAM, at); err != nil {
		udp.Close()
		return nil, nil, err
	}
	return udp, tcp, nil
}

// backlog is how many connections wait to be accepted.
const backlog = 128

func bound(kind int, at netip.AddrPort) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if kind == unix.SOCK_STREAM { // connections of before do not hinder (tcp(7))
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen at %s: %w", at, err)
	}
	return os.NewFile(uintptr(fd), at.String()), nil
}

// Inside runs fn on a thread that is in the network namespace of a socket. fn
// must not start goroutines that rely on it.
func Inside(socket syscall.RawConn, fn func() error) error {
	ns, err := -1, error(nil)
	if e := socket.Control(func(fd uintptr) { ns, err = unix.IoctlRetInt(int(fd), unix.SIOCGSKNS) }); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("network namespace of a socket: %w", err)
	}
	defer unix.Close(ns)
	return onThread(func() error {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// Taken reports whether an error says that an address is in use already.
func Taken(err error) bool { return errors.Is(err, unix.EADDRINUSE) }
