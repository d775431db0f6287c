// Package nat owns the packet rules of this daemon: one nftables table, drawn
// whole by the pure function Render and put into the kernel in one transaction,
// whose maps then take and lose an element for each published port.
//
// The bridge driver calls it; package names calls Redirect, which makes room at
// the address of a container's name server. It is the only importer of the
// nftables package. It must not know of containers beyond their ids, which it
// writes as comments on the elements, so that `gantry doctor` finds whose they are.
//
// The way of a packet (published port 8080, container at 172.20.0.2:80):
//
//	from a LAN host    prerouting: dnat  → forward: "ct status dnat" accept
//	from this host     output: dnat      → postrouting: masquerade if from 127/8
//	from a container   prerouting: dnat  → forward → postrouting: masquerade,
//	                   or the answer would not come back this way (hairpin)
//	to the container's own address, from outside → forward: drop
//
// IPv6 goes the same way through maps of its own, but for ::1, link-local
// addresses of the host and containers that have IPv4 only: the kernel can't
// translate those, so the daemon's sockets serve them (package relay).
//
// Source of the expressions: nft(8), <linux/netfilter/nf_tables.h>.
package nat

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// Config is everything that the rules say.
type Config struct {
	Table    string // of family inet
	Networks []Network
	Ports    []Port
	// Passes let containers of isolated networks reach single ports of others.
	Passes []Pass
	// Closed are the interfaces between which the host did not forward before
	// this daemon switched forwarding on; it shall not begin to.
	Closed []string
	// Closed6 is the same for IPv6 alone.
	Closed6 []string
	// Accept marks packets that every container of a network that is not internal
	// takes, at every port.
	Accept Mark
}

// Mark is what a packet's mark has to be in the bits of Mask; none if that is 0.
type Mark struct{ Value, Mask uint32 }

// Network is one bridge.
type Network struct {
	Bridge     string
	Subnet     netip.Prefix // IPv4; invalid if none
	Subnet6    netip.Prefix // IPv6; invalid if none
	Isolated   bool         // containers do not reach each other (icc=false)
	Masquerade bool         // containers reach elsewhere under the host's address
	Internal   bool         // nothing goes in or out
	// Mode and Mode6 say how each family of the network meets the others.
	Mode, Mode6 Mode
	// Trusted are interfaces from which the published ports may be reached at the
	// containers' own addresses, Direct says that they may from everywhere but the
	// other bridges. Those ports have to be in the rules as opened, too.
	Trusted []string
	Direct  bool
}

// Mode is how the containers of a network are reached from elsewhere, by
// Docker's names.
type Mode string

// The modes. The empty one is NAT.
const (
	// NAT: by ports of the host that are published.
	NAT Mode = "nat"
	// Unprotected: as NAT, and every port at the container's own address.
	Unprotected Mode = "nat-unprotected"
	// Routed: the published ports at the container's own address, which is not
	// translated on the way out either.
	Routed Mode = "routed"
	// Isolated: as NAT for internal networks; the host itself has no address.
	Isolated Mode = "isolated"
)

// ParseMode reads the name of a mode; empty is NAT.
func ParseMode(s string) (Mode, bool) {
	switch m := Mode(s); m {
	case "":
		return NAT, true
	case NAT, Unprotected, Routed, Isolated:
		return m, true
	}
	return "", false
}

// Port is one published port.
type Port struct {
	Proto     Proto
	HostIP    netip.Addr // unspecified: every address of the host of this family
	HostPort  uint16     // 0: the container's own address and port are opened, nothing is translated
	Container netip.AddrPort
	Owner     string // container ID
	// Filtered ports are never translated: packets for them reach a socket of
	// the host, past the filters that the host has for its own ports.
	Filtered bool `json:",omitempty"`
}

// Opened are the ports of containers that ports publish, as ones that are reached
// at the containers' own addresses. Filtered ones are not: who comes that way comes
// past the host's filters. Pure.
func Opened(ports []Port) []Port {
	var out []Port
	seen := map[Port]bool{}
	for _, p := range ports {
		o := Port{Proto: p.Proto, Container: p.Container, Owner: p.Owner}
		if !p.Filtered && !seen[o] {
			seen[o] = p.HostPort != 0
			if seen[o] {
				out = append(out, o)
			}
		}
	}
	return out
}

// String returns the port as "address:port/protocol".
func (p Port) String() string {
	if p.HostPort == 0 {
		return p.Container.String() + "/" + p.Proto.String()
	}
	return netip.AddrPortFrom(p.HostIP, p.HostPort).String() + "/" + p.Proto.String()
}

// Translated reports whether the packet rules serve the port. Pure.
func (p Port) Translated() bool {
	return p.HostPort == 0 || !p.Filtered && p.HostIP.Is4() == p.Container.Addr().Is4() && !(p.HostIP.Is6() && p.HostIP.IsLoopback())
}

// Relayed reports whether a socket of the daemon serves the port, or that part
// of it that the kernel can't translate. Pure.
func (p Port) Relayed() bool {
	return p.HostPort != 0 && p.Proto != SCTP && (p.Filtered || p.HostIP.Is6() || p.Container.Addr().Is6())
}

// kernelPorts returns those that belong into the maps.
func kernelPorts(ports []Port) []Port {
	out := make([]Port, 0, len(ports))
	for _, p := range ports {
		if p.Translated() {
			out = append(out, p)
		}
	}
	return out
}

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
	Family nftables.TableFamily
	Table  string
	Maps   []portMap
	Links  []linkMap
	Chains []chain
}

type portMap struct {
	layout
	spans []span
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
//
// What every packet passes is short, and as long with many bridges as with one:
// two comparisons of addresses, and whether its connection is known.
func Render(c Config) Ruleset {
	c.Networks = slices.SortedFunc(slices.Values(c.Networks), func(a, b Network) int { return strings.Compare(a.Bridge, b.Bridge) })
	r := Ruleset{Family: nftables.TableFamilyINet, Table: c.Table, Maps: portMaps(c.Ports)}
	bridges, inward, hairpin := linkMap{name: bridgeSet}, linkMap{name: "inward"}, linkMap{name: "hairpin"}
	var into, back []chain
	out, inside := []rule{}, []rule{}
	for _, n := range c.Networks {
		in, at := chain{name: "to-" + n.Bridge, rules: inwardRules(n, c)}, chain{name: "back-" + n.Bridge, rules: hairpinRules(n)}
		bridges.add(n.Bridge)
		inward.add(n.Bridge, in.name)
		hairpin.add(n.Bridge, at.name)
		into, back = append(into, in), append(back, at)
		out = append(out, outward(n)...)
		if n.Internal {
			inside = append(inside, rule{iifname(n.Bridge), notOifname(n.Bridge), verdictDrop}, rule{oifname(n.Bridge), notIifname(n.Bridge), verdictDrop})
		}
	}
	var spoofed, post []rule
	forwarded := []rule{{established, verdictAccept}}
	if len(c.Networks) > 0 {
		r.Links = []linkMap{bridges, inward, hairpin}
		spoofed = []rule{{daddr(loopback), jump("spoofing")}, {saddr(loopback), jump("spoofing")}}
		post = append([]rule{{oifGo(hairpin)}}, out...)
		forwarded = append(append(forwarded, inside...), rule{oifGo(inward)})
	}
	forwarded = append(append(forwarded, closed(c.Closed)...), closed(c.Closed6, daddr(everything6))...)
	r.Chains = []chain{
		{name: "publish", rules: publishRules()},
		{name: "spoofed", hook: rawPrerouting, rules: spoofed},
		{name: "prerouting", hook: dstnat, rules: []rule{
			// A packet for 127.0.0.1 that comes from a wire is a forgery. Left
			// alone it is dropped as such by the routing that follows;
			// translated it would get through to ports meant for this host only.
			{daddr(loopback), verdictReturn},
			{daddr(linkLocal6), verdictReturn},
			{localDestination, jump("publish")},
		}},
		{name: "output", hook: output, rules: []rule{{daddr(loopback6), verdictReturn}, {daddr(linkLocal6), verdictReturn}, {localDestination, jump("publish")}}},
		{name: "postrouting", hook: srcnat, rules: post},
		{name: "forward", hook: forward, rules: forwarded},
	}
	if len(c.Networks) > 0 {
		// Bridges route loopback addresses, for the answers to this host's own
		// connections; a container must not use that to reach or to play
		// the host's loopback.
		r.Chains = append(r.Chains, chain{name: "spoofing", rules: []rule{{iifIn(bridges), verdictDrop}}})
	}
	if rules := unredirected(c); len(rules) > 0 {
		r.Chains = append(r.Chains, chain{name: "redirects", hook: filterOutput, rules: rules})
	}
	r.Chains = append(append(r.Chains, into...), back...)
	return r
}

// portMaps are all maps of ports, with what is in them.
func portMaps(ports []Port) []portMap {
	var out []portMap
	for _, l := range layouts {
		out = append(out, portMap{layout: l})
	}
	for _, p := range spans(ports) {
		i := slices.Index(layouts, layoutOf(p))
		out[i].spans = append(out[i].spans, p)
	}
	return out
}

// publishRules look a packet for this host up in the maps of ports.
func publishRules() []rule {
	var out []rule
	for _, l := range layouts {
		if !l.opens {
			out = append(out, rule{dnat(l)})
		}
	}
	return out
}

var everything6 = netip.MustParsePrefix("::/0")

// closed are the rules that keep packets, those that match, from going from one
// of some interfaces to another.
func closed(links []string, match ...part) []rule {
	var out []rule
	for _, a := range links {
		for _, b := range links {
			out = append(out, append(rule{iifname(a), oifname(b)}, append(slices.Clone(match), verdictDrop)...))
		}
	}
	return out
}

// inwardRules are those for packets that go to the containers of a network.
func inwardRules(n Network, c Config) []rule {
	among := verdictAccept
	rules := []rule{{translated, verdictAccept}}
	if n.Isolated {
		among = verdictDrop
		rules = append(rules, passRules(n, c.Passes)...)
	}
	// Where bridged frames run through here, neighbour discovery does so, too,
	// which is not tracked: no question about its connection has an answer.
	rules = append(rules, rule{iifname(n.Bridge), among})
	if c.Accept.Mask != 0 {
		rules = append(rules, rule{marked(c.Accept), verdictAccept})
	}
	for _, f := range n.families() {
		switch f.mode {
		case Unprotected:
			rules = append(rules, rule{daddr(f.subnet), verdictAccept})
		case Routed:
			rules = append(rules, rule{ping(f.subnet), verdictAccept})
			rules = append(rules, openedRules(f)...)
		default:
			rules = append(rules, directRules(n, f)...)
		}
	}
	return append(rules, rule{verdictDrop})
}

// openedRules let through what is opened at the containers' own addresses, and
// matches the conditions.
func openedRules(f family, when ...part) []rule {
	var out []rule
	for _, l := range f.layouts {
		out = append(out, append(slices.Clone(when), opened(l), verdictAccept))
	}
	return out
}

// directRules are openedRules for those who may come by routing though ports are
// published by translation.
func directRules(n Network, f family) []rule {
	if n.Direct {
		return openedRules(f, iifNotIn(bridgeSet))
	}
	var out []rule
	for _, link := range n.Trusted {
		out = append(out, openedRules(f, iifname(link))...)
	}
	return out
}

// bridgeSet is the name of the set of all bridges.
const bridgeSet = "bridges"

// family is a network's part in one version of IP.
type family struct {
	subnet, loopback netip.Prefix
	mode             Mode
	layouts          []layout // of the maps of opened ports
}

func (n Network) families() []family {
	var out []family
	if n.Subnet.IsValid() {
		out = append(out, family{n.Subnet, loopback, n.Mode, []layout{opened4, openedRanges4}})
	}
	if n.Subnet6.IsValid() {
		out = append(out, family{n.Subnet6, loopback6, n.Mode6, []layout{opened6, openedRanges6}})
	}
	return out
}

// outward are the rules by which what leaves a network gets the host's address.
func outward(n Network) []rule {
	var rules []rule
	for _, f := range n.families() {
		if n.Masquerade && !n.Internal && f.mode != Routed {
			rules = append(rules, rule{notOifname(n.Bridge), saddr(f.subnet), masquerade})
		}
	}
	return rules
}

// hairpinRules are those for packets that go to a network, of this host's
// loopback or of the network itself by a published port: their answers must come
// back this way.
func hairpinRules(n Network) []rule {
	var rules []rule
	for _, f := range n.families() {
		if f.subnet.Addr().Is4() {
			rules = append(rules, rule{saddr(f.loopback), masquerade})
		}
		rules = append(rules, rule{saddr(f.subnet), translated, masquerade})
	}
	return rules
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.HostIP.Compare(b.HostIP), cmp.Compare(a.HostPort, b.HostPort), a.Container.Compare(b.Container))
}

// String returns the rules in the language of nft(8), as `nft list table`
// would show them.
func (r Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", familyName(r.Family), r.Table)
	for _, m := range r.Maps {
		m.print(&b)
	}
	for _, m := range r.Links {
		m.print(&b)
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
