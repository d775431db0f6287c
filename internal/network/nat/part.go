package nat

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A part is one condition or verdict of a rule: what nft(8) would print, and
// what the kernel is told.
type part struct {
	text  string
	exprs []expr.Any
}

type hook struct {
	text     string
	kind     nftables.ChainType
	num      *nftables.ChainHook
	priority *nftables.ChainPriority
}

var (
	rawPrerouting = hook{"type filter hook prerouting priority raw; policy accept;", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw}
	dstnat        = hook{"type nat hook prerouting priority dstnat; policy accept;", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest}
	output        = hook{"type nat hook output priority dstnat; policy accept;", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest}
	srcnat        = hook{"type nat hook postrouting priority srcnat; policy accept;", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource}
	forward       = hook{"type filter hook forward priority filter; policy accept;", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter}
)

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// The registers of the kernel: 1 is 16 bytes, 8 to 11 are its four quarters.
const (
	reg  = 1
	reg0 = 8
	reg1 = 9
	reg2 = 10
)

var (
	verdictAccept = part{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
	verdictDrop   = part{"drop", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
	verdictReturn = part{"return", []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}}
	masquerade    = part{"masquerade", []expr.Any{&expr.Masq{}}}

	established   = ctBits("ct state established,related", expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, expr.CmpOpNeq)
	translated    = ctBits("ct status dnat", expr.CtKeySTATUS, ipsDstNAT, expr.CmpOpNeq)
	notTranslated = ctBits("ct status ! dnat", expr.CtKeySTATUS, ipsDstNAT, expr.CmpOpEq)

	localDestination = part{"fib daddr type local", []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}}
)

// ipsDstNAT is IPS_DST_NAT of <linux/netfilter/nf_conntrack_common.h>.
const ipsDstNAT = 1 << 5

func ctBits(text string, key expr.CtKey, mask uint32, op expr.CmpOp) part {
	zero := make([]byte, 4)
	return part{text, []expr.Any{
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: zero},
		&expr.Cmp{Op: op, Register: reg, Data: zero},
	}}
}

func jump(to string) part {
	return part{"jump " + to, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to}}}
}

func iifname(s string) part {
	return ifname(`iifname "`+s+`"`, expr.MetaKeyIIFNAME, expr.CmpOpEq, s)
}

func oifname(s string) part {
	return ifname(`oifname "`+s+`"`, expr.MetaKeyOIFNAME, expr.CmpOpEq, s)
}

func notIifname(s string) part {
	return ifname(`iifname != "`+s+`"`, expr.MetaKeyIIFNAME, expr.CmpOpNeq, s)
}

func notOifname(s string) part {
	return ifname(`oifname != "`+s+`"`, expr.MetaKeyOIFNAME, expr.CmpOpNeq, s)
}

func ifname(text string, key expr.MetaKey, op expr.CmpOp, s string) part {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, s)
	return part{text, []expr.Any{&expr.Meta{Key: key, Register: reg}, &expr.Cmp{Op: op, Register: reg, Data: data}}}
}

var isIPv4 = []expr.Any{
	&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
	&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.NFPROTO_IPV4}},
}

func saddr(p netip.Prefix) part { return ip4("ip saddr "+p.String(), 12, p) }
func daddr(p netip.Prefix) part { return ip4("ip daddr "+p.String(), 16, p) }

// ip4 matches the address at offset in the IPv4 header (RFC 791 3.1).
func ip4(text string, offset uint32, p netip.Prefix) part {
	mask := make([]byte, 4)
	for i := range p.Bits() {
		mask[i/8] |= 1 << (7 - i%8)
	}
	return part{text, append(append([]expr.Any{}, isIPv4...),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: p.Masked().Addr().AsSlice()},
	)}
}

// dnat sends a packet where the map says, and lets it pass on if it is not in
// the map.
func dnat(set string) part {
	key := "meta l4proto . th dport"
	proto, port := uint32(reg0), uint32(reg1)
	load := append([]expr.Any{}, isIPv4...)
	if set == byAddress {
		key = "ip daddr . " + key
		proto, port = reg1, reg2
		load = append(load, &expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4})
	}
	return part{"dnat ip to " + key + " map @" + set, append(load,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: proto},
		&expr.Payload{DestRegister: port, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: set},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg, RegProtoMin: reg1},
	)}
}
