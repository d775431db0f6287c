package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gantry/internal/network/nat"
)

// Explain walks the rules, and what else decides on this host, with a packet.
func (d *Driver) Explain(h nat.Host, q nat.Question) nat.Answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return nat.Explain(d.config(), h, q)
}

// Drops returns the chains of other programs that drop what their rules do not
// accept.
func (d *Driver) Drops() ([]nat.Chain, error) { return d.rules.Drops() }

// links are the bridges that exist.
func (d *Driver) links() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, n := range d.nets {
		out = append(out, n.Link)
	}
	slices.Sort(out)
	return out
}

// blocking returns the forward chains that stop some of links.
func (d *Driver) blocking(links []string) ([]nat.Chain, error) {
	all, err := d.rules.Drops()
	all = append(all, nat.LegacyDrops()...)
	return slices.DeleteFunc(all, func(c nat.Chain) bool { return c.Hook != "forward" || len(lacking(c, links)) == 0 }), err
}

// lacking returns those of links that a chain does not let through. Pure.
func lacking(c nat.Chain, links []string) []string {
	return slices.DeleteFunc(slices.Clone(links), func(l string) bool { return slices.Contains(c.Passes, l) })
}

// Blocked returns, in sentences, the chains that drop by default what is
// forwarded to the bridges.
func (d *Driver) Blocked() ([]string, error) {
	links := d.links()
	chains, err := d.blocking(links)
	var out []string
	for _, c := range chains {
		out = append(out, fmt.Sprintf("chain %s drops by default what is forwarded to %s", c, strings.Join(lacking(c, links), ", ")))
	}
	return out, err
}

// Unblock makes those chains let the bridges' packets through, at their ends;
// those of iptables-legacy by that tool, which has to be there.
func (d *Driver) Unblock() error {
	links := d.links()
	chains, err := d.blocking(links)
	all := []error{err}
	for _, c := range chains {
		all = append(all, d.rules.LetThrough(c, links))
	}
	return errors.Join(all...)
}
