package nat

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"

	"github.com/google/nftables/expr"
)

// Pass lets one container of an isolated network open connections to one port of
// another. Answers pass as those of every known connection do, so nothing is
// opened the other way.
type Pass struct {
	Bridge   string
	From, To netip.Addr // of one version of IP
	Proto    Proto
	Port     uint16 // of To
}

// passRules are those for the passes of an isolated network. The ports of such a
// bridge exchange no frames: what passes comes by the host's routing, which
// answers for the neighbours' addresses.
func passRules(n Network, passes []Pass) []rule {
	var out []rule
	for _, p := range sortedPasses(passes) {
		if p.Bridge == n.Bridge {
			out = append(out, rule{iifname(n.Bridge), saddr(single(p.From)), daddr(single(p.To)), dport(p.Proto, p.Port), verdictAccept})
		}
	}
	return out
}

// sortedPasses puts passes in order and leaves those out that are there twice.
func sortedPasses(passes []Pass) []Pass {
	return slices.Compact(slices.SortedFunc(slices.Values(passes), func(a, b Pass) int {
		return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Bridge, b.Bridge))
	}))
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// dport matches packets for a port. The first four bytes of the headers of all
// three protocols are the two ports (RFC 9293 3.1, RFC 768, RFC 9260 3.1).
func dport(proto Proto, port uint16) part {
	return part{proto.String() + " dport " + strconv.Itoa(int(port)), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{byte(proto)}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binary.BigEndian.AppendUint16(nil, port)},
	}}
}

// passed returns the pass by which a container at an address reaches a port of
// the network.
func passed(c Config, n Network, q Question) bool {
	return slices.ContainsFunc(c.Passes, func(p Pass) bool {
		return p.Bridge == n.Bridge && p.From == q.From && p.Proto == q.Proto && p.Port == q.Port && slices.Contains(q.To, p.To)
	})
}

// unredirected are the rules that keep this host from telling a container that its
// neighbour, whose address this host answers for or did until now, can be reached
// without a router: on an isolated bridge it can't.
func unredirected(c Config) []rule {
	var out []rule
	for _, n := range c.Networks {
		if n.Isolated && n.Subnet6.IsValid() {
			out = append(out, rule{oifname(n.Bridge), redirect6, verdictDrop})
		}
	}
	return out
}
