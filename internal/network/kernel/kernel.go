// Package kernel puts links, addresses, routes and network namespaces into the
// kernel and takes them out again, by route netlink and a few files of
// /proc/sys/net. It is the only importer of the netlink package.
//
// The network drivers call it with finished values; it holds no policy and
// remembers nothing but its sockets. Everything here is synchronous: what a
// function made exists when it returns, and what it removed is gone.
//
// Source of the messages: rtnetlink(7), veth(4), <linux/if_link.h>.
package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Host is the network namespace that the daemon lives in.
type Host struct {
	conn
	fd    int       // for ioctl(2)
	spare chan conn // sockets for what takes long, in the same namespace
	going sync.WaitGroup
	// leaving are the links that may still be seen though they were removed: by
	// name, *departure.
	leaving sync.Map
	// removing is how many links the kernel is at.
	removing atomic.Int32
}

// Open returns the namespace of the calling thread.
func Open() (*Host, error) {
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	h := &Host{conn: c, fd: fd, spare: make(chan conn, removals)}
	for range removals {
		if c, err = dial(); err != nil {
			h.Close()
			return nil, fmt.Errorf("open route netlink: %w", err)
		}
		h.spare <- c
	}
	return h, nil
}

// Close gives the sockets back, when nothing is on its way out any more. What was
// made stays.
func (h *Host) Close() {
	h.going.Wait()
	close(h.spare)
	for c := range h.spare {
		c.close()
	}
	h.close()
	unix.Close(h.fd)
}

// conn is one lasting netlink socket, bound to the namespace that it was made
// in. Requests take turns on it.
type conn struct{ sockets map[int]*nl.SocketHandle }

func dial() (conn, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return conn{}, err
	}
	return conn{map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}}, nil
}

func (c conn) close() {
	for _, s := range c.sockets {
		s.Close()
	}
}

// do sends one request and waits for its answer.
func (c conn) do(kind, flags int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.Sockets = c.sockets
	for _, p := range parts {
		req.AddData(p)
	}
	return req.Execute(unix.NETLINK_ROUTE, 0)
}

func attr(kind int, data []byte) *nl.RtAttr { return nl.NewRtAttr(kind, data) }

func name(s string) *nl.RtAttr { return attr(unix.IFLA_IFNAME, nl.ZeroTerminated(s)) }

// index returns the number of the link called s. If there is none the error is
// unix.ENODEV.
func (c conn) index(s string) (int, error) {
	msgs, err := c.do(unix.RTM_GETLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), name(s))
	if err != nil {
		return 0, err
	}
	for _, m := range msgs {
		if len(m) >= unix.SizeofIfInfomsg {
			return int(nl.DeserializeIfInfomsg(m).Index), nil
		}
	}
	return 0, unix.ENODEV
}

// up raises the link with the given number.
func (c conn) up(index int) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(index), unix.IFF_UP, unix.IFF_UP
	_, err := c.do(unix.RTM_NEWLINK, 0, msg)
	return err
}

// address gives a link an address; one that it has is no error.
func (c conn) address(index int, p netip.Prefix) error {
	family, b := unix.AF_INET, p.Addr().AsSlice()
	if p.Addr().Is6() {
		family = unix.AF_INET6
	}
	msg := nl.NewIfAddrmsg(family)
	msg.Index, msg.Prefixlen = uint32(index), uint8(p.Bits())
	parts := []nl.NetlinkRequestData{msg, attr(unix.IFA_LOCAL, b), attr(unix.IFA_ADDRESS, b)}
	if p.Addr().Is4() {
		if p.Bits() < 31 {
			parts = append(parts, attr(unix.IFA_BROADCAST, broadcast(p)))
		}
	} else {
		msg.IfAddrmsg.Flags = unix.IFA_F_NODAD // chosen by the address pool: nobody else has it
	}
	_, err := c.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func broadcast(p netip.Prefix) []byte {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return b
}

// gateway sets the default route.
func (c conn) gateway(index int, gw netip.Addr) error {
	msg := nl.NewRtMsg()
	msg.Family = unix.AF_INET
	if gw.Is6() {
		msg.Family = unix.AF_INET6
	}
	parts := []nl.NetlinkRequestData{msg, attr(unix.RTA_OIF, nl.Uint32Attr(uint32(index)))}
	if gw.IsUnspecified() { // whatever is on the link
		if gw.Is4() {
			msg.Scope = unix.RT_SCOPE_LINK
		}
	} else {
		parts = append(parts, attr(unix.RTA_GATEWAY, gw.AsSlice()))
	}
	_, err := c.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, parts...)
	return err
}

// Route makes gw on the link of that name the default route of its family,
// instead of the one that there may be. An unspecified address is a route to the
// link itself.
func (n *Namespace) Route(link string, gw netip.Addr) error {
	i, err := n.index(link)
	if err == nil {
		err = n.gateway(i, gw)
	}
	if err != nil {
		return fmt.Errorf("default route by %s on %s: %w", gw, link, err)
	}
	return nil
}

// Bridge is a bridge to be.
type Bridge struct {
	Name string
	MAC  []byte
	MTU  int            // 0 means the kernel's default
	Addr []netip.Prefix // the gateways of its networks
	// Foreign is true for one that somebody else has made: it gets what
	// containers need, and keeps all that it has.
	Foreign bool
}

// EnsureBridge makes the bridge, or brings an existing link of this name to the
// wanted state, and returns its number. It sets what a bridge of containers
// needs: no IPv6 of its own unless Addr has some, and routing of
// loopback addresses, without which a port published on 127.0.0.1 can't reach a
// container (the packet rules keep everything else from using it).
func (h *Host) EnsureBridge(b Bridge) (index int, err error) {
	info := attr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	parts := []nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), name(b.Name), info}
	if len(b.MAC) > 0 {
		parts = append(parts, attr(unix.IFLA_ADDRESS, b.MAC))
	}
	if b.MTU > 0 {
		parts = append(parts, attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(b.MTU))))
	}
	await(h, b.Name)
	if !b.Foreign {
		_, err = h.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("make bridge %s: %w", b.Name, err)
	}
	if index, err = h.index(b.Name); err != nil {
		return 0, fmt.Errorf("make bridge %s: %w", b.Name, err)
	}
	if err := errors.Join(
		h.bridgeIPv6(b),
		SetSysctl("net/ipv4/conf/"+b.Name+"/route_localnet", "1"),
		h.addresses(b, index),
		h.up(index)); err != nil {
		return 0, fmt.Errorf("set up bridge %s: %w", b.Name, err)
	}
	return index, nil
}

// bridgeIPv6 switches the bridge's own IPv6 on if it has such addresses, and off
// otherwise. Whatever a container advertises, the bridge takes no address or
// route from it.
func (h *Host) bridgeIPv6(b Bridge) error {
	conf := "net/ipv6/conf/" + b.Name
	if slices.ContainsFunc(b.Addr, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		// Until its link-local address has been probed for a second the bridge
		// would not ask for the neighbours of packets that it forwards.
		return errors.Join(SetSysctl(conf+"/accept_dad", "0"), SetSysctl(conf+"/accept_ra", "0"), SetSysctl(conf+"/disable_ipv6", "0"))
	}
	if b.Foreign {
		return nil
	}
	return optional(SetSysctl(conf+"/disable_ipv6", "1"))
}

// addresses gives a bridge its addresses and takes those away that it had
// under an older configuration.
func (h *Host) addresses(b Bridge, index int) error {
	for _, a := range b.Addr {
		if err := h.address(index, a); err != nil {
			return err
		}
	}
	if b.Foreign {
		return nil
	}
	nlh := &netlink.Handle{}
	old, err := dump(func() ([]netlink.Addr, error) {
		return nlh.AddrList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}, netlink.FAMILY_ALL)
	})
	if err != nil {
		return err
	}
	for _, o := range old {
		p := prefix(o)
		if !p.Addr().IsLinkLocalUnicast() && !slices.Contains(b.Addr, p) {
			if err := nlh.AddrDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}, &o); err != nil {
				return err
			}
		}
	}
	return nil
}

func prefix(a netlink.Addr) netip.Prefix {
	ip, _ := netip.AddrFromSlice(a.IP)
	bits, _ := a.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits)
}

// Addresses returns the addresses of a link with the lengths of their subnets,
// those that are only valid on the link left out. If there is no such link the
// error is unix.ENODEV.
func (h *Host) Addresses(link string) ([]netip.Prefix, error) {
	await(h, link)
	i, err := h.index(link)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", link, err)
	}
	nlh := &netlink.Handle{}
	all, err := dump(func() ([]netlink.Addr, error) {
		return nlh.AddrList(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: i}}, netlink.FAMILY_ALL)
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", link, err)
	}
	var out []netip.Prefix
	for _, a := range all {
		if p := prefix(a); !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p)
		}
	}
	return out, nil
}

// Index returns the number of a link, or an error that is unix.ENODEV.
func (h *Host) Index(link string) (int, error) {
	await(h, link)
	return h.index(link)
}

// Link is what Links tells of one.
type Link struct {
	Name   string
	Index  int
	Master int // number of the bridge that it is a port of, or 0
	Kind   string
	Alias  string
}

// Links returns every link of the host whose name begins with one of prefixes.
func (h *Host) Links(prefixes ...string) ([]Link, error) {
	nlh := &netlink.Handle{}
	all, err := dump(nlh.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []Link
	for _, l := range all {
		for _, p := range prefixes {
			if a := l.Attrs(); strings.HasPrefix(a.Name, p) {
				out = append(out, Link{Name: a.Name, Index: a.Index, Master: a.MasterIndex, Kind: l.Type(), Alias: a.Alias})
				break
			}
		}
	}
	return out, nil
}

// Routes returns the destinations of the host's IPv4 and IPv6 routes. Left out
// are default routes and those through one of the links except, or through one that
// is on its way out.
func (h *Host) Routes(except ...string) ([]netip.Prefix, error) {
	skip := map[int]bool{}
	h.leaving.Range(func(_, d any) bool {
		skip[d.(*departure).index] = true
		return true
	})
	nlh := &netlink.Handle{}
	all, err := dump(func() ([]netlink.Route, error) { return nlh.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, e := range except {
		if i, err := h.index(e); err == nil {
			skip[i] = true
		}
	}
	var out []netip.Prefix
	for _, r := range all {
		if r.Dst == nil || skip[r.LinkIndex] {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if ok && bits > 0 {
			out = append(out, netip.PrefixFrom(a.Unmap(), bits))
		}
	}
	return out, nil
}

// SetSysctl writes value to the file key below /proc/sys, with slashes, of the
// network namespace of the calling thread. It writes nothing if the file says
// so already, so that a read-only /proc/sys with the right values is enough.
func SetSysctl(key, value string) error {
	path := filepath.Join("/proc/sys", filepath.Clean("/"+key))
	if old, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(old)) == value {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Sysctl reads a file below /proc/sys.
func Sysctl(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc/sys", filepath.Clean("/"+key)))
	return strings.TrimSpace(string(b)), err
}

// optional makes nothing of a file that this kernel does not have (IPv6
// switched off at boot).
func optional(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
