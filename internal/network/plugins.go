package network

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"slices"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/ledger"
	"gantry/internal/network/remote"
	"gantry/internal/wire"
)

// noPlugins is the caller of a daemon without plugins.
type noPlugins struct{}

func (noPlugins) Offers(_ context.Context, name, _ string) error {
	return errs.New(errs.NotFound, "plugin %q not found", name)
}

func (n noPlugins) Call(ctx context.Context, name, _ string, _, _ any) error {
	return n.Offers(ctx, name, "")
}

// named returns the driver of that name: one of ours, or a plugin.
func (s *stage) named(name string) driver.Driver {
	if d := s.drivers[name]; d != nil {
		return d
	}
	return s.plugin(name)
}

// known returns why networks of a driver can't be made, or nil.
func known(ctx context.Context, s *stage, name string) error {
	switch name {
	case "", "default", "host", "null", "overlay": // of which the books know more
		return nil
	}
	if s.drivers[name] != nil {
		return nil
	}
	d := s.plugin(name)
	if err := d.Caller.Offers(ctx, name, remote.NetworkDriver); err != nil {
		return err
	}
	scope, err := d.Capabilities(ctx)
	if err == nil && scope == "global" {
		err = errs.New(errs.Denied, "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
	}
	return err
}

// acquire asks the address plugin that a request names for pools, and completes the
// request with them. undo gives them back.
func acquire(ctx context.Context, plugins remote.Caller, c *wire.NetworkCreate) (ids []string, undo func(), err error) {
	undo = func() {}
	if c.IPAM == nil || c.ConfigOnly || !ledger.IsRemoteIPAM(c.IPAM.Driver) {
		return nil, undo, nil
	}
	if err := plugins.Offers(ctx, c.IPAM.Driver, remote.IPAMDriver); err != nil {
		return nil, undo, err
	}
	a := remote.Addresses{Name: c.IPAM.Driver, Caller: plugins}
	var got []remote.Pool
	undo = func() {
		for _, p := range got {
			_ = a.Return(context.WithoutCancel(ctx), p)
		}
	}
	ipam := *c.IPAM
	ipam.Config = nil
	for _, ask := range asked(*c) {
		p, err := a.Acquire(ctx, ask, c.IPAM.Options)
		if err != nil {
			undo()
			return nil, func() {}, err
		}
		got, ids = append(got, p), append(ids, p.ID)
		ipam.Config = append(ipam.Config, wire.IPAMConfig{Subnet: p.Subnet, Gateway: p.Gateway, IPRange: p.Range, AuxAddress: p.Aux})
	}
	c.IPAM = &ipam
	return ids, undo, nil
}

// asked are the pools that a request needs: those it names, and one for each family
// that it names none of. Pure.
func asked(c wire.NetworkCreate) []remote.Pool {
	var out []remote.Pool
	for _, p := range c.IPAM.Config {
		if p.Subnet.IsValid() {
			out = append(out, remote.Pool{Subnet: p.Subnet, Gateway: p.Gateway, Range: p.IPRange, Aux: p.AuxAddress, IPv6: p.Subnet.Addr().Is6()})
		}
	}
	for _, f := range []struct{ on, six bool }{{c.EnableIPv4 == nil || *c.EnableIPv4, false}, {c.EnableIPv6 != nil && *c.EnableIPv6, true}} {
		if f.on && !slices.ContainsFunc(out, func(p remote.Pool) bool { return p.IPv6 == f.six }) {
			out = append(out, remote.Pool{IPv6: f.six})
		}
	}
	return out
}

// returnPools gives the pools of a network back to its address plugin.
func returnPools(ctx context.Context, plugins remote.Caller, w ledger.Record) error {
	if !w.RemoteIPAM() {
		return nil
	}
	a := remote.Addresses{Name: w.IPAM.Driver, Caller: plugins}
	var all []error
	for i, c := range w.IPAM.Config {
		if i < len(w.PoolIDs) {
			all = append(all, a.Return(ctx, remote.Pool{ID: w.PoolIDs[i], Subnet: c.Subnet, Gateway: c.Gateway, Aux: c.AuxAddress}))
		}
	}
	return errors.Join(all...)
}

// take asks address plugins for the addresses of a container's endpoints on their
// networks, before the books decide the rest. What was taken is in the result also
// if it fails.
func take(ctx context.Context, n *Networks, endpoints map[string]*wire.EndpointSettings) (map[string]ledger.Given, error) {
	given := map[string]ledger.Given{}
	for ref, set := range endpoints {
		w, err := n.book.Find(ref)
		if err != nil && set != nil && set.NetworkID != "" {
			w, err = n.book.Find(set.NetworkID)
		}
		if err != nil || !w.RemoteIPAM() {
			continue // who decides knows what is wrong
		}
		if set == nil {
			set = &wire.EndpointSettings{}
		}
		g, err := takeOn(ctx, n, w, set)
		given[w.ID] = g
		if err != nil {
			return given, err
		}
	}
	return given, nil
}

func takeOn(ctx context.Context, n *Networks, w ledger.Record, set *wire.EndpointSettings) (g ledger.Given, err error) {
	a := remote.Addresses{Name: w.IPAM.Driver, Caller: n.stage.plugins}
	needs, err := a.NeedsMAC(ctx)
	if err != nil {
		return g, err
	}
	var options map[string]string
	if needs {
		if g.MAC = net.HardwareAddr(set.MacAddress); len(g.MAC) == 0 {
			g.MAC = net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
			_, _ = rand.Read(g.MAC[2:])
		}
		options = remote.ForMAC(g.MAC)
	}
	p := w.Plan()
	for _, f := range []struct {
		subnet netip.Prefix
		six    bool
		to     *netip.Prefix
	}{{p.Subnet, false, &g.IPv4}, {p.Subnet6, true, &g.IPv6}} {
		if !f.subnet.IsValid() {
			continue
		}
		var want netip.Addr
		if set.IPAMConfig != nil {
			if want = set.IPAMConfig.IPv4Address; f.six {
				want = set.IPAMConfig.IPv6Address
			}
		}
		if *f.to, err = a.Take(ctx, remote.Pool{ID: w.PoolOf(f.subnet.Addr())}, want, options); err != nil {
			return g, err
		}
	}
	return g, nil
}

// drop gives what take took back.
func drop(ctx context.Context, n *Networks, given map[string]ledger.Given) {
	for network, g := range given {
		returnAddresses(ctx, n.stage, network, g.IPv4, g.IPv6)
	}
}

// returnAddresses gives addresses of a network back to its address plugin, if it has one.
func returnAddresses(ctx context.Context, s *stage, network string, addrs ...netip.Prefix) {
	w, err := s.book.Network(network)
	if err != nil || !w.RemoteIPAM() {
		return
	}
	for _, at := range addrs {
		if at.IsValid() {
			// A plugin that is away does not keep a container from going.
			_ = remote.Addresses{Name: w.IPAM.Driver, Caller: s.plugins}.Release(ctx, w.PoolOf(at.Addr()), at.Addr())
		}
	}
}

// returnAll gives the addresses of endpoints that have gone back.
func returnAll(ctx context.Context, s *stage, links []driver.Endpoint) {
	for _, l := range links {
		returnAddresses(ctx, s, l.Network, l.Addr, l.Addr6)
	}
}

// wishes are the settings of a container's endpoints by network, that of its mode
// included.
func wishes(r AttachRequest) map[string]*wire.EndpointSettings {
	if len(r.Endpoints) > 0 {
		return r.Endpoints
	}
	return map[string]*wire.EndpointSettings{r.Mode: nil}
}

// begin makes what of a network has to be there before its first container: whether
// it can be is found out by making it.
func begin(ctx context.Context, s *stage, w ledger.Record) error {
	if w.Driver == "bridge" || !w.Linked() {
		return nil
	}
	if d, ok := s.named(w.Driver).(driver.Lasting); ok {
		return d.Make(ctx, w.Plan())
	}
	return s.raise(ctx, w.ID)
}

// finish takes a network off the kernel, its plugins included.
func finish(ctx context.Context, s *stage, w ledger.Record) error {
	if err := s.lower(ctx, w); err != nil {
		return err
	}
	if !w.Linked() {
		return nil
	}
	if d, ok := s.named(w.Driver).(driver.Lasting); ok {
		if err := d.Unmake(ctx, w.Plan()); err != nil {
			return err
		}
	}
	return returnPools(ctx, s.plugins, w)
}
