package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
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
}

// The maps: of ports bound to one address of the host, of those bound to all,
// and of ports that are opened at the container's own address.
var (
	at4       = layout{name: "published_at", at: true}
	anywhere4 = layout{name: "published"}
	at6       = layout{name: "published6_at", v6: true, at: true}
	anywhere6 = layout{name: "published6", v6: true}
	opened4   = layout{name: "opened", at: true, opens: true}
	opened6   = layout{name: "opened6", v6: true, at: true, opens: true}
)

var layouts = []layout{at4, anywhere4, at6, anywhere6, opened4, opened6}

// layoutOf returns the form of the map that a port is in.
func layoutOf(p Port) layout {
	switch {
	case p.HostPort == 0 && p.Container.Addr().Is6():
		return opened6
	case p.HostPort == 0:
		return opened4
	case p.HostIP.Is6() && p.HostIP.IsUnspecified():
		return anywhere6
	case p.HostIP.Is6():
		return at6
	case p.HostIP.IsUnspecified():
		return anywhere4
	}
	return at4
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
	if !l.opens {
		s.IsMap, s.DataType = true, nftables.MustConcatSetType(addr, nftables.TypeInetService)
	}
	return s
}

// key is the port's key in the map.
func (l layout) key(p Port) []byte {
	k := make([]byte, 8)
	k[0] = byte(p.Proto)
	port, addr := p.HostPort, p.HostIP
	if l.opens {
		port, addr = p.Container.Port(), p.Container.Addr()
	}
	binary.BigEndian.PutUint16(k[4:], port)
	if l.at {
		return append(addr.AsSlice(), k...)
	}
	return k
}

// element is the port as the kernel has it.
func (l layout) element(p Port) nftables.SetElement {
	e := nftables.SetElement{Key: l.key(p), Comment: p.Owner}
	if !l.opens {
		e.Val = append(p.Container.Addr().AsSlice(), 0, 0, 0, 0)
		binary.BigEndian.PutUint16(e.Val[l.width():], p.Container.Port())
	}
	return e
}

// decode is the reverse of element.
func (l layout) decode(e nftables.SetElement) Port {
	p := Port{HostIP: netip.IPv4Unspecified(), Owner: e.Comment}
	if l.v6 {
		p.HostIP = netip.IPv6Unspecified()
	}
	k := e.Key
	var addr netip.Addr
	if l.at && len(k) >= l.width() {
		addr, _ = netip.AddrFromSlice(k[:l.width()])
		k = k[l.width():]
	}
	if len(k) < 6 {
		return p
	}
	p.Proto = Proto(k[0])
	port := binary.BigEndian.Uint16(k[4:])
	switch {
	case l.opens:
		p.HostIP, p.Container = netip.Addr{}, netip.AddrPortFrom(addr, port)
		return p
	case l.at:
		p.HostIP = addr
	}
	p.HostPort = port
	if w := l.width(); len(e.Val) >= w+2 {
		a, _ := netip.AddrFromSlice(e.Val[:w])
		p.Container = netip.AddrPortFrom(a, binary.BigEndian.Uint16(e.Val[w:]))
	}
	return p
}

// print writes the map in the language of nft(8).
func (m portMap) print(b *strings.Builder) {
	addr, _ := m.address()
	kind, typ := "map", "inet_proto . inet_service"
	if m.at {
		typ = addr + " . " + typ
	}
	if m.opens {
		kind = "set"
	} else {
		typ += " : " + addr + " . inet_service"
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s\n", kind, m.name, typ)
	for i, p := range m.ports {
		lead, tail := "\t\t             ", ",\n"
		if i == 0 {
			lead = "\t\telements = { "
		}
		if i == len(m.ports)-1 {
			tail = " }\n"
		}
		b.WriteString(lead + m.text(p) + tail)
	}
	b.WriteString("\t}\n")
}

func (l layout) text(p Port) string {
	if l.opens {
		return fmt.Sprintf("%s . %s . %d comment %q", p.Container.Addr(), p.Proto, p.Container.Port(), p.Owner)
	}
	key := fmt.Sprintf("%s . %d", p.Proto, p.HostPort)
	if l.at {
		key = p.HostIP.String() + " . " + key
	}
	return fmt.Sprintf("%s comment %q : %s . %d", key, p.Owner, p.Container.Addr(), p.Container.Port())
}
