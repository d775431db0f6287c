package nat

import (
	"net/netip"
	"slices"
)

// A span is a published port, or those of a whole range that lead to the same
// numbers of one container: one element of the packet rules, however long.
type span struct {
	Port
	last uint16 // the last number; that of Port if it is one
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
		out = append(out, span{sorted[0], sorted[n-1].number()})
		sorted = sorted[n:]
	}
	return out
}

// number is the port's on the host, or of one that is opened as it is.
func (p Port) number() uint16 {
	if p.HostPort == 0 {
		return p.Container.Port()
	}
	return p.HostPort
}

// numbered is the port with other numbers on both sides.
func (p Port) numbered(n uint16) Port {
	if p.HostPort != 0 {
		p.HostPort = n
	}
	p.Container = netip.AddrPortFrom(p.Container.Addr(), n)
	return p
}

// follows reports whether b is the next port of a range that a is in: one of equal
// numbers on both sides, since a rule that leads a range to another keeps the
// numbers. (The kernel can shift them, but only so that of two connections that it
// can't tell apart one is led to the port beside.) Pure.
func follows(a, b Port) bool {
	n := a.number()
	return n == a.Container.Port() && n != 65535 && b == a.numbered(n+1)
}

// single reports whether the span is one port.
func (s span) single() bool { return s.last == s.number() }

// ports are those of the span.
func (s span) ports() []Port {
	if s.single() {
		return []Port{s.Port}
	}
	var out []Port
	for n := int(s.number()); n <= int(s.last); n++ {
		out = append(out, s.numbered(uint16(n)))
	}
	return out
}

// mapOf returns the form of the map that a port is in, which is one of ports.
func mapOf(ports []Port, p Port) layout {
	for _, s := range spans(ports) {
		if s.has(p) {
			return layoutOf(s)
		}
	}
	return layoutOf(span{p, p.number()})
}

// has reports whether a port is one of the span's, whoever has it.
func (s span) has(p Port) bool {
	n, first := p.number(), s.number()
	if n < first || n > s.last || p.HostIP != s.HostIP || p.Proto != s.Proto || (p.HostPort == 0) != (s.HostPort == 0) {
		return false
	}
	return p.Container == netip.AddrPortFrom(s.Container.Addr(), s.Container.Port()+n-first)
}

// without returns the spans of a that b does not have. Pure.
func without(a, b []span) []span {
	return slices.DeleteFunc(slices.Clone(a), func(s span) bool { return slices.Contains(b, s) })
}
