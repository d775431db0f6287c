package network

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/keyed"
	"gantry/internal/network/bridge"
	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
	"gantry/internal/network/remote"
	"gantry/internal/wire"
)

// stage is the side of the kernel: it makes what the books say, through the
// drivers, and remembers which networks it has raised.
type stage struct {
	host      *kernel.Host
	book      *ledger.Book
	bridge    *bridge.Driver
	drivers   map[string]driver.Driver // ours
	plugins   remote.Caller
	plugin    func(name string) *remote.Driver
	noForward bool
	mark      string // of links whose name does not tell whose they are

	raising keyed.Mutex[string] // work on one network at a time
	up      raised
}

// adopt raises the networks that sandboxes are on, and those whose links a
// daemon that was killed has left, so that they go when this one ends.
func (s *stage) adopt(ctx context.Context) error {
	for _, w := range s.book.Networks() {
		if _, users := s.book.On(w.ID); users > 0 && w.Linked() || s.left(w) {
			if err := s.raise(ctx, w.ID); err != nil {
				return err
			}
		}
	}
	return s.bridge.Tidy()
}

// left reports whether a link of ours is there for a network.
func (s *stage) left(w ledger.Record) bool {
	if w.Link == "" || w.Foreign || !w.Linked() {
		return false
	}
	_, err := s.host.Index(w.Link)
	return err == nil
}

// raise makes a network exist in the kernel, once.
func (s *stage) raise(ctx context.Context, id string) error {
	if s.up.has(id) {
		return nil
	}
	unlock, err := s.raising.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if s.up.has(id) {
		return nil
	}
	if s.up.hasEnded() {
		return errs.New(errs.Unavailable, "the daemon is shutting down")
	}
	w, err := s.book.Network(id)
	if err != nil {
		return err
	}
	release, err := s.host.Exclusive()
	if err != nil {
		return err
	}
	defer release()
	if w, err = s.relocate(w); err != nil {
		return err
	}
	if w.Driver == "bridge" {
		if err := s.startForwarding(w.Plan()); err != nil {
			return err
		}
	}
	adopted, _ := s.book.On(id)
	if err := s.named(w.Driver).Ensure(ctx, w.Plan(), adopted); err != nil {
		if len(adopted) == 0 {
			err = errors.Join(err, s.named(w.Driver).Remove(context.WithoutCancel(ctx), w.Plan()))
		}
		return err
	}
	s.up.add(id)
	return nil
}

// relocate gives a network that takes form now another subnet, if its own was
// not the user's wish and someone else has taken it since it was chosen: another
// daemon of this host, or a VPN.
func (s *stage) relocate(w ledger.Record) (ledger.Record, error) {
	if w.Driver != "bridge" || !w.Chosen {
		return w, nil
	}
	if _, err := s.host.Index(w.Link); err == nil {
		return w, nil
	}
	routes, err := s.host.Routes()
	if err != nil {
		return w, err
	}
	return s.book.Relocate(w.ID, routes)
}

// raiseFor raises the networks that a request names. What it can't find is left
// to whoever decides.
func (s *stage) raiseFor(ctx context.Context, r AttachRequest) error {
	refs := append(slices.Sorted(maps.Keys(r.Endpoints)), r.Mode)
	for _, ref := range refs {
		if w, err := s.book.Find(ref); err == nil && w.Linked() {
			if err := s.raise(ctx, w.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// lower takes a network off the kernel, if nobody uses it.
func (s *stage) lower(ctx context.Context, w ledger.Record) error {
	unlock, err := s.raising.Lock(ctx, w.ID)
	if err != nil {
		return err
	}
	defer unlock()
	// Whoever joins is on the books before it raises: it comes after us.
	if _, users := s.book.On(w.ID); users > 0 || !s.up.has(w.ID) {
		return nil
	}
	if err := s.named(w.Driver).Remove(ctx, w.Plan()); err != nil {
		return err
	}
	s.up.drop(w.ID)
	return nil
}

// fill makes the endpoints of a decided sandbox in its namespace.
func (s *stage) fill(ctx context.Context, ns *kernel.Namespace, e *ledger.Entry, r AttachRequest) error {
	told := map[string]driver.Joined{}
	for _, l := range e.Links {
		if err := s.join(ctx, ns, l, told); err != nil {
			return errors.Join(err, s.learn(ctx, ns, r, told)) // for whoever removes them
		}
	}
	if err := s.learn(ctx, ns, r, told); err != nil {
		return err
	}
	if e.Rate != (wire.NetRate{}) {
		if err := s.shape(ns, e.Links, e.Rate); err != nil {
			return err
		}
	}
	return applySysctls(ns, r.Sysctls)
}

// learn writes down what drivers have told, and sets the default routes by it.
func (s *stage) learn(ctx context.Context, ns *kernel.Namespace, r AttachRequest, told map[string]driver.Joined) error {
	if len(told) == 0 {
		return nil
	}
	c, err := ledger.Learn(s.book, r, told)
	if err != nil {
		return err
	}
	return s.move(ctx, ns, c.Moves)
}

// join makes one endpoint, raising its network if need be, and adds to told what
// its driver has to tell.
func (s *stage) join(ctx context.Context, ns *kernel.Namespace, l driver.Endpoint, told map[string]driver.Joined) error {
	w, err := s.book.Network(l.Network)
	if err != nil {
		return err
	}
	if err := s.raise(ctx, w.ID); err != nil {
		return err
	}
	d := s.named(w.Driver)
	t, ok := d.(driver.Teller)
	if !ok {
		return d.Join(ctx, ns, l)
	}
	j, err := t.JoinAndTell(ctx, ns, l)
	if err == nil {
		told[l.Network] = j
	}
	return err
}

func applySysctls(ns *kernel.Namespace, sysctls map[string]string) error {
	if len(sysctls) == 0 {
		return nil
	}
	return ns.Do(func() error {
		for _, k := range slices.Sorted(maps.Keys(sysctls)) {
			key := strings.ReplaceAll(k, ".", "/")
			if !strings.HasPrefix(filepath.Clean(key), "net/") {
				return errs.New(errs.Invalid, "sysctl %q is not of the network namespace", k)
			}
			if err := kernel.SetSysctl(key, sysctls[k]); err != nil {
				return errs.New(errs.Invalid, "sysctl %s: %w", k, err)
			}
		}
		return nil
	})
}

// leave makes a sandbox unreachable and lets go of its namespace. What is left
// of it, reap waits for.
func (s *stage) leave(ctx context.Context, e *ledger.Entry) error {
	var all []error
	for _, l := range e.Links {
		all = append(all, s.driver(l).Leave(ctx, l))
	}
	if e.HasNamespace() {
		all = append(all, kernel.RemoveNamespace(e.Path))
	}
	return errors.Join(all...)
}

// reap returns when nothing of a sandbox is in the kernel any more.
func (s *stage) reap(ctx context.Context, e *ledger.Entry) error {
	var all []error
	for _, l := range e.Links {
		all = append(all, s.driver(l).Reap(ctx, l))
		if e.Rate.Out != 0 && l.HostLink != "" {
			all = append(all, s.host.RemoveLink(ledger.QueueOf(l.HostLink)))
		}
	}
	return errors.Join(all...)
}

// quit removes one endpoint of a sandbox that lives on.
func (s *stage) quit(ctx context.Context, l driver.Endpoint) error {
	err := s.driver(l).Leave(ctx, l)
	if l.HostLink != "" {
		err = errors.Join(err, s.host.RemoveLink(l.HostLink), s.host.RemoveLink(ledger.QueueOf(l.HostLink)))
	}
	return err
}

// move brings endpoints that are there in line with their new default routes and
// published ports. What gives ports up goes before what gets them.
func (s *stage) move(ctx context.Context, ns *kernel.Namespace, moves []ledger.Move) error {
	for _, gives := range []bool{true, false} {
		for _, m := range moves {
			if gives != (len(m.From.Ports) > len(m.To.Ports)) || slices.Equal(m.From.Ports, m.To.Ports) {
				continue
			}
			if p, ok := s.driver(m.To).(driver.Publisher); ok {
				if err := p.Republish(ctx, m.From, m.To); err != nil {
					return err
				}
			}
		}
	}
	for _, m := range moves {
		for _, gw := range []struct{ from, to netip.Addr }{{m.From.Gateway, m.To.Gateway}, {m.From.Gateway6, m.To.Gateway6}} {
			if gw.to.IsValid() && gw.to != gw.from {
				if err := ns.Route(m.To.Interface, gw.to); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// driver returns who makes endpoints like l.
func (s *stage) driver(l driver.Endpoint) driver.Driver {
	if l.Driver == "" {
		return s.bridge
	}
	return s.named(l.Driver)
}

// links returns the bridges and the veth pairs of this daemon. A pair that is
// neither on the books nor on one of our bridges could be another daemon's.
func (s *stage) links() ([]Resource, error) {
	links, err := s.host.Links("")
	if err != nil {
		return nil, err
	}
	bridges, known, masters := s.bridges(), map[string]bool{}, map[int]bool{}
	for _, e := range s.book.Entries() {
		for _, l := range e.Links {
			known[l.HostLink] = true
		}
	}
	var out []Resource
	for _, l := range links {
		if name, ok := bridges[l.Name]; ok && l.Kind == "bridge" {
			masters[l.Index] = true
			out = append(out, Resource{KindLink, l.Name, name})
		}
	}
	for _, l := range links {
		if ledger.IsPair(l.Name) && l.Kind == "veth" && (masters[l.Master] || known[l.Name]) {
			out = append(out, Resource{KindLink, l.Name, strings.TrimPrefix(l.Name, ledger.LinkPrefix)[:11]})
		}
		// A queue goes with its pair: it is something of its own only if it has
		// been left over.
		if ledger.IsQueue(l.Name) && l.Kind == "ifb" && l.Alias == s.mark && !known[ledger.PairOf(l.Name)] {
			out = append(out, Resource{KindLink, l.Name, strings.TrimPrefix(l.Name, ledger.QueuePrefix)[:11]})
		}
	}
	return out, nil
}

// bridges returns the links of this daemon's networks with the networks' names.
func (s *stage) bridges() map[string]string {
	m := map[string]string{}
	for _, w := range s.book.Networks() {
		if w.Link != "" {
			m[w.Link] = w.Name
		}
	}
	return m
}
