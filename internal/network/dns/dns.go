// Package dns answers containers' questions for names: those of the networks
// they are on from memory, all others from name servers elsewhere.
//
// Package network calls it: it gives a container's sockets, says which names
// there are and what a container sees of them (View). The package owns the
// sockets while it serves on them, and a bounded cache; it writes nothing to
// the disk. It must not know of records, drivers, or how a name server is
// chosen. Sources of the formats: RFC 1035, 2308 (negative answers), 6891
// (EDNS), 7766 (TCP).
//
//	container          site (one each)            elsewhere
//	UDP 127.0.0.11 --> read, parse --> names? ---> answer
//	TCP 127.0.0.11       |               | no
//	                     |               v
//	                     |             cache? ---> answer
//	                     |               | no
//	                     +-- bounded --> exchange with name servers, raced
//
// A name of a network is answered by the goroutine that read the question;
// readers take no lock. Everything slower has a goroutine of its own, and each
// container may have so many of those and no more.
package dns

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Upstream is a name server elsewhere.
type Upstream struct {
	Addr netip.AddrPort
	// Host: it is asked from the host's network namespace instead of the
	// container's, as loopback addresses of the host's own configuration are.
	Host bool
}

// View is what one container sees. It is never changed once it is in use.
type View struct {
	Scopes []Scope
	// Upstreams are asked for what no scope knows; nil: nobody is, as in
	// internal networks.
	Upstreams func() []Upstream
	// Dotted: only names with a dot are asked elsewhere, since the container's
	// resolver was told explicitly how many dots a complete name has (ndots).
	Dotted bool
}

// Scope is a network that a container is on.
type Scope struct {
	Zone *Zone
	// Links are names that this container alone has for others on the network,
	// each with one of those' own names. Both are in lower case.
	Links map[string]string
}

// Options are how a Server reaches beyond itself.
type Options struct {
	// Inside runs fn on a thread that is in the network namespace of a socket.
	Inside func(socket syscall.RawConn, fn func() error) error
	// Limits, by their defaults if zero.
	Forwards  int // questions of one container that wait for others' answers; 128
	Conns     int // TCP connections of one container; 32
	CacheSize int // bytes of others' answers that are kept; 2 MiB
}

// A Server serves all containers of a daemon. It is safe for concurrent use.
type Server struct {
	ctx      context.Context
	o        Options
	forwards atomic.Int32
	cache    *cache // of answers that came by way of the host's namespace
	sick     sickList

	mu    sync.Mutex
	zones map[string]*Zone
	sites map[string]*site
}

// maxForwards is how many questions of all containers wait for others' answers:
// each has a descriptor.
const maxForwards = 2048

// New returns a server of nobody. It serves until ctx ends or it is closed.
func New(ctx context.Context, o Options) *Server {
	if o.Forwards == 0 {
		o.Forwards = 128
	}
	if o.Conns == 0 {
		o.Conns = 32
	}
	if o.CacheSize == 0 {
		o.CacheSize = 2 << 20
	}
	return &Server{ctx: ctx, o: o, cache: newCache(o.CacheSize), zones: map[string]*Zone{}, sites: map[string]*site{}}
}

// Zone returns the names on the network called name, of which id is the ID.
func (s *Server) Zone(id, name string) *Zone {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := s.zones[id]
	if z == nil {
		z = newZone(name)
		s.zones[id] = z
	}
	return z
}

// DropZone forgets a network that nobody is on any more.
func (s *Server) DropZone(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.zones, id)
}

// Sockets are where a container sends its questions: a datagram socket and a
// listening stream socket, both non-blocking. The server takes them over.
type Sockets struct{ UDP, TCP *os.File }

// Close closes both.
func (s Sockets) Close() error { return errors.Join(s.UDP.Close(), s.TCP.Close()) }

// Serve answers what comes in on the sockets of the container id, and what has
// been waiting there. It serves until Stop or Close; one that is served already
// gets other sockets.
func (s *Server) Serve(id string, sockets Sockets, v *View) error {
	at, err := newSite(s, sockets)
	if err != nil {
		return errors.Join(err, sockets.Close())
	}
	at.view.Store(v)
	s.mu.Lock()
	old := s.sites[id]
	s.sites[id] = at
	s.mu.Unlock()
	if old != nil {
		old.stop()
	}
	at.start()
	return nil
}

// Serves reports whether the container id has sockets here.
func (s *Server) Serves(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sites[id] != nil
}

// See changes what a container sees. One that is not served is left alone.
func (s *Server) See(id string, v *View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.sites[id]; at != nil {
		at.view.Store(v)
	}
}

// Stop closes a container's sockets. When it returns nothing here refers to its
// namespace any more.
func (s *Server) Stop(id string) {
	s.mu.Lock()
	at := s.sites[id]
	delete(s.sites, id)
	s.mu.Unlock()
	if at != nil {
		at.stop()
	}
}

// Close stops all.
func (s *Server) Close() {
	s.mu.Lock()
	all := s.sites
	s.sites = map[string]*site{}
	s.mu.Unlock()
	for _, at := range all {
		at.stop()
	}
}

// sickList remembers which name servers have failed lately: those are asked
// after the others.
type sickList struct{ m sync.Map } // Upstream -> *atomic.Int64, nanoseconds

const sickTime = 15 * time.Second

func (l *sickList) note(u Upstream) {
	v, _ := l.m.LoadOrStore(u, new(atomic.Int64))
	v.(*atomic.Int64).Store(time.Now().UnixNano())
}

func (l *sickList) clear(u Upstream) { l.m.Delete(u) }

func (l *sickList) has(u Upstream) bool {
	v, ok := l.m.Load(u)
	return ok && time.Since(time.Unix(0, v.(*atomic.Int64).Load())) < sickTime
}

// order returns the upstreams, healthy ones first.
func (l *sickList) order(us []Upstream) []Upstream {
	out := make([]Upstream, 0, len(us))
	var last []Upstream
	for _, u := range us {
		if l.has(u) {
			last = append(last, u)
		} else {
			out = append(out, u)
		}
	}
	return append(out, last...)
}
