package bridge

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
	"gantry/internal/network/nat"
)

// passes are what links open in isolated networks: for each port that an endpoint
// may reach of a container that is on the same network now, at each address that
// both have one like. Pure.
func passes(nets map[string]active, ends map[string]driver.Endpoint) []nat.Pass {
	var out []nat.Pass
	for _, from := range ends {
		n, up := nets[from.Network]
		for _, r := range from.Reaches {
			to, there := ends[r.Owner+"/"+from.Network]
			if !up || !there {
				continue
			}
			for _, x := range [][2]netip.Prefix{{from.Addr, to.Addr}, {from.Addr6, to.Addr6}} {
				if !x[0].IsValid() || !x[1].IsValid() {
					continue
				}
				for _, p := range r.Ports {
					out = append(out, nat.Pass{Bridge: n.Link, From: x[0].Addr(), To: x[1].Addr(), Proto: p.Proto, Port: p.Port})
				}
			}
		}
	}
	return out
}

// link opens what an endpoint's links, and those of others to it, allow.
func link(d *Driver, e driver.Endpoint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.linked[key(e)] = e
	if len(concerned(d, e)) == 0 {
		return nil
	}
	return d.apply()
}

// unlink closes it again. The lock is held.
func unlink(d *Driver, e driver.Endpoint) error {
	if _, ok := d.linked[key(e)]; !ok {
		return nil
	}
	was := concerned(d, e)
	delete(d.linked, key(e))
	if len(was) == 0 || len(d.nets) == 0 {
		return nil
	}
	return d.apply()
}

// Relink implements driver.Linker. What is not allowed any more ends, too, if it
// is under way.
func (d *Driver) Relink(_ context.Context, e driver.Endpoint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.linked[key(e)]; !ok {
		return nil // nobody is kept from it
	}
	was := concerned(d, e)
	d.linked[key(e)] = e
	now := concerned(d, e)
	if len(was)+len(now) == 0 {
		return nil
	}
	if err := d.apply(); err != nil {
		return err
	}
	var ended []kernel.Flow
	for _, p := range was {
		if !slices.Contains(now, p) {
			ended = append(ended, kernel.Flow{Proto: uint8(p.Proto), Port: p.Port, From: p.From, Reply: p.To})
		}
	}
	return drop(ended)
}

// concerned are the passes from or to an endpoint now. The lock is held.
func concerned(d *Driver, e driver.Endpoint) []nat.Pass {
	return slices.DeleteFunc(passes(d.nets, d.linked), func(p nat.Pass) bool {
		own := func(a netip.Addr) bool { return a == e.Addr.Addr() || a == e.Addr6.Addr() }
		return p.Bridge != d.nets[e.Network].Link || !own(p.From) && !own(p.To)
	})
}

// answerFor lets the host answer for the neighbours' addresses on isolated
// bridges that have links, so that what the rules let pass comes by its routing:
// the bridge itself carries nothing from one container to another.
func answerFor(h *kernel.Host, c nat.Config) error {
	var all []error
	for _, n := range c.Networks {
		if !n.Isolated {
			continue
		}
		four, six := "0", "0"
		var addrs []netip.Addr
		for _, p := range c.Passes {
			switch {
			case p.Bridge != n.Bridge:
			case p.From.Is4():
				four = "1"
			default:
				six, addrs = "1", append(addrs, p.From, p.To)
			}
		}
		if four == "1" { // answers for others wait 0.4 s by default
			all = append(all, kernel.SetSysctl("net/ipv4/neigh/"+n.Bridge+"/proxy_delay", "0"))
		}
		all = append(all, kernel.SetSysctl("net/ipv4/conf/"+n.Bridge+"/proxy_arp_pvlan", four))
		if !n.Subnet6.IsValid() {
			continue
		}
		if six == "1" {
			all = append(all, kernel.SetSysctl("net/ipv6/neigh/"+n.Bridge+"/proxy_delay", "0"))
		}
		all = append(all, kernel.SetSysctl("net/ipv6/conf/"+n.Bridge+"/proxy_ndp", six), kernel.AnswerFor(h, n.Bridge, addrs))
	}
	if err := errors.Join(all...); !errors.Is(err, os.ErrNotExist) { // a bridge that somebody has removed
		return err
	}
	return nil
}
