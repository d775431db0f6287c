package nat

import (
	"fmt"
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
	filterOutput  = hook{"type filter hook output priority filter; policy accept;", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter}
	forward       = hook{"type filter hook forward priority filter; policy accept;", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter}
)

var (
	loopback   = netip.MustParsePrefix("127.0.0.0/8")
	loopback6  = netip.MustParsePrefix("::1/128")
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
)

// The registers of the kernel: 1 to 4 are 16 bytes each, 8 to 11 the four
// quarters of 1, 12 and 13 the first two of 2.
const (
	reg  = 1
	reg0 = 8
)

var (
	verdictAccept = part{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
	verdictDrop   = part{"drop", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
	verdictReturn = part{"return", []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}}
	masquerade    = part{"masquerade", []expr.Any{&expr.Masq{}}}

	established = ctBits("ct state established,related", expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, expr.CmpOpNeq)
	translated  = ctBits("ct status dnat", expr.CtKeySTATUS, ipsDstNAT, expr.CmpOpNeq)

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

func marked(m Mark) part {
	text := fmt.Sprintf("meta mark & 0x%08x == 0x%08x", m.Mask, m.Value)
	if m.Mask == 0xffffffff {
		text = fmt.Sprintf("meta mark 0x%08x", m.Value)
	}
	return part{text, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(m.Mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(m.Value)},
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
	return part{text, []expr.Any{&expr.Meta{Key: key, Register: reg}, &expr.Cmp{Op: op, Register: reg, Data: linkName(s)}}}
}

// family selects packets of one version of IP.
func ofFamily(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{proto}},
	}
}

func saddr(p netip.Prefix) part {
	if p.Addr().Is6() {
		return inside("ip6 saddr ", 8, p)
	}
	return inside("ip saddr ", 12, p)
}

func daddr(p netip.Prefix) part {
	if p.Addr().Is6() {
		return inside("ip6 daddr ", 24, p)
	}
	return inside("ip daddr ", 16, p)
}

// inside matches the address at offset in the header (RFC 791 3.1, RFC 8200 3).
func inside(text string, offset uint32, p netip.Prefix) part {
	proto, n := byte(unix.NFPROTO_IPV4), 4
	if p.Addr().Is6() {
		proto, n = unix.NFPROTO_IPV6, 16
	}
	mask := make([]byte, n)
	for i := range p.Bits() {
		mask[i/8] |= 1 << (7 - i%8)
	}
	if p.IsSingleIP() {
		text += p.Addr().String()
	} else {
		text += p.String()
	}
	return part{text, append(ofFamily(proto),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(n)},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(n), Mask: mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: p.Masked().Addr().AsSlice()},
	)}
}

// portKey loads what a map of this form is looked up by.
func portKey(l layout) (string, []expr.Any) {
	key := "meta l4proto . th dport"
	family, name, offset := byte(unix.NFPROTO_IPV4), "ip", uint32(16)
	if l.v6 {
		family, name, offset = unix.NFPROTO_IPV6, "ip6", 24
	}
	proto := uint32(reg0)
	load := ofFamily(family)
	if l.at {
		key = name + " daddr . " + key
		load = append(load, &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(l.width())})
		proto += uint32(l.width() / 4)
	}
	return key, append(load,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: proto},
		&expr.Payload{DestRegister: proto + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	)
}

// dnat sends a packet where the map says, and lets it pass on if it is not in
// the map.
func dnat(l layout) part {
	key, load := portKey(l)
	name, family := "ip", uint32(unix.NFPROTO_IPV4)
	if l.v6 {
		name, family = "ip6", unix.NFPROTO_IPV6
	}
	to := &expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg}
	if !l.ranges { // those keep the port
		to.RegProtoMin = reg0 + uint32(l.width()/4)
	}
	return part{"dnat " + name + " to " + key + " map @" + l.name, append(load,
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: l.name}, to)}
}

// opened matches packets for an address and port in the set.
func opened(l layout) part {
	key, load := portKey(l)
	return part{key + " @" + l.name, append(load, &expr.Lookup{SourceRegister: reg, SetName: l.name})}
}

// ping matches echo requests to a subnet (RFC 792, RFC 4443 4.1).
func ping(p netip.Prefix) part {
	to := daddr(p)
	text, proto, echo := " icmp type echo-request", byte(unix.IPPROTO_ICMP), byte(8)
	if p.Addr().Is6() {
		text, proto, echo = " icmpv6 type echo-request", unix.IPPROTO_ICMPV6, 128
	}
	return part{to.text + text, append(to.exprs, icmpType(proto, echo)...)}
}

// redirect6 matches redirects (RFC 4861 4.5).
var redirect6 = part{"icmpv6 type nd-redirect", icmpType(unix.IPPROTO_ICMPV6, 137)}

// icmpType matches messages of one type.
func icmpType(proto, kind byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{proto}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{kind}},
	}
}
