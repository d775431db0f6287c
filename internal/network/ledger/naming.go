package ledger

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Naming is how a container takes part in the names of its networks.
type Naming struct {
	Hostname string       `json:",omitempty"`
	DNS      []netip.Addr `json:",omitempty"` // the user's name servers; none: the host's
	// Dotted is true if the user said how many dots make a name complete.
	Dotted   bool                `json:",omitempty"`
	Networks map[string]Nickname `json:",omitempty"` // by network ID
}

// Named reports whether containers on the network find each other by name: in
// all but the three that always exist.
func (r *Record) Named() bool { return r.Linked() && r.Name != Bridge }

// Nickname is what a container is called on one network besides its name, and
// what it calls others there: "container:alias".
type Nickname struct {
	Aliases []string `json:",omitempty"`
	Links   []string `json:",omitempty"`
}

// naming is what a request says for all networks. Pure.
func naming(r AttachRequest) Naming {
	n := Naming{Hostname: r.Hostname, DNS: slices.Clone(r.DNS)}
	for _, o := range r.DNSOptions {
		if v, ok := strings.CutPrefix(o, "ndots:"); ok {
			dots, err := strconv.Atoi(v)
			n.Dotted = err == nil && dots > 0
		}
	}
	return n
}

// on is n with what the settings of an endpoint say for its network. Pure.
func (n Naming) on(networkID string, s *wire.EndpointSettings) Naming {
	n.Networks = maps.Clone(n.Networks)
	delete(n.Networks, networkID)
	if s == nil || len(s.Aliases) == 0 && len(s.Links) == 0 {
		return n
	}
	if n.Networks == nil {
		n.Networks = map[string]Nickname{}
	}
	n.Networks[networkID] = Nickname{Aliases: slices.Clone(s.Aliases), Links: slices.Clone(s.Links)}
	return n
}

// NamesOn are the names that others on a network find a container by: its own
// name first. Pure.
func (e *Entry) NamesOn(networkID string) []string {
	all := append([]string{e.Name}, e.Naming.Networks[networkID].Aliases...)
	all = append(all, e.ID[:min(12, len(e.ID))], e.Naming.Hostname)
	var out []string
	for _, n := range all {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// Rename writes down that a container has another name.
func Rename(b *Book, owner, name string) error {
	b.mu.Lock()
	old := b.entries[owner]
	if old == nil {
		b.mu.Unlock()
		return errs.New(errs.NotFound, "container %s has no network sandbox", owner)
	}
	e := *old
	e.Name = name
	b.entries[owner] = &e
	b.mu.Unlock()
	return b.records.write(&e)
}
