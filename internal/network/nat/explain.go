package nat

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Question asks whether a packet gets through to a container's port.
type Question struct {
	Proto Proto
	Port  uint16       // of the container
	From  netip.Addr   // who sends; invalid: some host elsewhere
	Link  string       // the bridge of the container's network
	Ports []Port       // what the container publishes
	To    []netip.Addr // its own addresses in that network
}

// Host is what of the machine decides along with our own rules.
type Host struct {
	Table     bool // our table is in the kernel
	Forward4  bool // net.ipv4.ip_forward
	Forward6  bool // net.ipv6.conf.all.forwarding
	Own       []netip.Addr
	Drops     []Chain // chains of others that drop what they do not accept
	Unwatched bool    // rules of iptables-legacy that can't be seen from here
}

// A Chain is a base chain of another program whose policy is to drop.
type Chain struct {
	Family string // ip, ip6 or inet, as nft(8) has it, or the program that made it
	Table  string
	Name   string
	Hook   string // input or forward
	// Passes are the links that a rule of ours accepts in it.
	Passes []string
}

// String returns the chain as "family table/chain".
func (c Chain) String() string { return c.Family + " " + c.Table + "/" + c.Name }

// legacy reports whether the chain is one of iptables-legacy or ip6tables-legacy.
func (c Chain) legacy() bool { return strings.HasSuffix(c.Family, "-legacy") }

// An Answer says which rule lets a packet pass, or stops it.
type Answer struct {
	// Reachable is true if nothing that is known stops the packet. With Doubt,
	// a chain of another program may.
	Reachable bool
	Doubt     bool
	Steps     []string
}

func (a *Answer) say(format string, args ...any) {
	a.Steps = append(a.Steps, fmt.Sprintf(format, args...))
}

func (a *Answer) stop(format string, args ...any) Answer {
	a.say("STOPPED: "+format, args...)
	a.Reachable, a.Doubt = false, false
	return *a
}

// Explain walks the rules that c renders to, and those of the host, with a
// packet. Pure.
func Explain(c Config, h Host, q Question) Answer {
	a := &Answer{}
	i := slices.IndexFunc(c.Networks, func(n Network) bool { return n.Bridge == q.Link })
	if i < 0 {
		return a.stop("the container's network is not up: it does not run, or has no bridge network")
	}
	n := c.Networks[i]
	from, local := "a host elsewhere", q.From.IsLoopback() || slices.Contains(h.Own, q.From)
	switch {
	case local:
		from = "this host"
	case q.From.IsValid() && (n.Subnet.Contains(q.From) || n.Subnet6.Contains(q.From)):
		return fromInside(a, c, h, n, q)
	case q.From.IsValid():
		from = q.From.String()
		for _, o := range c.Networks {
			if o.Subnet.Contains(q.From) || o.Subnet6.Contains(q.From) {
				from += ", a container of the network with bridge " + o.Bridge
			}
		}
	}
	a.say("packet to port %d/%s of the container, from %s", q.Port, q.Proto, from)
	if !h.Table {
		return a.stop("table inet %s is not in the kernel: another program has removed it; it comes back within seconds", c.Table)
	}
	if n.Internal && !local {
		return a.stop(`table inet %s, chain forward: oifname "%s" iifname != "%s" drop: the network is internal`, c.Table, n.Bridge, n.Bridge)
	}
	return throughPorts(a, c, h, q, n, local)
}

// fromInside is a packet from the container's own network: it crosses the bridge
// only.
func fromInside(a *Answer, c Config, h Host, n Network, q Question) Answer {
	if n.Isolated && passed(c, n, q) {
		a.say("packet to port %d/%s of the container, from %s in its own network, which is linked to it: it is routed by bridge %s", q.Port, q.Proto, q.From, n.Bridge)
		a.Reachable = true
		forwarded(a, h, Port{Container: netip.AddrPortFrom(q.From, q.Port)}, n, false)
		if a.Reachable {
			a.say("table inet %s, chain to-%s: %s dport %d accept: a link (--link)", c.Table, n.Bridge, q.Proto, q.Port)
		}
		return *a
	}
	a.say("packet to port %d/%s of the container, from %s in its own network: it crosses bridge %s and no routing", q.Port, q.Proto, q.From, n.Bridge)
	if n.Isolated {
		return a.stop("the ports of bridge %s are isolated from each other (enable_icc=false)", n.Bridge)
	}
	a.say("nothing stops it: every port is open inside a network")
	a.Reachable = true
	return *a
}

// throughPorts is a packet that has to come by a published port.
func throughPorts(a *Answer, c Config, h Host, q Question, n Network, local bool) Answer { //nolint:revive // local is a fact of the packet
	var best *Answer
	// Somebody elsewhere is taken to come by IPv4 if the port is there.
	plain := !q.From.IsValid() && slices.ContainsFunc(q.Ports, func(p Port) bool { return p.Proto == q.Proto && p.Container.Port() == q.Port && p.HostIP.Is4() })
	for _, p := range q.Ports {
		if plain && p.HostIP.Is6() || p.Proto != q.Proto || p.Container.Port() != q.Port || q.From.IsValid() && p.HostPort != 0 && p.HostIP.Is4() != q.From.Is4() {
			continue
		}
		try := &Answer{Steps: slices.Clone(a.Steps)}
		got := throughPort(try, c, h, p, n, local)
		if best == nil || got.Reachable && (!best.Reachable || best.Doubt && !got.Doubt) {
			best = &got
		}
	}
	if best == nil || !best.Reachable {
		if direct, ok := byRouting(*a, c, h, n, q); ok && !local {
			return direct
		}
	}
	if best != nil {
		return *best
	}
	if local {
		a.say("it is not published; this host reaches the container's own address over bridge %s", n.Bridge)
		a.Reachable = true
		return *a
	}
	if n.Mode == Unprotected || n.Mode6 == Unprotected {
		a.say(`table inet %s, chain to-%s: daddr of the network accept: unpublished ports are reachable by routing (nat-unprotected)`, c.Table, n.Bridge)
		a.Reachable = true
		return *a
	}
	return a.stop("table inet %s, chain to-%s: drop: the port is not published%s", c.Table, n.Bridge, other(q))
}

// byRouting is a packet for a container's own address, of a network whose published
// ports are reached so, too; false if it is none, or the port is not published.
func byRouting(a Answer, c Config, h Host, n Network, q Question) (Answer, bool) {
	a.Steps = slices.Clone(a.Steps)
	for _, p := range Opened(q.Ports) {
		if p.Proto != q.Proto || p.Container.Port() != q.Port || q.From.IsValid() && q.From.Is4() != p.Container.Addr().Is4() {
			continue
		}
		who := "allow-direct-routing"
		switch bridged := slices.ContainsFunc(c.Networks, func(o Network) bool { return o.Subnet.Contains(q.From) || o.Subnet6.Contains(q.From) }); {
		case n.Direct && !bridged:
		case len(n.Trusted) > 0 && !n.Direct:
			who, a.Doubt = "trusted_host_interfaces", true
			a.say("MAYBE: only what comes by %s is let through", strings.Join(n.Trusted, " or "))
		default:
			return a, false
		}
		a.Reachable = true
		a.say("the port is published: a packet for %s itself is let through (%s)", p.Container, who)
		forwarded(&a, h, p, n, false)
		if a.Reachable {
			a.say("table inet %s, chain to-%s: @%s accept", c.Table, n.Bridge, mapOf(c.Ports, p).name)
		}
		return a, true
	}
	return a, false
}

// other names what is published instead.
func other(q Question) string {
	var list []string
	for _, p := range q.Ports {
		list = append(list, fmt.Sprintf("%s → %d/%s", p, p.Container.Port(), p.Proto))
	}
	if len(list) == 0 {
		return ""
	}
	return " to this sender (published: " + strings.Join(list, ", ") + ")"
}

// throughPort is a packet that comes by p.
func throughPort(a *Answer, c Config, h Host, p Port, n Network, local bool) Answer { //nolint:revive // local is a fact of the packet
	a.Reachable = true
	if p.HostPort == 0 {
		a.say("the network is routed: the packet must be sent to %s itself", p.Container)
		forwarded(a, h, p, n, local)
		if a.Reachable {
			a.say("table inet %s, chain to-%s: @%s accept", c.Table, n.Bridge, mapOf(c.Ports, p).name)
		}
		return *a
	}
	if p.HostIP.IsLoopback() && !local {
		return a.stop("%s is published for this host only; what comes from a wire for a loopback address is dropped", p)
	}
	if !p.Translated() || p.HostIP.Is6() && p.HostIP.IsLoopback() {
		a.say("a socket of the daemon takes packets for %s and passes them on to %s", p, p.Container)
		if !local {
			a.filtered(h, "input", p.HostIP, "")
		}
		return *a
	}
	a.say("table inet %s, map %s: %s is translated to %s", c.Table, mapOf(c.Ports, p).name, p, p.Container)
	forwarded(a, h, p, n, local)
	if a.Reachable {
		a.say("table inet %s, chain to-%s: ct status dnat accept", c.Table, n.Bridge)
	}
	return *a
}

// forwarded is the way of a packet through the host's routing.
func forwarded(a *Answer, h Host, p Port, n Network, local bool) { //nolint:revive // local is a fact of the packet
	if local {
		a.say("it comes from this host: it is not forwarded, and no forward chain sees it")
		return
	}
	to := p.Container.Addr()
	switch {
	case to.Is4() && !h.Forward4:
		a.stop("net.ipv4.ip_forward is 0: this host forwards nothing (sysctl -w net.ipv4.ip_forward=1)")
		return
	case to.Is6() && !h.Forward6:
		a.stop("net.ipv6.conf.all.forwarding is 0: this host forwards nothing (sysctl -w net.ipv6.conf.all.forwarding=1)")
		return
	}
	a.filtered(h, "forward", to, n.Bridge)
}

// filtered is the way past chains of others. link is that of the container.
func (a *Answer) filtered(h Host, hook string, to netip.Addr, link string) {
	for _, ch := range h.Drops {
		if ch.Hook != hook || ch.Family == "ip" && to.Is6() || ch.Family == "ip6" && to.Is4() {
			continue
		}
		if link != "" && slices.Contains(ch.Passes, link) {
			a.say("chain %s (hook %s) accepts what goes to %s", ch, hook, link)
			continue
		}
		a.Doubt = true
		a.say("MAYBE: chain %s of another program (hook %s) drops what its rules do not accept; an accept of ours can't overrule it", ch, hook)
		if hook == "forward" {
			a.say("       `gantry doctor --fix` lets containers through at its end, or: nft add rule %s %s %s oifname %s accept", ch.Family, ch.Table, ch.Name, link)
		}
	}
	if h.Unwatched {
		a.Doubt = true
		a.say("MAYBE: this host has rules of iptables-legacy, which are not looked at: see iptables-legacy -S")
	}
}
