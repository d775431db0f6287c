package ledger

import (
	"net"
	"net/netip"
	"slices"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/nat"
	"gantry/internal/wire"
)

// Given are the addresses of one endpoint that another program has given out, and
// the hardware address that it was told.
type Given struct {
	IPv4, IPv6 netip.Prefix
	MAC        net.HardwareAddr
}

// Remote reports whether the network's driver is another program.
func (r *Record) Remote() bool {
	switch r.Driver {
	case driverBridge, driverMacvlan, driverIPvlan, "host", "null":
		return false
	}
	return true
}

// RemoteIPAM reports whether another program gives out the network's addresses.
func (r *Record) RemoteIPAM() bool { return IsRemoteIPAM(r.IPAM.Driver) }

// IsRemoteIPAM reports whether the name of an address driver is another program's.
func IsRemoteIPAM(name string) bool { return name != "" && name != "default" && name != "null" }

// PoolOf returns the plugin's name for the pool that an address is of, "" if it is
// of none.
func (r *Record) PoolOf(a netip.Addr) string {
	for i, c := range r.IPAM.Config {
		if i < len(r.PoolIDs) && c.Subnet.Contains(a) {
			return r.PoolIDs[i]
		}
	}
	return ""
}

// Learn writes down what drivers have made of endpoints of the sandbox of r, by
// their networks' IDs. The moves of the change are the default routes that go
// elsewhere by it.
func Learn(b *Book, r AttachRequest, told map[string]driver.Joined) (Change, error) {
	b.mu.Lock()
	old := b.entries[r.ID]
	if old == nil {
		b.mu.Unlock()
		return Change{}, errs.New(errs.NotFound, "container %s has no network sandbox", r.ID)
	}
	e := *old
	e.Links, e.Endpoints = slices.Clone(old.Links), slices.Clone(old.Endpoints)
	for i := range e.Links {
		if j, ok := told[e.Links[i].Network]; ok {
			learn(&e.Links[i], &e.Endpoints[i], j, b.networks[e.Links[i].Network])
		}
	}
	c := Change{Entry: &e}
	var err error
	c.Moves, err = b.elect(&e, r)
	b.entries[r.ID] = &e
	b.mu.Unlock()
	if err != nil {
		return c, err
	}
	return c, b.records.write(&e)
}

func learn(l *driver.Endpoint, e *Endpoint, j driver.Joined, w *network) {
	l.Source, l.Interface, e.Interface = j.Source, j.Interface, j.Interface
	l.MAC, e.MAC = j.MAC, net.HardwareAddr(j.MAC).String()
	if j.Addr.IsValid() {
		l.Addr, e.IPv4 = j.Addr, j.Addr
	}
	if j.Addr6.IsValid() {
		l.Addr6, e.IPv6 = j.Addr6, j.Addr6
	}
	// None is in the kernel yet.
	l.Gateway, l.Gateway6, e.Gateway4, e.Gateway6 = netip.Addr{}, netip.Addr{}, netip.Addr{}, netip.Addr{}
	if w != nil && !w.rec.Internal {
		e.Gateway4, e.Gateway6 = j.Gateway, j.Gateway6
	}
}

// publications are what a driver that is another program is told of ports. Pure.
func publications(r AttachRequest) (expose, publish []driver.Publication) {
	for p := range r.Exposed {
		expose = append(expose, publication(binding{p, wire.PortBinding{}}))
	}
	slices.SortFunc(expose, func(a, b driver.Publication) int { return int(a.Port) - int(b.Port) })
	for _, b := range bindings(r) {
		publish = append(publish, publication(b))
	}
	return expose, publish
}

func publication(b binding) driver.Publication {
	p := driver.Publication{Proto: nat.ParseProto(string(b.port.Proto())), Port: b.port.Num(), HostIP: b.HostIP}
	for _, c := range b.HostPort {
		if c < '0' || c > '9' {
			break // the first of a range
		}
		p.HostPort = p.HostPort*10 + uint16(c-'0')
	}
	return p
}
