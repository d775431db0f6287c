// Package names lets the containers on a network find each other by name: it
// brings together what the books say of names, the sockets in containers'
// namespaces, and the server that answers there.
//
// Package network calls it whenever a sandbox changes. It writes nothing: names
// are on the books, and a container's sockets, which must outlive the daemon,
// are held by the container's supervisor besides (Keeper). What arrives at them
// while no daemon runs waits in the kernel. It must not know how links or
// addresses come about.
package names

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"gantry/internal/network/dns"
	"gantry/internal/network/hostfiles"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
	"gantry/internal/network/nat"
)

// Keeper holds files on behalf of a container until it has ended.
type Keeper interface {
	Keep(ctx context.Context, container string, files []*os.File) error
	// Kept returns copies of what is held, in order; none if nothing is.
	Kept(ctx context.Context, container string) ([]*os.File, error)
}

// Options are what Names works with.
type Options struct {
	Book   *ledger.Book
	Keeper Keeper // may be nil: then sockets end with the daemon
	// Host returns the host's name servers as others than the host reach them.
	Host func() []netip.Addr
}

// Names are those of one daemon's networks. It is safe for concurrent use;
// calls for one container come one at a time.
type Names struct {
	o      Options
	server *dns.Server
	host   hostServers

	mu    sync.Mutex
	zones map[string]map[string]*dns.Zone // where a container has names, by its ID and the networks'
	files map[string]dns.Sockets          // by container ID
}

// Address is where containers send their questions.
func Address() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 11}) }

const port = 53

// New returns names that nobody asks for yet. They are served until ctx ends or
// Close.
func New(ctx context.Context, o Options) *Names {
	n := &Names{o: o, zones: map[string]map[string]*dns.Zone{}, files: map[string]dns.Sockets{}}
	n.host.read = o.Host
	n.server = dns.New(ctx, dns.Options{Inside: kernel.Inside})
	return n
}

// Close stops serving. Sockets that a Keeper has go on to queue what comes.
func (n *Names) Close() { n.server.Close() }

// Wanted reports whether a sandbox has names served: that is so if it is on a
// network which a user made.
func (n *Names) Wanted(e *ledger.Entry) bool {
	return n.On(e.Endpoints)
}

// On reports whether one of the endpoints is on a network with names.
func (n *Names) On(endpoints []ledger.Endpoint) bool {
	return slices.ContainsFunc(endpoints, func(p ledger.Endpoint) bool {
		w, err := n.o.Book.Network(p.NetworkID)
		return err == nil && w.Named()
	})
}

// The ports at which containers' sockets really are: the first free one from
// behind goes. It is above what the kernel gives to clients and what programs are
// known to use. Port 53 itself must stay free for a program in the container
// that serves names on all addresses.
const lastBehind, tries = 65053, 64

// Listen opens a container's sockets in the namespace of the calling thread, and
// serves on them.
func (n *Names) Listen(e *ledger.Entry) error {
	s, err := listen()
	if err != nil {
		return fmt.Errorf("name server of container %s: %w", e.ID, err)
	}
	return n.serve(e, s)
}

// listen opens sockets in the namespace of the calling thread that get what is
// sent to port 53.
func listen() (s dns.Sockets, err error) {
	at := uint16(lastBehind)
	for range tries {
		if s.UDP, s.TCP, err = kernel.Listeners(netip.AddrPortFrom(Address(), at)); !kernel.Taken(err) {
			break
		}
		at--
	}
	if err != nil {
		return s, err
	}
	if err := nat.Redirect(netip.AddrPortFrom(Address(), port), at); err != nil {
		return dns.Sockets{}, errors.Join(err, s.Close())
	}
	return s, nil
}

func (n *Names) serve(e *ledger.Entry, s dns.Sockets) error {
	if err := n.server.Serve(e.ID, s, n.view(e)); err != nil {
		return err
	}
	n.mu.Lock()
	n.files[e.ID] = s
	n.mu.Unlock()
	return nil
}

// Files are a container's sockets, for its supervisor to hold; nil if it has
// none.
func (n *Names) Files(container string) []*os.File {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s, ok := n.files[container]; ok {
		return []*os.File{s.UDP, s.TCP}
	}
	return nil
}

// Sync makes what others find of a container, and what it sees, that which the
// books say. One that has come to a network of names while it runs gets sockets.
func (n *Names) Sync(ctx context.Context, container string) error {
	e := n.o.Book.Get(container)
	if e == nil || e.Retired || !e.Complete {
		n.Leave(container)
		return nil
	}
	n.publish(e)
	if n.server.Serves(e.ID) {
		n.server.See(e.ID, n.view(e))
		return nil
	}
	if !n.Wanted(e) {
		return nil
	}
	ns, err := kernel.OpenNamespace(e.Path)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := ns.Do(func() error { return n.Listen(e) }); err != nil {
		return err
	}
	if n.o.Keeper == nil {
		return nil
	}
	return n.o.Keeper.Keep(ctx, e.ID, n.Files(e.ID))
}

// publish puts a container's names into the zones of its networks, and takes
// them out of others.
func (n *Names) publish(e *ledger.Entry) {
	now := map[string]*dns.Zone{}
	for _, p := range e.Endpoints {
		w, err := n.o.Book.Network(p.NetworkID)
		if err != nil || !w.Named() {
			continue
		}
		z := n.server.Zone(w.ID, w.Name)
		now[w.ID] = z
		var addrs []netip.Addr
		for _, a := range []netip.Prefix{p.IPv4, p.IPv6} {
			if a.IsValid() {
				addrs = append(addrs, a.Addr())
			}
		}
		z.Set(e.ID, dns.Names{All: e.NamesOn(w.ID), Addrs: addrs})
	}
	n.exchange(e.ID, now)
}

// exchange notes the zones that a container has names in, and takes it out of
// those where it had some before.
func (n *Names) exchange(container string, now map[string]*dns.Zone) {
	n.mu.Lock()
	old := n.zones[container]
	if len(now) > 0 {
		n.zones[container] = now
	} else {
		delete(n.zones, container)
	}
	n.mu.Unlock()
	for id, z := range old {
		if now[id] == nil {
			z.Set(container, dns.Names{})
		}
	}
}

// Leave takes a container's names away and closes its sockets: its namespace can
// go. It may be called twice.
func (n *Names) Leave(container string) {
	n.exchange(container, nil)
	n.server.Stop(container)
	n.mu.Lock()
	delete(n.files, container)
	n.mu.Unlock()
}

// Forget drops what is left of a network that has been removed.
func (n *Names) Forget(networkID string) { n.server.DropZone(networkID) }

// view is what a container sees.
func (n *Names) view(e *ledger.Entry) *dns.View {
	v := &dns.View{Dotted: e.Naming.Dotted}
	out, six := false, false
	for _, p := range e.Endpoints {
		w, err := n.o.Book.Network(p.NetworkID)
		if err != nil {
			continue
		}
		out, six = out || !w.Internal, six || p.IPv6.IsValid()
		if w.Named() {
			v.Scopes = append(v.Scopes, dns.Scope{Zone: n.server.Zone(w.ID, w.Name), Links: links(e.Naming.Networks[w.ID].Links)})
		}
	}
	if out {
		v.Upstreams = n.upstreams(e.Naming.DNS, six)
	}
	return v
}

// links turns "container:alias" into what is looked up. Pure.
func links(list []string) map[string]string {
	var out map[string]string
	for _, l := range list {
		to, alias, ok := strings.Cut(strings.ToLower(l), ":")
		if !ok {
			alias = to
		}
		if len(to) == 64 { // an ID: known by its beginning
			to = to[:12]
		}
		if out == nil {
			out = map[string]string{}
		}
		out[alias] = to
	}
	return out
}

// upstreams are those of a container: the user's, from where the container is,
// or the host's as they are at the time of the question.
func (n *Names) upstreams(own []netip.Addr, six bool) func() []dns.Upstream {
	if len(own) > 0 {
		var list []dns.Upstream
		for _, a := range own {
			list = append(list, dns.Upstream{Addr: netip.AddrPortFrom(a, port)})
		}
		return func() []dns.Upstream { return list }
	}
	return func() []dns.Upstream {
		var list []dns.Upstream
		for _, a := range n.host.now() {
			list = append(list, dns.Upstream{Addr: netip.AddrPortFrom(a, port), Host: hostfiles.FromHost(a, six)})
		}
		return list
	}
}

// hostServers are the host's name servers, read again now and then.
type hostServers struct {
	read func() []netip.Addr

	mu   sync.Mutex
	at   time.Time
	list []netip.Addr
}

const fresh = 2 * time.Second

func (h *hostServers) now() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); h.at.IsZero() || now.Sub(h.at) > fresh {
		h.list, h.at = h.read(), now
	}
	return h.list
}

// adopters is how many containers are taken over at once.
const adopters = 8

// adoptWait bounds how long a supervisor may take to give what it holds.
const adoptWait = 2 * time.Second

// Adopt takes over the sandboxes of an earlier daemon: their names are known and
// their sockets served again, first with what came in the meantime. Where nobody
// has held the sockets there are new ones.
func (n *Names) Adopt(ctx context.Context) error {
	var all []*ledger.Entry
	for _, e := range n.o.Book.Entries() {
		n.publish(e)
		if n.Wanted(e) {
			all = append(all, e)
		}
	}
	slots := make(chan struct{}, adopters)
	failed := make([]error, len(all))
	var work sync.WaitGroup
	for i, e := range all {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			failed[i] = n.adopt(ctx, e)
		})
	}
	work.Wait()
	return errors.Join(failed...)
}

func (n *Names) adopt(ctx context.Context, e *ledger.Entry) error {
	if n.o.Keeper != nil {
		ctx, cancel := context.WithTimeout(ctx, adoptWait)
		files, err := n.o.Keeper.Kept(ctx, e.ID)
		cancel()
		if err == nil && len(files) == 2 {
			return n.serve(e, dns.Sockets{UDP: files[0], TCP: files[1]})
		}
		for _, f := range files {
			f.Close()
		}
	}
	if !kernel.IsNamespace(e.Path) {
		return nil // it ended with the machine
	}
	return n.Sync(ctx, e.ID)
}
