package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// A layout is the form of one map of ports: what its keys and values are.
type layout struct {
	name string
	v6   bool
	// at: the key begins with an address of the host, and for opens of the
	// container.
	at bool
	// opens: a set of addresses and ports that are let through as they are.
	opens bool
	// ranges: the keys are ranges of ports, which lead to the same numbers.
	ranges bool
}

// The maps: of ports bound to one address of the host, of those bound to all, and
// of ports that are opened at the container's own address; and the same of whole
// ranges.
var (
	at4           = layout{name: "published_at", at: true}
	anywhere4     = layout{name: "published"}
	at6           = layout{name: "published6_at", v6: true, at: true}
	anywhere6     = layout{name: "published6", v6: true}
	opened4       = layout{name: "opened", at: true, opens: true}
	opened6       = layout{name: "opened6", v6: true, at: true, opens: true}
	rangesAt4     = layout{name: "ranges_at", at: true, ranges: true}
	ranges4       = layout{name: "ranges", ranges: true}
	rangesAt6     = layout{name: "ranges6_at", v6: true, at: true, ranges: true}
	ranges6       = layout{name: "ranges6", v6: true, ranges: true}
	openedRanges4 = layout{name: "opened_ranges", at: true, opens: true, ranges: true}
	openedRanges6 = layout{name: "opened6_ranges", v6: true, at: true, opens: true, ranges: true}
)

var layouts = []layout{
	at4, rangesAt4, anywhere4, ranges4, at6, rangesAt6, anywhere6, ranges6, opened4, openedRanges4, opened6, openedRanges6,
}

// layoutOf returns the form of the map that a span is in.
func layoutOf(p span) layout {
	want := layout{ranges: !p.single(), opens: p.HostPort == 0, v6: p.HostIP.Is6(), at: !p.HostIP.IsUnspecified()}
	if want.opens {
		want.v6, want.at = p.Container.Addr().Is6(), true
	}
	i := slices.IndexFunc(layouts, func(l layout) bool {
		want.name = l.name
		return l == want
	})
	return layouts[i]
}

// address returns nft's name and the kernel's type for an address.
func (l layout) address() (string, nftables.SetDatatype) {
	if l.v6 {
		return "ipv6_addr", nftables.TypeIP6Addr
	}
	return "ipv4_addr", nftables.TypeIPAddr
}

// width is the length of an address in bytes.
func (l layout) width() int {
	if l.v6 {
		return 16
	}
	return 4
}

// set describes the map to the kernel. Fields of keys and values are padded to
// four bytes each, as concatenations are.
func (l layout) set(t *nftables.Table) *nftables.Set {
	_, addr := l.address()
	types := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	if l.at {
		types = append([]nftables.SetDatatype{addr}, types...)
	}
	s := &nftables.Set{Table: t, Name: l.name, Concatenation: true, KeyType: nftables.MustConcatSetType(types...)}
	s.Interval = l.ranges
	switch {
	case l.opens:
	case l.ranges:
		s.IsMap, s.DataType = true, addr
	default:
		s.IsMap, s.DataType = true, nftables.MustConcatSetType(addr, nftables.TypeInetService)
	}
	return s
}

// keys are the span's key in the map and, of a range, where it ends.
func (l layout) keys(s span) (first, last []byte) {
	first = l.key(s.Port)
	if l.ranges {
		last = l.key(s.numbered(s.last))
	}
	return first, last
}

// key is the port's key in the map.
func (l layout) key(p Port) []byte {
	k := make([]byte, 8)
	k[0] = byte(p.Proto)
	addr := p.HostIP
	if l.opens {
		addr = p.Container.Addr()
	}
	binary.BigEndian.PutUint16(k[4:], p.number())
	if l.at {
		return append(addr.AsSlice(), k...)
	}
	return k
}

// element is the span as the kernel has it.
func (l layout) element(p span) nftables.SetElement {
	e := nftables.SetElement{Comment: p.Owner}
	e.Key, e.KeyEnd = l.keys(p)
	switch {
	case l.opens:
	case l.ranges:
		e.Val = p.Container.Addr().AsSlice()
	default:
		e.Val = append(p.Container.Addr().AsSlice(), 0, 0, 0, 0)
		binary.BigEndian.PutUint16(e.Val[l.width():], p.Container.Port())
	}
	return e
}

// decode is the reverse of element.
func (l layout) decode(e nftables.SetElement) (s span) {
	p := Port{HostIP: netip.IPv4Unspecified(), Owner: e.Comment}
	defer func() { s.Port, s.last = p, max(s.last, p.number()) }()
	if l.v6 {
		p.HostIP = netip.IPv6Unspecified()
	}
	addr, proto, port, ok := l.split(e.Key)
	if !ok {
		return s
	}
	p.Proto = proto
	if l.ranges {
		_, _, s.last, _ = l.split(e.KeyEnd)
	}
	if l.opens {
		p.HostIP, p.Container = netip.Addr{}, netip.AddrPortFrom(addr, port)
		return s
	}
	if l.at {
		p.HostIP = addr
	}
	p.HostPort = port
	w := l.width()
	if len(e.Val) < w {
		return s
	}
	a, _ := netip.AddrFromSlice(e.Val[:w])
	if l.ranges {
		p.Container = netip.AddrPortFrom(a, port)
	} else if len(e.Val) >= w+2 {
		p.Container = netip.AddrPortFrom(a, binary.BigEndian.Uint16(e.Val[w:]))
	}
	return s
}

// split takes a key apart; false if it is none.
func (l layout) split(k []byte) (addr netip.Addr, proto Proto, port uint16, ok bool) {
	if l.at && len(k) >= l.width() {
		addr, _ = netip.AddrFromSlice(k[:l.width()])
		k = k[l.width():]
	}
	if len(k) < 6 {
		return addr, 0, 0, false
	}
	return addr, Proto(k[0]), binary.BigEndian.Uint16(k[4:]), true
}

// print writes the map in the language of nft(8).
func (m portMap) print(b *strings.Builder) {
	addr, _ := m.address()
	kind, typ := "map", "inet_proto . inet_service"
	if m.at {
		typ = addr + " . " + typ
	}
	switch {
	case m.opens:
		kind = "set"
	case m.ranges:
		typ += " : " + addr
	default:
		typ += " : " + addr + " . inet_service"
	}
	if m.ranges {
		typ += "\n\t\tflags interval"
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s\n", kind, m.name, typ)
	for i, p := range m.spans {
		lead, tail := "\t\t             ", ",\n"
		if i == 0 {
			lead = "\t\telements = { "
		}
		if i == len(m.spans)-1 {
			tail = " }\n"
		}
		b.WriteString(lead + m.text(p) + tail)
	}
	b.WriteString("\t}\n")
}

func (l layout) text(p span) string {
	key := fmt.Sprintf("%s . %d", p.Proto, p.number())
	if l.ranges {
		key += fmt.Sprintf("-%d", p.last)
	}
	switch {
	case l.opens:
		key = p.Container.Addr().String() + " . " + key
	case l.at:
		key = p.HostIP.String() + " . " + key
	}
	key += fmt.Sprintf(" comment %q", p.Owner)
	switch {
	case l.opens:
		return key
	case l.ranges:
		return key + " : " + p.Container.Addr().String()
	}
	return key + fmt.Sprintf(" : %s . %d", p.Container.Addr(), p.Container.Port())
}
