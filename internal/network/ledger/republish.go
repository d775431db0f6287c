package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"gantry/internal/network/driver"
	"gantry/internal/network/nat"
	"gantry/internal/network/ports"
	"gantry/internal/wire"
)

// Reallocate chooses the published ports of a sandbox anew, as r says, and
// writes the record. What is published already and still wanted keeps its host
// port. It returns the endpoint that has the ports, before and after: zero if no
// endpoint can have any. The host ports of both are held until Free, or Restore.
func (b *Book) Reallocate(r AttachRequest) (e *Entry, from, to driver.Endpoint, err error) {
	b.mu.Lock()
	e, from, to, err = b.reallocate(r)
	b.mu.Unlock()
	if err != nil || to.Owner == "" {
		return e, from, to, err
	}
	if err := b.records.write(e); err != nil {
		return nil, from, to, errors.Join(err, b.undo(e, from, to))
	}
	return e, from, to, nil
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
		served := false
		for i, h := range have {
			if served = !kept[i] && b.serves(h, x, w); served {
				kept[i] = true
				stay = append(stay, h)
				break
			}
		}
		if !served {
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
	b.ports.Release(gone...)
	n := Endpoint{}
	err := b.decidePorts(&n, l, w, left)
	if err != nil {
		for _, h := range l.Ports {
			b.ports.Release(portKey(h))
		}
	}
	for _, k := range gone {
		b.ports.Claim(k) // until the kernel has let go of it
	}
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
		p.Ports[port] = append(p.Ports[port], wire.PortBinding{HostIP: h.HostIP, HostPort: strconv.Itoa(int(h.HostPort))})
	}
	return nil
}

// serves reports whether a published port is what a binding asks for.
func (b *state) serves(h nat.Port, x binding, w *network) bool {
	if h.Container.Port() != x.port.Num() || h.Proto != nat.ParseProto(string(x.port.Proto())) || h.HostIP != b.bindAddress(x, w) {
		return false
	}
	want, err := ports.Parse(x.HostPort)
	return err == nil && (want.First == 0 || want.First <= h.HostPort && h.HostPort <= want.Last)
}

func portKey(p nat.Port) ports.Key {
	return ports.Key{Proto: p.Proto.String(), IP: p.HostIP, Port: p.HostPort}
}

// Free gives back the host ports that an endpoint had and has not any more.
func (b *Book) Free(from, to driver.Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range from.Ports {
		if !slices.ContainsFunc(to.Ports, func(n nat.Port) bool { return portKey(n) == portKey(h) }) {
			b.ports.Release(portKey(h))
		}
	}
}

// Restore takes Reallocate back: the sandbox is what was again.
func (b *Book) Restore(was *Entry, from, to driver.Endpoint) error {
	return errors.Join(b.undo(was, from, to), b.records.write(was))
}

func (b *Book) undo(was *Entry, from, to driver.Endpoint) error {
	b.Free(to, from)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries[was.ID] != nil {
		b.entries[was.ID] = was
	}
	return nil
}
