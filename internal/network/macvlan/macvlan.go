// Package macvlan makes networks whose containers stand on an interface of the
// host with links of their own: macvlan, each with a hardware address, and
// ipvlan, all with the parent's.
//
// Package network calls it through the driver contract, with a driver for each of
// the two kinds. It makes and removes 802.1Q sub-interfaces that a network names as
// its parent and that are not there, and a link that leads nowhere for networks
// without a parent; on those it writes whose they are (ip-link(8), alias). It
// decides nothing, and knows no packet rules: nothing is published or translated
// on the way.
//
//	container eth0 ── macvlan ┐
//	container eth0 ── macvlan ┴ eth0.10 ── eth0 ── LAN
package macvlan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
)

// The kinds of link.
const (
	Macvlan = "macvlan"
	IPvlan  = "ipvlan"
)

// Driver implements driver.Driver.
type Driver struct {
	host *kernel.Host
	kind string
	// namespace returns the path of an owner's namespace.
	namespace func(owner string) string

	mu   sync.Mutex
	nets map[string]driver.Network
}

// New returns a driver without networks for links of a kind. namespace returns
// where the network namespace of an owner is bound.
func New(host *kernel.Host, kind string, namespace func(owner string) string) *Driver {
	return &Driver{host: host, kind: kind, namespace: namespace, nets: map[string]driver.Network{}}
}

// aliasPrefix begins what is written on parents that are made here.
const aliasPrefix = "gantry network "

// Ensure implements driver.Driver: it sees to it that the parent is there. Errors
// carry Docker's texts.
func (d *Driver) Ensure(ctx context.Context, n driver.Network, _ []driver.Endpoint) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.host.Knows(d.kind); err != nil {
		return err
	}
	if _, err := d.host.Index(n.Link); err != nil {
		p, err := parent(n)
		if err != nil {
			return err
		}
		if err := d.host.MakeParent(p); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nets[n.ID] = n
	return nil
}

// parent describes the link that is to be made for a network whose parent does
// not exist. Pure.
func parent(n driver.Network) (kernel.Parent, error) {
	p := kernel.Parent{Name: n.Link, Alias: aliasPrefix + n.ID}
	if n.Parentless {
		return p, nil
	}
	on, number, ok := strings.Cut(n.Link, ".")
	if !ok {
		return p, fmt.Errorf("invalid subinterface vlan name %s, example formatting is eth0.10", n.Link)
	}
	id, err := strconv.Atoi(number)
	if err != nil || on == "" {
		return p, fmt.Errorf("required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received %s", n.Link)
	}
	if id < 1 || id > 4094 {
		return p, fmt.Errorf("vlan id must be between 1-4094, received: %d", id)
	}
	p.On, p.VLAN = on, uint16(id)
	return p, nil
}

// Join implements driver.Driver.
func (d *Driver) Join(ctx context.Context, ns *kernel.Namespace, e driver.Endpoint) error {
	d.mu.Lock()
	n, ok := d.nets[e.Network]
	d.mu.Unlock()
	if !ok {
		return errs.New(errs.Conflict, "network %s is not up", e.Network)
	}
	mode, flag, _ := strings.Cut(n.Kind, "/")
	return d.host.Sublink(ctx, ns, kernel.Sublink{
		Kind: d.kind, Mode: mode, Flag: flag, Parent: n.Link, Inside: e.Interface, MAC: e.MAC, MTU: n.MTU,
		Addr: e.Dress(), Gateway: e.Gateways(), Sysctls: e.Sysctls,
	})
}

// Leave implements driver.Driver: it takes the link out of the namespace, so that
// its addresses are gone from the LAN even if something keeps the namespace.
func (d *Driver) Leave(_ context.Context, e driver.Endpoint) error {
	ns, err := kernel.OpenNamespace(d.namespace(e.Owner))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || !kernel.IsNamespace(d.namespace(e.Owner)) {
			return nil // never made, or gone with all that was in it
		}
		return err
	}
	defer ns.Close()
	return ns.RemoveSublink(e.Interface)
}

// Reap implements driver.Driver. The link has no end outside of the namespace.
func (d *Driver) Reap(context.Context, driver.Endpoint) error { return nil }

// Remove implements driver.Driver. A parent that was made here goes with the last
// of its networks.
func (d *Driver) Remove(_ context.Context, n driver.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.nets, n.ID)
	for _, other := range d.nets {
		if other.Link == n.Link {
			return nil
		}
	}
	if !n.Parentless && !strings.HasPrefix(d.host.Alias(n.Link), aliasPrefix) {
		return nil
	}
	return d.host.RemoveLink(n.Link)
}
