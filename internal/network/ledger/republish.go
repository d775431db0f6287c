package ledger

import (
	"fmt"
	"slices"
	"strconv"

	"gantry/internal/network/driver"
	"gantry/internal/network/nat"
	"gantry/internal/network/ports"
	"gantry/internal/wire"
)

// A Reallocation is a change of a sandbox's published ports under way. The host
// ports of before and after are held until it is kept or taken back.
type Reallocation struct {
	Entry *Entry // as it is now
	// From and To are the endpoint that has the ports; zero if none can.
	From, To driver.Endpoint

	book *Book
	was  *Entry
}

// Reallocate chooses the published ports of a sandbox anew, as r says, and
// writes the record. What is published already and still wanted keeps its host
// port. The sandbox must be complete.
func Reallocate(b *Book, r AttachRequest) (*Reallocation, error) {
	x := &Reallocation{book: b}
	var err error
	b.mu.Lock()
	x.was = b.entries[r.ID]
	x.Entry, x.From, x.To, err = b.reallocate(r)
	b.mu.Unlock()
	if err != nil || x.To.Owner == "" {
		return x, err
	}
	if err := b.records.write(x.Entry); err != nil {
		x.exchange()
		return nil, err
	}
	return x, nil
}

func (b *state) reallocate(r AttachRequest) (*Entry, driver.Endpoint, driver.Endpoint, error) {
	old := b.entries[r.ID]
	at := publisher(old)
	if at < 0 {
		return old, driver.Endpoint{}, driver.Endpoint{}, nil
	}
	e := *old
	e.Endpoints, e.Links = slices.Clone(old.Endpoints), slices.Clone(old.Links)
	p, l := &e.Endpoints[at], &e.Links[at]
	w := b.networks[l.Network]
	l.Ports = nil
	if err := b.keepPorts(p, l, w, r, old.Links[at].Ports); err != nil {
		return nil, old.Links[at], *l, fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", old.Name, p.ID, err)
	}
	b.entries[r.ID] = &e
	return &e, old.Links[at], *l, nil
}

// publisher returns the index of the endpoint that has the published ports, or
// would have some: the one with the default route. Pure.
func publisher(e *Entry) int {
	at := slices.IndexFunc(e.Links, func(l driver.Endpoint) bool { return len(l.Ports) > 0 })
	if at < 0 {
		at = slices.IndexFunc(e.Links, func(l driver.Endpoint) bool { return l.Gateway.IsValid() })
	}
	return at
}

// keepPorts is decidePorts for an endpoint that has ports: those that will do
// are kept, and the others of have are free to be chosen again.
func (b *state) keepPorts(p *Endpoint, l *driver.Endpoint, w *network, r AttachRequest, have []nat.Port) error {
	kept := make([]bool, len(have))
	left := r
	left.Ports, left.PublishAll, left.Exposed = wire.PortMap{}, false, nil
	var stay []nat.Port
	for _, x := range bindings(r) {
		served := serving(b, have, kept, x, l, w)
		for _, i := range served {
			kept[i] = true
			stay = append(stay, have[i])
		}
		if len(served) == 0 {
			left.Ports[x.port] = append(left.Ports[x.port], x.PortBinding)
		}
	}
	// A host port may go from one container port to another.
	var gone []ports.Key
	for i, h := range have {
		if !kept[i] {
			gone = append(gone, portKey(h))
		}
	}
	b.ports.Lend(gone...)
	n := Endpoint{}
	err := b.decidePorts(&n, l, w, left)
	if err != nil {
		for _, h := range l.Ports {
			if k := portKey(h); !slices.Contains(gone, k) {
				b.ports.Release(k)
			}
		}
	}
	b.ports.Return(gone...) // held until the kernel has let go of them
	if err != nil {
		return err
	}
	p.Ports = n.Ports
	for x := range r.Exposed {
		if _, ok := p.Ports[x]; !ok {
			p.Ports[x] = nil
		}
	}
	l.Ports = append(stay, l.Ports...)
	for _, h := range stay {
		port, err := wire.ParsePort(strconv.Itoa(int(h.Container.Port())) + "/" + h.Proto.String())
		if err != nil {
			return err
		}
		at := wire.PortBinding{HostIP: h.HostIP}
		if h.HostPort != 0 {
			at.HostPort = strconv.Itoa(int(h.HostPort))
		}
		p.Ports[port] = append(p.Ports[port], at)
	}
	return nil
}

// serving returns the indices of the ports that are what a binding asks for,
// one for each of its addresses and all of one number; none if one is missing.
func serving(b *state, have []nat.Port, kept []bool, x binding, l *driver.Endpoint, w *network) []int {
	want, err := ports.Parse(x.HostPort)
	all := wanted(b, x, l, w)
	if err != nil || len(all) == 0 {
		return nil
	}
	find := func(p nat.Port) int {
		return slices.IndexFunc(have, func(h nat.Port) bool { return h == p && !kept[slices.Index(have, h)] })
	}
	for _, h := range have {
		if h.HostPort != 0 && want.First != 0 && (h.HostPort < want.First || want.Last < h.HostPort) {
			continue
		}
		var found []int
		for _, p := range all {
			if p.HostPort != 0 {
				p.HostPort = h.HostPort
			}
			if at := find(p); at >= 0 {
				found = append(found, at)
			}
		}
		if len(found) == len(all) {
			return found
		}
	}
	return nil
}

func portKey(p nat.Port) ports.Key {
	return ports.Key{Proto: p.Proto.String(), IP: p.HostIP, Port: p.HostPort}
}

// Keep gives back the host ports that the endpoint had and has not any more.
func (x *Reallocation) Keep() { x.release(x.From, x.To) }

// TakeBack makes the sandbox what it was.
func (x *Reallocation) TakeBack() error {
	x.exchange()
	return x.book.records.write(x.was)
}

func (x *Reallocation) exchange() {
	x.release(x.To, x.From)
	x.book.mu.Lock()
	defer x.book.mu.Unlock()
	if x.book.entries[x.was.ID] == x.Entry {
		x.book.entries[x.was.ID] = x.was
	}
}

// release gives back the host ports of one that other does not have.
func (x *Reallocation) release(one, other driver.Endpoint) {
	x.book.mu.Lock()
	defer x.book.mu.Unlock()
	for _, h := range one.Ports {
		if !slices.ContainsFunc(other.Ports, func(n nat.Port) bool { return portKey(n) == portKey(h) }) {
			x.book.ports.Release(portKey(h))
		}
	}
}
