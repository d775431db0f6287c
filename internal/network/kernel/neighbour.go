package kernel

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// AnswerFor has the host answer, on a bridge, who asks there for one of these
// addresses of IPv6 as a neighbour, and for no other. A bridge that is not there is
// no error.
func AnswerFor(h *Host, link string, addrs []netip.Addr) error {
	index, err := h.Index(link)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(addrs) > 0 {
		// What is asked goes to a group that the bridge would lead to those only
		// who have joined it, for seconds without us.
		if err := flood(h, index); err != nil {
			return err
		}
	}
	entry := func(a netip.Addr) *netlink.Neigh {
		return &netlink.Neigh{LinkIndex: index, Family: unix.AF_INET6, Flags: unix.NTF_PROXY, IP: a.AsSlice()}
	}
	list, err := netlink.NeighProxyList(index, unix.AF_INET6)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return err
	}
	var all []error
	have := map[netip.Addr]bool{}
	for _, n := range list {
		a, ok := netip.AddrFromSlice(n.IP)
		if !ok || n.LinkIndex != index {
			continue
		}
		if have[a] = true; !slices.Contains(addrs, a) {
			if err := netlink.NeighDel(entry(a)); !errors.Is(err, unix.ENOENT) {
				all = append(all, err)
			}
		}
	}
	for _, a := range addrs {
		if !have[a] {
			have[a] = true
			all = append(all, netlink.NeighAdd(entry(a)))
		}
	}
	return errors.Join(all...)
}

// flood has a bridge lead what is for a group to every port.
func flood(h *Host, index int) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	info := attr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(unix.IFLA_BR_MCAST_SNOOPING, []byte{0})
	_, err := h.do(unix.RTM_NEWLINK, 0, msg, info)
	if errors.Is(err, unix.EOPNOTSUPP) { // a kernel that does so always
		return nil
	}
	return err
}
