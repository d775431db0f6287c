package bridge

import (
	"errors"
	"os"
	"slices"

	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
	"gantry/internal/network/nat"
)

// passes are what links open in isolated networks: for each port that an endpoint
// may reach of a container that is on the same network now. IPv6 has none, as
// nobody answers for neighbours there. Pure.
func passes(nets map[string]active, ends map[string]driver.Endpoint) []nat.Pass {
	var out []nat.Pass
	for _, from := range ends {
		n, up := nets[from.Network]
		for _, r := range from.Reaches {
			to, there := ends[r.Owner+"/"+from.Network]
			if !up || !there || !from.Addr.IsValid() || !to.Addr.IsValid() {
				continue
			}
			for _, p := range r.Ports {
				out = append(out, nat.Pass{Bridge: n.Link, From: from.Addr.Addr(), To: to.Addr.Addr(), Proto: p.Proto, Port: p.Port})
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
	if !concerned(d, e) {
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
	if !was || len(d.nets) == 0 {
		return nil
	}
	return d.apply()
}

// concerned reports whether a link leads from or to an endpoint now. The lock is
// held.
func concerned(d *Driver, e driver.Endpoint) bool {
	return slices.ContainsFunc(passes(d.nets, d.linked), func(p nat.Pass) bool {
		return p.Bridge == d.nets[e.Network].Link && (p.From == e.Addr.Addr() || p.To == e.Addr.Addr())
	})
}

// answerFor lets the host answer for the neighbours' addresses on isolated
// bridges that have links, so that what the rules let pass comes by its routing:
// the bridge itself carries nothing from one container to another.
func answerFor(c nat.Config) error {
	var all []error
	for _, n := range c.Networks {
		if !n.Isolated {
			continue
		}
		on := "0"
		if slices.ContainsFunc(c.Passes, func(p nat.Pass) bool { return p.Bridge == n.Bridge }) {
			on = "1"
			// Answers for others wait 0.4 s by default.
			all = append(all, kernel.SetSysctl("net/ipv4/neigh/"+n.Bridge+"/proxy_delay", "0"))
		}
		all = append(all, kernel.SetSysctl("net/ipv4/conf/"+n.Bridge+"/proxy_arp_pvlan", on))
	}
	if err := errors.Join(all...); !errors.Is(err, os.ErrNotExist) { // a bridge that somebody has removed
		return err
	}
	return nil
}
