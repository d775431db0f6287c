package listen

import (
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// A Kept is a listener that can be handed to another program: it stops taking
// connections without closing, so that clients queue in the kernel, and gives
// up its idle connections unclosed, so that no client sees the end of one at
// the moment when it sends the next request.
type Kept struct {
	net.Listener
	file func() (*os.File, error)

	mu     sync.Mutex
	taking bool
	conns  map[*keptConn]struct{}
	early  []net.Conn // handed over by the program before
	handed []*os.File
}

// keep wraps a listener of a kind that has a descriptor.
func keep(l net.Listener, early []net.Conn) *Kept {
	k := &Kept{Listener: l, conns: map[*keptConn]struct{}{}, early: early}
	if f, ok := l.(interface{ File() (*os.File, error) }); ok {
		k.file = f.File
	}
	return k
}

// Accept returns the next connection.
func (k *Kept) Accept() (net.Conn, error) {
	k.mu.Lock()
	taking := k.taking
	var c net.Conn
	if !taking && len(k.early) > 0 {
		c, k.early = k.early[0], k.early[1:]
	}
	k.mu.Unlock()
	if taking {
		return nil, http.ErrServerClosed
	}
	if c == nil {
		var err error
		if c, err = k.Listener.Accept(); err != nil {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.taking {
				err = http.ErrServerClosed
			}
			return nil, err
		}
	}
	kc := &keptConn{Conn: c, of: k}
	k.mu.Lock()
	k.conns[kc] = struct{}{}
	k.mu.Unlock()
	return kc, nil
}

// Close closes the listener, unless it is being handed over.
func (k *Kept) Close() error {
	k.mu.Lock()
	taking := k.taking
	k.mu.Unlock()
	if taking {
		return nil
	}
	return k.Listener.Close()
}

// Take stops taking connections and requests. Connections are handed over as
// they become idle.
func (k *Kept) Take() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.taking = true
	if d, ok := k.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(time.Unix(1, 0))
	}
	for c := range k.conns {
		if c.idle {
			_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// Files returns the descriptors to hand over: the listener's and those of idle
// connections.
func (k *Kept) Files() (listener *os.File, conns []*os.File, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.early {
		if f, ok := c.(interface{ File() (*os.File, error) }); ok {
			if file, err := f.File(); err == nil {
				k.handed = append(k.handed, file)
			}
		}
	}
	k.early = nil
	listener, err = k.file()
	return listener, k.handed, err
}

// A keptConn is a connection that knows whether it is between two requests.
type keptConn struct {
	net.Conn
	of *Kept

	// Guarded by of.mu.
	idle  bool
	ahead bool // a byte of the next request has been read
}

// Idle is told that no request is being served.
func (c *keptConn) Idle() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.idle = !c.ahead
}

// Busy is told that one is.
func (c *keptConn) Busy() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.idle, c.ahead = false, false
}

// Read reads, but no further request once the listener is taken.
func (c *keptConn) Read(p []byte) (int, error) {
	c.of.mu.Lock()
	stop := c.of.taking && c.idle
	c.of.mu.Unlock()
	if stop {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.of.mu.Lock()
		if c.of.taking && c.idle {
			// It was not idle any more when it was cut off: the rest of this
			// request is still to be read.
			_ = c.Conn.SetReadDeadline(time.Time{})
		}
		// The server reads one byte ahead while it answers.
		c.ahead = c.ahead || len(p) == 1 && !c.idle
		c.idle = false
		c.of.mu.Unlock()
	}
	return n, err
}

// Close closes the connection, or hands it over.
func (c *keptConn) Close() error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if _, there := c.of.conns[c]; there && c.of.taking && c.idle {
		if f, ok := c.Conn.(interface{ File() (*os.File, error) }); ok {
			if file, err := f.File(); err == nil {
				c.of.handed = append(c.of.handed, file)
			}
		}
	}
	delete(c.of.conns, c)
	return c.Conn.Close()
}

// Release returns the connection itself, which has left HTTP.
func (c *keptConn) Release() net.Conn {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	delete(c.of.conns, c)
	return c.Conn
}

// ReadFrom lets the kernel copy where it can.
func (c *keptConn) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := c.Conn.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

// CloseWrite ends the bytes to the client.
func (c *keptConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// SyscallConn gives access to the descriptor.
func (c *keptConn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, syscall.ENOTSUP
}

// restore makes a listener of a descriptor that was handed over.
func restore(listener *os.File, conns []*os.File) (net.Listener, []net.Conn, error) {
	l, err := net.FileListener(listener)
	listener.Close()
	if err != nil {
		return nil, nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	var early []net.Conn
	for _, f := range conns {
		if c, err := net.FileConn(f); err == nil {
			early = append(early, c)
		}
		f.Close()
	}
	return l, early, nil
}
