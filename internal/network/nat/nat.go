// Package nat owns the packet rules of this daemon: one nftables table, drawn
// whole by the pure function Render and put into the kernel in one transaction,
// whose maps then take and lose an element for each published port.
//
// Only the bridge driver calls it. It is the only importer of the nftables
// package. It must not know of containers beyond their ids, which it writes as
// comments on the elements, so that `gantry doctor` finds whose they are.
//
// The way of a packet (published port 8080, container at 172.20.0.2:80):
//
//	from a LAN host    prerouting: dnat  → forward: "ct status dnat" accept
//	from this host     output: dnat      → postrouting: masquerade if from 127/8
//	from a container   prerouting: dnat  → forward → postrouting: masquerade,
//	                   or the answer would not come back this way (hairpin)
//	to the container's own address, from outside → forward: drop
//
// Source of the expressions: nft(8), <linux/netfilter/nf_tables.h>.
package nat

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Config is everything that the rules say.
type Config struct {
	Table    string // of family inet
	Networks []Network
	Ports    []Port
	// Closed are the interfaces between which the host did not forward before
	// this daemon switched forwarding on; it shall not begin to.
	Closed []string
}

// Network is one bridge.
type Network struct {
	Bridge     string
	Subnet     netip.Prefix // IPv4; invalid if none
	Isolated   bool         // containers do not reach each other (icc=false)
	Masquerade bool         // containers reach elsewhere under the host's address
	Internal   bool         // nothing goes in or out
}

// Port is one published port.
type Port struct {
	Proto     Proto
	HostIP    netip.Addr // unspecified: every address of the host
	HostPort  uint16
	Container netip.AddrPort
	Owner     string // container ID
}

// String returns the port as "address:port/protocol".
func (p Port) String() string { return fmt.Sprintf("%s:%d/%s", p.HostIP, p.HostPort, p.Proto) }

// Proto is an IP protocol number.
type Proto uint8

// The protocols whose ports can be published.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

// ParseProto returns the number of a protocol's name, and 0 if it has no ports.
func ParseProto(s string) Proto {
	switch s {
	case "tcp":
		return TCP
	case "udp":
		return UDP
	case "sctp":
		return SCTP
	}
	return 0
}

// String returns the protocol's name.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("proto-%d", uint8(p))
}

// A Ruleset is a table as Render draws it.
type Ruleset struct {
	Table  string
	Maps   []portMap
	Chains []chain
}

// The maps of published ports: those bound to one address of the host, and
// those bound to all.
const (
	byAddress = "published_at"
	anywhere  = "published"
)

type portMap struct {
	name  string
	ports []Port
}

type chain struct {
	name  string
	hook  hook // zero for a chain that is jumped to
	rules []rule
}

// A rule is the conjunction of its parts, each of which knows its text and its
// expressions.
type rule []part

// Render draws the table. It is a pure function: equal values give equal rules.
func Render(c Config) Ruleset {
	c.Networks = slices.SortedFunc(slices.Values(c.Networks), func(a, b Network) int { return strings.Compare(a.Bridge, b.Bridge) })
	r := Ruleset{Table: c.Table, Maps: []portMap{{name: byAddress}, {name: anywhere}}}
	for _, p := range slices.SortedFunc(slices.Values(c.Ports), comparePorts) {
		i := 0
		if p.HostIP.IsUnspecified() {
			i = 1
		}
		r.Maps[i].ports = append(r.Maps[i].ports, p)
	}
	r.Chains = []chain{
		{name: "publish", rules: []rule{{dnat(byAddress)}, {dnat(anywhere)}}},
		{name: "spoofed", hook: rawPrerouting},
		{name: "prerouting", hook: dstnat, rules: []rule{
			// A packet for 127.0.0.1 that comes from a wire is a forgery. Left
			// alone it is dropped as such by the routing that follows;
			// translated it would get through to ports meant for this host only.
			{daddr(loopback), verdictReturn},
			{localDestination, jump("publish")},
		}},
		{name: "output", hook: output, rules: []rule{{localDestination, jump("publish")}}},
		{name: "postrouting", hook: srcnat},
		{name: "forward", hook: forward},
	}
	spoofed, post, fwd := &r.Chains[1], &r.Chains[4], &r.Chains[5]
	for _, n := range c.Networks {
		// Bridges route loopback addresses, for the answers to this host's own
		// connections; a container must not use that to reach or to play
		// the host's loopback.
		spoofed.rules = append(spoofed.rules, rule{iifname(n.Bridge), daddr(loopback), verdictDrop}, rule{iifname(n.Bridge), saddr(loopback), verdictDrop})
		post.rules = append(post.rules, postrouting(n)...)
		if n.Internal {
			fwd.rules = append(fwd.rules, rule{iifname(n.Bridge), notOifname(n.Bridge), verdictDrop}, rule{oifname(n.Bridge), notIifname(n.Bridge), verdictDrop})
		}
	}
	fwd.rules = append(fwd.rules, rule{established, verdictAccept})
	var into []chain
	for _, n := range c.Networks {
		in := chain{name: "to-" + n.Bridge}
		among := verdictAccept
		if n.Isolated {
			among = verdictDrop
		}
		in.rules = []rule{{iifname(n.Bridge), notTranslated, among}, {translated, verdictAccept}, {verdictDrop}}
		into = append(into, in)
		fwd.rules = append(fwd.rules, rule{oifname(n.Bridge), jump(in.name)})
	}
	for _, a := range c.Closed {
		for _, b := range c.Closed {
			fwd.rules = append(fwd.rules, rule{iifname(a), oifname(b), verdictDrop})
		}
	}
	r.Chains = append(r.Chains, into...)
	return r
}

func postrouting(n Network) []rule {
	var rules []rule
	if !n.Subnet.IsValid() {
		return nil
	}
	if n.Masquerade && !n.Internal {
		rules = append(rules, rule{notOifname(n.Bridge), saddr(n.Subnet), masquerade})
	}
	return append(rules,
		rule{oifname(n.Bridge), saddr(loopback), masquerade},
		rule{oifname(n.Bridge), saddr(n.Subnet), translated, masquerade})
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.HostIP.Compare(b.HostIP), cmp.Compare(a.HostPort, b.HostPort))
}

// String returns the rules in the language of nft(8), as `nft list table`
// would show them.
func (r Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", r.Table)
	for _, m := range r.Maps {
		typ := "inet_proto . inet_service"
		if m.name == byAddress {
			typ = "ipv4_addr . " + typ
		}
		fmt.Fprintf(&b, "\tmap %s {\n\t\ttype %s : ipv4_addr . inet_service\n", m.name, typ)
		for i, p := range m.ports {
			lead, tail := "\t\t             ", ",\n"
			if i == 0 {
				lead = "\t\telements = { "
			}
			if i == len(m.ports)-1 {
				tail = " }\n"
			}
			key := fmt.Sprintf("%s . %d", p.Proto, p.HostPort)
			if m.name == byAddress {
				key = p.HostIP.String() + " . " + key
			}
			fmt.Fprintf(&b, "%s%s comment %q : %s . %d%s", lead, key, p.Owner, p.Container.Addr(), p.Container.Port(), tail)
		}
		b.WriteString("\t}\n")
	}
	for _, c := range r.Chains {
		fmt.Fprintf(&b, "\n\tchain %s {\n", c.name)
		if c.hook.text != "" {
			fmt.Fprintf(&b, "\t\t%s\n", c.hook.text)
		}
		for _, ru := range c.rules {
			texts := make([]string, len(ru))
			for i, p := range ru {
				texts[i] = p.text
			}
			fmt.Fprintf(&b, "\t\t%s\n", strings.Join(texts, " "))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}
