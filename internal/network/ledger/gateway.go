package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"gantry/internal/network/driver"
	"gantry/internal/network/nat"
)

// elect gives the default routes of a sandbox, and the ports that r publishes,
// to the endpoints that shall have them, and returns what that changes. The
// endpoints are those of a sandbox that is not on the books yet.
func (b *state) elect(e *Entry, r AttachRequest) ([]Move, error) {
	was := slices.Clone(e.Links)
	g4 := gatewayOf(e.Endpoints, func(p Endpoint) netip.Addr { return p.Gateway4 })
	g6 := gatewayOf(e.Endpoints, func(p Endpoint) netip.Addr { return p.Gateway6 })
	for i := range e.Links {
		l, p := &e.Links[i], &e.Endpoints[i]
		l.Gateway, l.Gateway6 = netip.Addr{}, netip.Addr{}
		if i == g4 {
			l.Gateway = p.Gateway4
		}
		if i == g6 {
			l.Gateway6 = p.Gateway6
		}
	}
	to := g4
	if to < 0 {
		to = g6
	}
	if to >= 0 && b.networks[e.Links[to].Network].rec.Driver != driverBridge {
		unpublish(b, e) // that is not for our packet rules
		if l := &e.Links[to]; b.networks[l.Network].rec.Remote() {
			l.Expose, l.Publish = publications(r)
		}
	} else if to >= 0 {
		if err := b.movePorts(e, to, r); err != nil {
			return nil, fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", e.Name, e.Endpoints[to].ID, err)
		}
	}
	var moves []Move
	for i, l := range e.Links {
		if o := was[i]; o.Gateway != l.Gateway || o.Gateway6 != l.Gateway6 || !slices.Equal(o.Ports, l.Ports) {
			moves = append(moves, Move{o, l})
		}
	}
	return moves, nil
}

// gatewayOf returns the index of the endpoint that gives the default route of a
// family: the one with the highest priority, then the first by its network's
// name, of those that have a gateway; -1 if none has. Pure.
func gatewayOf(es []Endpoint, gateway func(Endpoint) netip.Addr) int {
	best := -1
	for i, e := range es {
		if !gateway(e).IsValid() {
			continue
		}
		if best < 0 || cmp.Or(cmp.Compare(es[best].Priority, e.Priority), cmp.Compare(e.NetworkName, es[best].NetworkName)) < 0 {
			best = i
		}
	}
	return best
}

// movePorts brings what is published to the endpoint to. Host ports stay what
// they are; if none were published yet they are chosen as r says.
func (b *state) movePorts(e *Entry, to int, r AttachRequest) error {
	p, l := &e.Endpoints[to], &e.Links[to]
	if len(l.Ports) > 0 {
		return nil
	}
	for i := range e.Links {
		from := &e.Links[i]
		if i == to || len(from.Ports) == 0 {
			continue
		}
		for _, port := range from.Ports {
			if port, ok := repoint(port, *l); ok {
				l.Ports = append(l.Ports, port)
			} else {
				b.ports.Release(portKey(port))
			}
		}
		p.Ports, e.Endpoints[i].Ports, from.Ports = maps.Clone(e.Endpoints[i].Ports), nil, nil
		return nil
	}
	return b.decidePorts(p, l, b.networks[l.Network], r)
}

// unpublish takes back what a sandbox publishes.
func unpublish(b *state, e *Entry) {
	for i := range e.Links {
		for _, p := range e.Links[i].Ports {
			b.ports.Release(portKey(p))
		}
		e.Links[i].Ports, e.Endpoints[i].Ports = nil, nil
	}
}

// repoint makes a published port lead to the address that l has of the same
// family; false if it has none. Pure.
func repoint(p nat.Port, l driver.Endpoint) (nat.Port, bool) {
	a := l.Addr.Addr()
	if p.Container.Addr().Is6() {
		a = l.Addr6.Addr()
	}
	p.Container = netip.AddrPortFrom(a, p.Container.Port())
	return p, a.IsValid()
}
