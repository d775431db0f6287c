// Package relay passes connections and datagrams from sockets of the host to
// containers, where the packet rules can't: for ::1 and link-local addresses,
// from IPv6 to a container that has IPv4 only, and for ports that obey the
// host's own filters.
//
// The bridge driver calls it. Connections are moved by splice(2) inside the
// daemon: no process per port, one goroutine per listening socket and two per
// connection. They end with the daemon; the packet rules' do not. It must not
// know of networks or containers.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// A Port is a bound socket and where what comes to it goes.
type Port struct {
	UDP  bool
	Host netip.AddrPort
	To   netip.AddrPort
}

// Sockets gives a copy of the bound socket of a port.
type Sockets func(Port) (*os.File, error)

// A Relay serves ports. It is safe for concurrent use.
type Relay struct {
	sockets Sockets
	ctx     context.Context

	mu     sync.Mutex
	served map[socket]*service
	closed bool
}

// socket names the host's end of a port.
type socket struct {
	udp  bool
	host netip.AddrPort
}

func (p Port) socket() socket { return socket{p.UDP, p.Host} }

type service struct {
	to   netip.AddrPort
	stop func() // ends it with all its connections and waits
}

// New returns a relay that serves nothing yet. It lives until Close, whatever
// becomes of ctx.
func New(ctx context.Context, s Sockets) *Relay {
	return &Relay{sockets: s, ctx: context.WithoutCancel(ctx), served: map[socket]*service{}}
}

// Serve begins to serve ports. Those that it serves already go on; one that led
// elsewhere is led anew. If it fails none of those that were new is served.
func (r *Relay) Serve(ports []Port) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.New("the relay is closed")
	}
	var fresh []Port
	for _, p := range ports {
		if s := r.served[p.socket()]; s != nil {
			if s.to == p.To {
				continue
			}
			r.stop([]Port{{p.UDP, p.Host, s.to}})
		}
		s, err := r.start(p)
		if err != nil {
			r.stop(fresh)
			return fmt.Errorf("serve %s: %w", p.Host, err)
		}
		s.to = p.To
		r.served[p.socket()] = s
		fresh = append(fresh, p)
	}
	return nil
}

// Stop ends ports and their connections. One that is not served, or leads
// elsewhere by now, is no error.
func (r *Relay) Stop(ports []Port) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop(ports)
}

func (r *Relay) stop(ports []Port) {
	for _, p := range ports {
		if s := r.served[p.socket()]; s != nil && s.to == p.To {
			delete(r.served, p.socket())
			s.stop()
		}
	}
}

// Close ends everything.
func (r *Relay) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for p, s := range r.served {
		delete(r.served, p)
		s.stop()
	}
}

func (r *Relay) start(p Port) (*service, error) {
	f, err := r.sockets(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if p.UDP {
		return startUDP(f, p)
	}
	l, err := listen(f)
	if err != nil {
		return nil, err
	}
	t := &tcp{to: p.To.String(), listener: l, open: map[net.Conn]bool{}}
	t.ctx, t.cancel = context.WithCancel(r.ctx)
	t.tasks.Go(t.accept)
	return &service{stop: t.stop}, nil
}

// tcp serves one listening socket.
type tcp struct {
	to       string
	listener net.Listener
	tasks    sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc

	mu   sync.Mutex
	open map[net.Conn]bool // nil once stopped
}

func (t *tcp) stop() {
	t.cancel()
	unlisten(t.listener)
	t.mu.Lock()
	for c := range t.open {
		c.Close()
	}
	t.open = nil
	t.mu.Unlock()
	t.tasks.Wait()
}

// keep remembers a connection, so that stop ends it; false if it is too late.
func (t *tcp) keep(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		c.Close()
		return false
	}
	t.open[c] = true
	return true
}

func (t *tcp) drop(c net.Conn) {
	c.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

func (t *tcp) accept() {
	for {
		c, err := t.listener.Accept()
		if t.ctx.Err() != nil {
			if c != nil {
				c.Close()
			}
			return
		}
		if err != nil { // out of descriptors: clients wait in the queue
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-t.ctx.Done():
				return
			}
		}
		if t.keep(c) {
			t.tasks.Go(func() { t.serve(c) })
		}
	}
}

// patience is how long a container may take to accept.
const patience = 30 * time.Second

func (t *tcp) serve(c net.Conn) {
	defer t.drop(c)
	d := net.Dialer{Timeout: patience}
	to, err := d.DialContext(t.ctx, "tcp", t.to)
	if err != nil {
		// What the client would see without us: a reset, not an orderly end.
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.SetLinger(0)
		}
		return
	}
	if !t.keep(to) {
		return
	}
	defer t.drop(to)
	var both sync.WaitGroup
	both.Go(func() { pass(to, c) })
	both.Go(func() { pass(c, to) })
	both.Wait()
}

// pass copies until the end of from, which it passes on; after an error both
// are of no use any more.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err != nil {
		to.Close()
		from.Close()
		return
	}
	if c, ok := to.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
}
