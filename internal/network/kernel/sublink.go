package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// A Sublink is a link of a namespace that stands on one of the host's.
type Sublink struct {
	Kind   string // macvlan or ipvlan
	Mode   string // macvlan: bridge, private, vepa, passthru; ipvlan: l2, l3, l3s
	Flag   string // ipvlan: bridge, private, vepa
	Parent string // name on the host
	Inside string // name in the namespace
	MAC    []byte // macvlan; empty for the kernel's choice
	MTU    int    // 0: the parent's
	Addr   []netip.Prefix
	// Gateway are default routes; an unspecified address is a route to the link.
	Gateway []netip.Addr
	Sysctls map[string]string // as those of Veth
}

// macvlanMode is MACVLAN_MODE_* of <linux/if_link.h>. The empty name is Docker's
// default.
func macvlanMode(name string) uint32 {
	switch name {
	case "private":
		return 1
	case "vepa":
		return 2
	case "passthru":
		return 8
	}
	return 4 // bridge
}

// ipvlanMode is IPVLAN_MODE_* of <linux/if_link.h>.
func ipvlanMode(name string) uint16 {
	switch name {
	case "l3":
		return 1
	case "l3s":
		return 2
	}
	return 0 // l2
}

// ipvlanFlag is IPVLAN_F_* of <linux/if_link.h>.
func ipvlanFlag(name string) uint16 {
	switch name {
	case "private":
		return 1
	case "vepa":
		return 2
	}
	return 0 // bridge
}

// Sublink makes the link straight in the namespace, gives it addresses and default
// routes, and raises it. If it fails nothing is left. A kernel without this kind
// of link is errs.Unsupported, a parent that does not exist unix.ENODEV.
func (h *Host) Sublink(ctx context.Context, n *Namespace, s Sublink) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	parent, err := h.index(s.Parent)
	if err != nil {
		return fmt.Errorf("parent interface %s: %w", s.Parent, err)
	}
	info := attr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(s.Kind))
	s.data(info.AddRtAttr(nl.IFLA_INFO_DATA, nil))
	parts := []nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), name(s.Inside), info,
		attr(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent))), attr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(n.f.Fd())))}
	if len(s.MAC) > 0 {
		parts = append(parts, attr(unix.IFLA_ADDRESS, s.MAC))
	}
	if s.MTU > 0 {
		parts = append(parts, attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(s.MTU))))
	}
	if _, err = h.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...); err != nil {
		return fmt.Errorf("make %s on %s: %w", s.Kind, s.Parent, unknownKind(s.Kind, err))
	}
	index, err := n.index(s.Inside)
	if err == nil {
		err = n.up(index)
	}
	if err == nil {
		err = n.dress(index, Veth{Inside: s.Inside, Addr: s.Addr, Gateway: s.Gateway, Sysctls: s.Sysctls})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("set up %s: %w", s.Inside, err), n.RemoveSublink(s.Inside))
	}
	return nil
}

// data writes what is particular to the kind (IFLA_MACVLAN_*, IFLA_IPVLAN_*).
func (s Sublink) data(to *nl.RtAttr) {
	const mode, flags = 1, 2
	if s.Kind == "macvlan" {
		to.AddRtAttr(mode, nl.Uint32Attr(macvlanMode(s.Mode)))
		return
	}
	to.AddRtAttr(mode, nl.Uint16Attr(ipvlanMode(s.Mode)))
	if f := ipvlanFlag(s.Flag); f != 0 {
		to.AddRtAttr(flags, nl.Uint16Attr(f))
	}
}

// unknownKind says of a kind that the kernel does not know which module has it.
func unknownKind(kind string, err error) error {
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	module := kind
	if kind == "vlan" {
		module = "8021q"
	}
	return errs.New(errs.Unsupported, "this kernel has no %s links: the module %s is missing: %w", kind, module, err)
}

// Knows returns nil if the kernel has links of this kind, loading the module that
// makes them, or errs.Unsupported. It makes none: the request names no parent, and
// that is only looked at by those who know the kind.
func (h *Host) Knows(kind string) error {
	info := attr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	_, err := h.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC), info)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return unknownKind(kind, err)
	}
	return nil
}

// RemoveSublink removes a link of the namespace. One that does not exist is no
// error.
func (n *Namespace) RemoveSublink(link string) error {
	_, err := n.do(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), name(link))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", link, err)
	}
	return nil
}

// A Parent is a link of the host that sublinks shall stand on.
type Parent struct {
	Name string
	// On and VLAN describe an 802.1Q sub-interface: the link it is of, and its
	// number. Without On it is a link that leads nowhere.
	On   string
	VLAN uint16
	// Alias is written on a link that is made here, so that its maker is known.
	Alias string
}

// MakeParent makes the link and raises it. One that exists is left as it is.
func (h *Host) MakeParent(p Parent) error {
	if _, err := h.index(p.Name); err == nil {
		return nil
	}
	kinds := []string{"vlan"}
	if p.On == "" {
		kinds = []string{"dummy", "ifb"} // what is sent to either is gone
	}
	var err error
	for _, kind := range kinds {
		if err = h.makeParent(p, kind); !errors.Is(err, unix.EOPNOTSUPP) {
			break
		}
	}
	if err != nil {
		return err
	}
	i, err := h.index(p.Name)
	if err == nil { // which the message that makes a link can't carry
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(i)
		_, err = h.do(unix.RTM_SETLINK, 0, msg, attr(unix.IFLA_IFALIAS, []byte(p.Alias)))
	}
	if err == nil {
		// It is a mere carrier: the host itself has no address there.
		err = optional(SetSysctl("net/ipv6/conf/"+p.Name+"/disable_ipv6", "1"))
	}
	if err == nil {
		err = h.up(i)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("set up %s: %w", p.Name, err), h.RemoveLink(p.Name))
	}
	return nil
}

func (h *Host) makeParent(p Parent, kind string) error {
	info := attr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	parts := []nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), name(p.Name), info}
	if p.On != "" {
		const vlanID = 1 // IFLA_VLAN_ID
		on, err := h.index(p.On)
		if err != nil {
			return fmt.Errorf("failed to find master interface %s on the Docker host: %w", p.On, err)
		}
		info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(vlanID, nl.Uint16Attr(p.VLAN))
		parts = append(parts, attr(unix.IFLA_LINK, nl.Uint32Attr(uint32(on))))
	}
	if _, err := h.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...); err != nil {
		return fmt.Errorf("failed to create %s %s link: %w", p.Name, kind, unknownKind(kind, err))
	}
	return nil
}

// Alias returns what is written on a link, "" if nothing is or there is no such
// link (ip-link(8), alias).
func (h *Host) Alias(link string) string {
	msgs, err := h.do(unix.RTM_GETLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), name(link))
	if err != nil {
		return ""
	}
	for _, m := range msgs {
		if l, err := netlink.LinkDeserialize(nil, m); err == nil {
			return l.Attrs().Alias
		}
	}
	return ""
}
