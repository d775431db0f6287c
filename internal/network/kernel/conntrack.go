package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// A Flow names the connections that Forget drops.
type Flow struct {
	Proto uint8 // IP protocol number
	// Port is the destination port of the first packet, as the host saw it.
	Port uint16
	// Reply is who answers, From who has begun; invalid matches everyone.
	Reply, From netip.Addr
}

// Forget drops the tracked connections, of both versions of IP, that match one
// of flows. A datagram
// flow that began before a port was published, or that leads to a container
// that is gone, would otherwise keep its old way for as long as packets come.
// It reads the whole connection table: call it for UDP only, or
// where connections are to be cut, which then meet the rules as new ones do.
func Forget(flows []Flow) error {
	if len(flows) == 0 {
		return nil
	}
	for _, family := range []netlink.InetFamily{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if !slices.ContainsFunc(flows, func(f Flow) bool { return !f.Reply.IsValid() || f.Reply.Is6() == (family == netlink.FAMILY_V6) }) {
			continue
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, match(flows)); err != nil {
			return fmt.Errorf("drop tracked connections: %w", err)
		}
	}
	return nil
}

type match []Flow

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (m match) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	for _, w := range m {
		if f.Forward.Protocol != w.Proto || f.Forward.DstPort != w.Port {
			continue
		}
		if is(f.Reverse.SrcIP, w.Reply) && is(f.Forward.SrcIP, w.From) {
			return true
		}
	}
	return false
}

// is reports whether an address is the one that is wanted, if one is.
func is(ip net.IP, want netip.Addr) bool {
	a, _ := netip.AddrFromSlice(ip)
	return !want.IsValid() || a.Unmap() == want
}
