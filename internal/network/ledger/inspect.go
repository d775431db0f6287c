package ledger

import (
	"maps"
	"net"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/id"
	"gantry/internal/wire"
)

// find returns the network with this ID, name or unique prefix of an ID, in
// this order. The lock is held.
func (b *state) find(ref string) (*network, error) {
	if w := b.networks[ref]; w != nil && !w.going {
		return w, nil
	}
	if w := b.named(ref); w != nil {
		return w, nil
	}
	var hit *network
	if id.ValidPrefix(ref) {
		for _, w := range b.networks {
			if w.going || !strings.HasPrefix(w.rec.ID, ref) {
				continue
			}
			if hit != nil {
				return nil, errs.New(errs.Invalid, "network %s is ambiguous (2 matches found based on ID prefix)", ref)
			}
			hit = w
		}
	}
	if hit == nil {
		return nil, notFound(ref)
	}
	return hit, nil
}

// Inspect returns the network called ref, or with this ID or prefix of it, with
// its containers and address usage. An unknown one is errs.NotFound.
func (b *Book) Inspect(ref string) (wire.NetworkInspect, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	w, err := b.find(ref)
	if err != nil {
		return wire.NetworkInspect{}, err
	}
	return b.inspect(w), nil
}

func (b *state) inspect(w *network) wire.NetworkInspect {
	out := wire.NetworkInspect{Network: w.rec.Network, Containers: map[string]wire.EndpointResource{}, Status: &wire.NetworkStatus{}}
	out.Options, out.Labels = maps.Clone(w.rec.Options), maps.Clone(w.rec.Labels)
	for _, s := range b.entries {
		for _, e := range s.Endpoints {
			if e.NetworkID != w.rec.ID || !s.Complete {
				continue
			}
			mac, _ := net.ParseMAC(e.MAC)
			out.Containers[s.ID] = wire.EndpointResource{
				Name: s.Name, EndpointID: e.ID, MacAddress: []byte(mac), IPv4Address: e.IPv4, IPv6Address: e.IPv6,
			}
		}
	}
	for family, p := range w.pools {
		if p == nil {
			continue
		}
		if out.Status.IPAM.Subnets == nil {
			out.Status.IPAM.Subnets = wire.SubnetStatuses{}
		}
		c, _ := w.rec.subnet(family)
		used, free := p.Usage()
		out.Status.IPAM.Subnets[c.Subnet] = wire.SubnetStatus{IPsInUse: used, DynamicIPsAvailable: free}
	}
	return out
}

// List returns the networks that pass the filters, oldest first. Another key
// than those of filter.Networks is errs.Invalid. The entries have the
// containers in them, which the list of the API leaves out.
func (b *Book) List(f filter.Args) ([]wire.NetworkInspect, error) {
	if err := f.Check(filter.Networks); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", filter.OtherwiseFalse)
	if err != nil {
		return nil, errs.New(errs.Invalid, `invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`)
	}
	for _, v := range f.Values("type") {
		if v != "custom" && v != "builtin" {
			return nil, errs.New(errs.Unknown, "invalid filter: 'type'='%s'", v) // 500, as recorded
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := []wire.NetworkInspect{}
	for _, w := range b.sorted() {
		kind := "custom"
		if Predefined(w.rec.Name) {
			kind = "builtin"
		}
		if f.Has("dangling") && dangling != (w.users == 0 && kind == "custom") {
			continue
		}
		if f.Exact("driver", w.rec.Driver) && f.Exact("scope", w.rec.Scope) && f.Exact("type", kind) &&
			f.Pattern("id", w.rec.ID) && f.Pattern("name", w.rec.Name) && f.Labels(w.rec.Labels) {
			out = append(out, b.inspect(w))
		}
	}
	return out, nil
}

// Predefined reports whether name is one of the networks that always exist.
func Predefined(name string) bool { return name == Bridge || name == Host || name == None }
