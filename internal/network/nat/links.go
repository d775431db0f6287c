package nat

import (
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A linkMap says for each of some interfaces what becomes of a packet: with it a
// packet meets as many rules on a host with a hundred bridges as on one with one.
type linkMap struct {
	name string
	// chains are where packets of each interface go, in order of the
	// interfaces; a set of interfaces has none.
	links  []string
	chains []string
}

// add puts an interface in; chain is where its packets go.
func (m *linkMap) add(link string, chain ...string) {
	m.links = append(m.links, link)
	m.chains = append(m.chains, chain...)
}

func (m linkMap) isMap() bool { return len(m.chains) > 0 }

// set describes the map to the kernel.
func (m linkMap) set(t *nftables.Table) *nftables.Set {
	s := &nftables.Set{Table: t, Name: m.name, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
	if m.isMap() {
		s.IsMap, s.DataType = true, nftables.TypeVerdict
	}
	return s
}

func (m linkMap) elements() []nftables.SetElement {
	var out []nftables.SetElement
	for i, l := range m.links {
		e := nftables.SetElement{Key: linkName(l)}
		if m.isMap() {
			e.VerdictData = &expr.Verdict{Kind: expr.VerdictJump, Chain: m.chains[i]}
		}
		out = append(out, e)
	}
	return out
}

// print writes the map in the language of nft(8).
func (m linkMap) print(b *strings.Builder) {
	kind, typ := "set", "ifname"
	if m.isMap() {
		kind, typ = "map", "ifname : verdict"
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s\n", kind, m.name, typ)
	for i, l := range m.links {
		lead, tail := "\t\t             ", ",\n"
		if i == 0 {
			lead = "\t\telements = { "
		}
		if i == len(m.links)-1 {
			tail = " }\n"
		}
		fmt.Fprintf(b, "%s%q", lead, l)
		if m.isMap() {
			b.WriteString(" : jump " + m.chains[i])
		}
		b.WriteString(tail)
	}
	b.WriteString("\t}\n")
}

// linkName is the name of an interface as the kernel compares it.
func linkName(s string) []byte {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, s)
	return data
}

// iifIn matches packets that come by one of the interfaces of a set.
func iifIn(m linkMap) part {
	return part{"iifname @" + m.name, []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: m.name}}}
}

// iifNotIn matches packets that come by none of the interfaces of a set.
func iifNotIn(set string) part {
	return part{"iifname != @" + set, []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: set, Invert: true}}}
}

// oifGo sends packets where the map says of the interface that they leave by.
func oifGo(m linkMap) part {
	return part{"oifname vmap @" + m.name, []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}, &expr.Lookup{SourceRegister: reg, IsDestRegSet: true, SetName: m.name}}}
}
