package nat

import (
	"errors"
	"net/netip"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// redirectTable is the name of the table, of family ip, that Redirect makes.
const redirectTable = "gantry-names"

// The hooks of a redirection. Whoever filters or tracks connections in the
// namespace sees the port that was asked for, of questions and of answers:
// questions are changed after the last of them has seen the packet come in,
// answers before the first sees it go out.
var (
	lastIn   = hook{"type filter hook input priority 400; policy accept;", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityRef(400)}
	firstOut = hook{"type filter hook output priority -450; policy accept;", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRef(-450)}
)

// Redirection draws the rules by which a socket at another port of the address
// answers for one: at 127.0.0.11, where port 53 must stay free for a program
// that listens on all addresses. It changes packets one by one, both ways, and
// tracks no connection, so that the namespace's other traffic costs the same as
// without it, but for two looks at the name of its interface. Pure.
func Redirection(at netip.AddrPort, to uint16) Ruleset {
	in := chain{name: "questions", hook: lastIn, rules: []rule{{notLoopback("iif", expr.MetaKeyIIF), verdictAccept}}}
	out := chain{name: "answers", hook: firstOut, rules: []rule{{notLoopback("oif", expr.MetaKeyOIF), verdictAccept}}}
	for _, p := range []Proto{UDP, TCP} {
		in.rules = append(in.rules, rule{addressIs("daddr", 16, at.Addr()), portIs(p, "dport", at.Port()), setPort(p, "dport", to)})
		out.rules = append(out.rules, rule{addressIs("saddr", 12, at.Addr()), portIs(p, "sport", to), setPort(p, "sport", at.Port())})
	}
	return Ruleset{Table: redirectTable, Family: nftables.TableFamilyIPv4, Chains: []chain{in, out}}
}

// Redirect puts the rules of Redirection into the network namespace of the
// calling thread, in place of those of before.
func Redirect(at netip.AddrPort, to uint16) error {
	rs := Redirection(at, to)
	// A deletion makes the kernel wait until no processor looks at the rules:
	// milliseconds that a new namespace need not pay.
	err := create(rs)
	if errors.Is(err, unix.EEXIST) {
		err = errors.Join(remove(rs), create(rs))
	}
	return wrap("redirect names", err)
}

// loopbackIndex is the number of lo in every network namespace.
const loopbackIndex = 1

func notLoopback(text string, key expr.MetaKey) part {
	return part{text + ` != "lo"`, []expr.Any{
		&expr.Meta{Key: key, Register: reg},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(loopbackIndex)},
	}}
}

// addressIs matches the address at offset in the header (RFC 791 3.1) of a packet
// of IPv4, which all are in a table of family ip.
func addressIs(which string, offset uint32, a netip.Addr) part {
	return part{"ip " + which + " " + a.String(), []expr.Any{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: a.AsSlice()},
	}}
}

// Where ports and sums are in the headers of TCP and UDP (RFC 9293 3.1, RFC 768).
var portOffsets = map[string]uint32{"sport": 0, "dport": 2}

func sumOffset(p Proto) uint32 {
	if p == TCP {
		return 16
	}
	return 6
}

func portIs(p Proto, which string, port uint16) part {
	return part{p.String() + " " + which + " " + strconv.Itoa(int(port)), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{byte(p)}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: portOffsets[which], Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.BigEndian.PutUint16(port)},
	}}
}

func setPort(p Proto, which string, port uint16) part {
	return part{p.String() + " " + which + " set " + strconv.Itoa(int(port)), []expr.Any{
		&expr.Immediate{Register: reg, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: portOffsets[which], Len: 2,
			CsumType: expr.CsumTypeInet, CsumOffset: sumOffset(p),
		},
	}}
}
