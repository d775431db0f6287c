package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// An Adoption is a link that another program has made on the host and that goes
// into a namespace.
type Adoption struct {
	Link string // on the host
	// Inside is the name that it gets there. Prefix is what the other program
	// wants names to begin with: if Inside does not, the first free one does.
	Inside, Prefix string
	MAC            []byte // empty: as it is
	Addr           []netip.Prefix
	Routes         []StaticRoute
	Sysctls        map[string]string
}

// A StaticRoute leads to what is on the link if Via is invalid.
type StaticRoute struct {
	To  netip.Prefix
	Via netip.Addr
}

// Adopt moves the link, sets it up and raises it. It returns the name and the
// hardware address that the link has then. If it fails the link is where it was,
// or GiveBack brings it there.
func (h *Host) Adopt(n *Namespace, a Adoption) (inside string, mac []byte, err error) {
	i, err := h.index(a.Link)
	if err != nil {
		return "", nil, fmt.Errorf("the link %s that the plugin has made: %w", a.Link, err)
	}
	if inside, err = n.freeName(a.Inside, a.Prefix); err != nil {
		return "", nil, err
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Change = int32(i), unix.IFF_UP // a link that is up can't be renamed
	if _, err := h.do(unix.RTM_SETLINK, 0, msg); err != nil {
		return "", nil, fmt.Errorf("take %s down: %w", a.Link, err)
	}
	msg = nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(i)
	if _, err := h.do(unix.RTM_SETLINK, 0, msg, attr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(n.f.Fd()))), name(inside)); err != nil {
		return "", nil, fmt.Errorf("move %s: %w", a.Link, err)
	}
	mac, err = n.adorn(inside, a)
	if err != nil {
		return inside, nil, errors.Join(fmt.Errorf("set up %s: %w", inside, err), h.GiveBack(n, inside, a.Link))
	}
	return inside, mac, nil
}

func (n *Namespace) adorn(inside string, a Adoption) ([]byte, error) {
	i, err := n.index(inside)
	if err != nil {
		return nil, err
	}
	if len(a.MAC) > 0 {
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(i)
		if _, err := n.do(unix.RTM_SETLINK, 0, msg, attr(unix.IFLA_ADDRESS, a.MAC)); err != nil {
			return nil, err
		}
	}
	if err := n.up(i); err != nil {
		return nil, err
	}
	if err := n.dress(i, Veth{Inside: inside, Addr: a.Addr, Sysctls: a.Sysctls}); err != nil {
		return nil, err
	}
	for _, r := range a.Routes {
		if err := n.route(i, r); err != nil {
			return nil, fmt.Errorf("route to %s: %w", r.To, err)
		}
	}
	msgs, err := n.do(unix.RTM_GETLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), name(inside))
	if err != nil || len(msgs) == 0 {
		return nil, err
	}
	l, err := netlink.LinkDeserialize(nil, msgs[0])
	if err != nil {
		return nil, err
	}
	return l.Attrs().HardwareAddr, nil
}

// freeName is name if it begins with prefix, or the first name after prefix that no
// link of the namespace has.
func (n *Namespace) freeName(name, prefix string) (string, error) {
	if prefix == "" || len(name) > len(prefix) && name[:len(prefix)] == prefix {
		return name, nil
	}
	for i := 0; ; i++ {
		s := prefix + strconv.Itoa(i)
		if len(s) >= unix.IFNAMSIZ {
			return "", fmt.Errorf("the plugin's interface name %q is too long", s)
		}
		if _, err := n.index(s); errors.Is(err, unix.ENODEV) {
			return s, nil
		} else if err != nil {
			return "", err
		}
	}
}

// route adds a route through the link with that number.
func (c conn) route(index int, r StaticRoute) error {
	msg := nl.NewRtMsg()
	msg.Family, msg.Dst_len = unix.AF_INET, uint8(r.To.Bits())
	if r.To.Addr().Is6() {
		msg.Family = unix.AF_INET6
	}
	parts := []nl.NetlinkRequestData{msg, attr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))), attr(unix.RTA_DST, r.To.Masked().Addr().AsSlice())}
	if r.Via.IsValid() {
		parts = append(parts, attr(unix.RTA_GATEWAY, r.Via.AsSlice()))
	} else if r.To.Addr().Is4() {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	_, err := c.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, parts...)
	return err
}

// GiveBack moves a link from the namespace to the host, under the name that it had
// there. One that is not in the namespace any more is no error.
func (h *Host) GiveBack(n *Namespace, inside, link string) error {
	i, err := n.index(inside)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	home, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(home)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Change = int32(i), unix.IFF_UP
	if _, err := n.do(unix.RTM_SETLINK, 0, msg); err != nil {
		return fmt.Errorf("take %s down: %w", inside, err)
	}
	msg = nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(i)
	if _, err := n.do(unix.RTM_SETLINK, 0, msg, attr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(home))), name(link)); err != nil {
		return fmt.Errorf("give %s back: %w", link, err)
	}
	return nil
}
