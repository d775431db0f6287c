// Package listen opens the sockets that a daemon serves its API on: unix
// sockets of any path length, TCP with or without TLS, and sockets inherited
// from systemd. It also tells systemd how the daemon is.
//
// The daemon's wiring calls it once at start. It creates and removes socket
// files, and must not know what is served.
package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Options says how to listen.
type Options struct {
	Group string      // of unix sockets; if it does not exist, root alone may connect
	Mode  fs.FileMode // of unix sockets; 0660 if 0
	TLS   *tls.Config
	// Inherited are the sockets that systemd passed (see Inherited).
	Inherited []net.Listener
	// Keep is given each listener, so that it can be handed over; nil for no
	// interest.
	Keep func(*Kept)
	// Handed is, instead of a new socket, one that another program handed
	// over, with connections; nil for a new one.
	Handed *os.File
	Conns  []*os.File
}

// Open opens the sockets that host (unix://path, tcp://address, fd://name)
// stands for.
func Open(ctx context.Context, host string, o Options) ([]net.Listener, error) {
	proto, addr, _ := strings.Cut(host, "://")
	var all []net.Listener
	var early []net.Conn
	var l net.Listener
	var err error
	switch {
	case o.Handed != nil:
		if l, early, err = restore(o.Handed, o.Conns); err == nil && proto == "unix" {
			l, err = named(l, addr)
		}
	case proto == "unix":
		l, err = openUnix(ctx, addr, o)
	case proto == "tcp":
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	case proto == "fd":
		if all, err = pick(o.Inherited, addr); err != nil {
			return nil, err
		}
	default:
		err = errs.New(errs.Invalid, "unknown protocol %q", proto)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", host, err)
	}
	if l != nil {
		all = append(all, l)
	}
	for i, l := range all {
		k := keep(l, early)
		if o.Keep != nil {
			o.Keep(k)
		}
		all[i] = k
		if proto == "tcp" && o.TLS != nil {
			all[i] = tls.NewListener(k, o.TLS)
		}
	}
	return all, nil
}

// named gives a unix socket that was handed over its file again, to remove it
// at the end.
func named(l net.Listener, path string) (net.Listener, error) {
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("%s was handed over as a %T", path, l)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return unixSocket{ul, dir, filepath.Base(path)}, nil
}

// pick returns all inherited sockets, or the one with a descriptor's number.
func pick(all []net.Listener, addr string) ([]net.Listener, error) {
	if len(all) == 0 {
		return nil, errs.New(errs.Invalid, "listen on fd://%s: no sockets were passed by systemd (socket activation)", addr)
	}
	if addr == "" || addr == "*" {
		return append([]net.Listener{}, all...), nil
	}
	n, err := strconv.Atoi(addr)
	if err != nil || n < firstFD || n >= firstFD+len(all) {
		return nil, errs.New(errs.Invalid, "listen on fd://%s: no such socket was passed by systemd", addr)
	}
	return []net.Listener{all[n-firstFD]}, nil
}

// A unixSocket removes its file when it is closed.
type unixSocket struct {
	*net.UnixListener
	dir  *os.File
	name string
}

// Addr returns the address as a unix one, whatever its path.
func (u unixSocket) Addr() net.Addr {
	return &net.UnixAddr{Net: "unix", Name: filepath.Join(u.dir.Name(), u.name)}
}

// Close closes the socket and removes its file.
func (u unixSocket) Close() error {
	err := u.UnixListener.Close()
	if rm := unix.Unlinkat(int(u.dir.Fd()), u.name, 0); rm != nil && !errors.Is(rm, unix.ENOENT) && err == nil {
		err = rm
	}
	u.dir.Close()
	return err
}

// openUnix binds path through a descriptor of its directory, since a socket's
// address has room for 107 bytes (unix(7)). A socket file on which nobody
// listens is replaced; owned by root and the group.
func openUnix(ctx context.Context, path string, o Options) (net.Listener, error) {
	if strings.HasPrefix(path, "@") || !filepath.IsAbs(path) {
		// Abstract sockets have no permissions: row S20 of the threat model.
		return nil, errs.New(errs.Invalid, "%s is not an absolute path", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	short := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), name)
	l, err := bindUnix(ctx, short, path, o)
	if err != nil {
		dir.Close()
		return nil, err
	}
	return unixSocket{l, dir, name}, nil
}

func bindUnix(ctx context.Context, short, path string, o Options) (*net.UnixListener, error) {
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&fs.ModeSocket == 0 {
			return nil, errs.New(errs.Conflict, "%s exists and is no socket", path)
		}
		d := net.Dialer{Timeout: time.Second}
		if c, err := d.DialContext(ctx, "unix", short); err == nil {
			c.Close()
			return nil, errs.New(errs.Conflict, "another process listens there")
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// The mask is the process's; nothing else makes files yet.
	old := unix.Umask(0o177)
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", short)
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("a unix socket is a %T", l)
	}
	ul.SetUnlinkOnClose(false)
	gid := 0
	if g, err := user.LookupGroup(o.Group); err == nil {
		gid, _ = strconv.Atoi(g.Gid)
	} else if n, err := strconv.Atoi(o.Group); err == nil {
		gid = n
	}
	if err := os.Lchown(path, 0, gid); err != nil && os.Getuid() == 0 {
		ul.Close()
		return nil, err
	}
	if o.Mode == 0 {
		o.Mode = 0o660
	}
	if err := os.Chmod(path, o.Mode); err != nil {
		ul.Close()
		return nil, err
	}
	return ul, nil
}
