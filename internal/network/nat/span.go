package nat

import (
	"net/netip"
	"slices"
)

// A span is a published port, or those of a whole range that lead to the same
// numbers of one container: one element of the packet rules, however long.
type span struct {
	Port
	last uint16 // on the host; that of Port if it is one
}

// leastSpan is how many ports make a range: few are found faster one by one.
const leastSpan = 8

// spans puts those of ports that the rules serve in order, and ranges together.
// Pure.
func spans(ports []Port) []span {
	sorted := slices.SortedFunc(slices.Values(kernelPorts(ports)), comparePorts)
	var out []span
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && follows(sorted[n-1], sorted[n]) {
			n++
		}
		if n < leastSpan {
			n = 1
		}
		out = append(out, span{sorted[0], sorted[n-1].HostPort})
		sorted = sorted[n:]
	}
	return out
}

// follows reports whether b is the next port of a range that a is in. Pure.
func follows(a, b Port) bool {
	whole := a.HostPort != 0 && a.HostIP.IsUnspecified() && a.HostPort == a.Container.Port()
	next := a
	next.HostPort++
	next.Container = netip.AddrPortFrom(a.Container.Addr(), a.Container.Port()+1)
	return whole && a.HostPort != 65535 && b == next
}

// single reports whether the span is one port.
func (s span) single() bool { return s.last == s.HostPort }

// ports are those of the span.
func (s span) ports() []Port {
	var out []Port
	for n := int(s.HostPort); n <= int(s.last); n++ {
		p := s.Port
		p.HostPort = uint16(n)
		if !s.single() {
			p.Container = netip.AddrPortFrom(p.Container.Addr(), p.HostPort)
		}
		out = append(out, p)
	}
	return out
}

// mapOf returns the form of the map that a port is in, which is one of ports.
func mapOf(ports []Port, p Port) layout {
	for _, s := range spans(ports) {
		if at := s.Port; s.HostPort <= p.HostPort && p.HostPort <= s.last && at.Proto == p.Proto && at.HostIP == p.HostIP && (!s.single() || at == p) {
			return layoutOf(s)
		}
	}
	return layoutOf(span{p, p.HostPort})
}

// without returns the spans of a that b does not have. Pure.
func without(a, b []span) []span {
	return slices.DeleteFunc(slices.Clone(a), func(s span) bool { return slices.Contains(b, s) })
}
