package ledger

import (
	"net/netip"
	"slices"

	"gantry/internal/network/ipam"
	"gantry/internal/wire"
)

// found completes what the user says of the default network with what is there:
// a bridge of that name which was no network's of ours is the administrator's,
// and has its subnets.
func found(b *Book, d Default, old *Record) Default {
	d.Foreign = old != nil && old.Link == d.Link && old.Foreign
	if b.there == nil || IsOurs(d.Link) || old != nil && old.Link == d.Link && !old.Foreign {
		return d
	}
	have, err := b.there(d.Link)
	if err != nil {
		return d
	}
	d.Foreign = true
	for _, p := range have {
		switch {
		case p.Addr().Is4() && !d.Subnet.IsValid():
			d.Subnet = p
		case p.Addr().Is6() && !d.Subnet6.IsValid() && d.IPv6:
			d.Subnet6 = p
		}
	}
	return d
}

// adoptLink notes whether the bridge that a new network names is there already.
// Then it is the administrator's, and the network has the subnets of its
// addresses unless it names some.
func adoptLink(b *Book, r *Record) {
	if b.there == nil || r.Driver != driverBridge || r.Options[optName] == "" {
		return
	}
	have, err := b.there(r.Link)
	if err != nil {
		return
	}
	r.Foreign = true
	for family, on := range []bool{r.EnableIPv4, r.EnableIPv6} {
		if _, has := r.subnet(family); has || !on {
			continue
		}
		i := slices.IndexFunc(have, func(p netip.Prefix) bool { return p.Addr().Is6() == (family == v6) })
		if i < 0 {
			continue
		}
		gw := have[i].Addr()
		if have[i] == have[i].Masked() {
			gw = ipam.First(have[i])
		}
		r.IPAM.Config = slices.DeleteFunc(r.IPAM.Config, func(c wire.IPAMConfig) bool { return !c.Subnet.IsValid() })
		r.IPAM.Config = append(r.IPAM.Config, wire.IPAMConfig{Subnet: have[i].Masked(), Gateway: gw})
	}
}

// Local returns the block of unique local IPv6 addresses, a /48 (RFC 4193), of
// what seed identifies.
func Local(seed []byte) netip.Prefix { return ipam.Local(seed) }
