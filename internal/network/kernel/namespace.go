package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Namespace is a network namespace that a bind mount keeps alive, with a
// socket inside.
type Namespace struct {
	conn
	f *os.File
}

// CreateNamespace makes a network namespace with loopback up, and binds it to
// the file path, which must not exist. Interfaces that come into it have no
// IPv6 until someone gives them an address: what was not asked for is not
// reachable. If it fails nothing is left. taken is the path of a namespace that
// exists and has just been made, to be used instead; empty for none. inside is
// run there at last.
func CreateNamespace(path, taken string, inside ...func() error) (ns *Namespace, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	f.Close()
	err = onThread(func() error {
		if err := enterFresh(taken); err != nil {
			return err
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		ns, err = openHere()
		if err != nil {
			return err
		}
		err = errors.Join(ns.up(1), optional(SetSysctl("net/ipv6/conf/default/disable_ipv6", "1")))
		for _, fn := range inside {
			if err == nil {
				err = fn()
			}
		}
		return err
	})
	if err != nil {
		ns.Close()
		return nil, errors.Join(fmt.Errorf("make network namespace %s: %w", path, err), RemoveNamespace(path))
	}
	return ns, nil
}

// enterFresh brings the thread into a new network namespace, or into that at
// taken.
func enterFresh(taken string) error {
	if taken == "" {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		return nil
	}
	f, err := os.Open(taken)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", taken, err)
	}
	return nil
}

// OpenNamespace opens the namespace bound to path.
func OpenNamespace(path string) (ns *Namespace, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer f.Close()
	err = onThread(func() error {
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = openHere()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return ns, nil
}

func openHere() (*Namespace, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Namespace{c, f}, nil
}

// Close gives the sockets back; the namespace lives as long as its bind mount
// or a process in it.
func (n *Namespace) Close() {
	if n != nil {
		n.close()
		n.f.Close()
	}
}

// Do runs fn on a thread that is in the namespace. fn must not start goroutines
// that rely on it.
func (n *Namespace) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// onThread runs fn on an operating system thread of its own and brings the
// thread back to the namespace it came from. If that fails the thread ends with
// the goroutine, instead of serving others from the wrong namespace.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer unix.Close(home)
		err = fn()
		if back := unix.Setns(home, unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// RemoveNamespace unbinds path and removes the file. What is not there is no
// error. The kernel frees the namespace when its last process has gone.
func RemoveNamespace(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			continue // an older daemon may have bound it twice
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // not a mount point (any more)
		}
		return fmt.Errorf("remove network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

// IsNamespace reports whether path is a bound namespace, and not the mere file
// that a reboot or a crash leaves.
func IsNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Veth is a pair of links, one end on the host and one in a namespace.
type Veth struct {
	Host       string // name on the host
	Bridge     int    // number of the bridge that the host's end is a port of; 0 for none
	BridgeName string // its name
	Inside     string // name in the namespace
	MAC        []byte // of the inner end
	MTU        int
	// Isolated ports of a bridge do not exchange frames with each other.
	Isolated bool
	Addr     []netip.Prefix // of the inner end
	Gateway  []netip.Addr   // default routes through it
	// Sysctls are set in the namespace before the addresses: paths below
	// /proc/sys.
	Sysctls map[string]string
}

// Connect makes the pair, its inner end straight in the namespace, gives that
// end its addresses and default routes, and raises both. If it fails nothing is
// left. A bridge that does not exist is unix.ENODEV.
func (h *Host) Connect(ctx context.Context, n *Namespace, v Veth) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.pair(n, v); err != nil {
		return fmt.Errorf("make veth %s: %w", v.Host, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("set up %s: %w", v.Inside, err), h.RemoveLink(v.Host))
		}
	}()
	// The host's end is a mere bridge port: it needs no link-local address,
	// and without one the host sends no neighbour discovery to the container.
	if err := optional(SetSysctl("net/ipv6/conf/"+v.Host+"/disable_ipv6", "1")); err != nil {
		return err
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	if _, err := h.do(unix.RTM_NEWLINK, 0, msg, name(v.Host)); err != nil {
		return err
	}
	if err := h.port(v); err != nil {
		return err
	}
	index, err := n.index(v.Inside)
	if err != nil {
		return err
	}
	// An end can't be raised by the message that makes it: it has no peer yet.
	if err := n.up(index); err != nil {
		return err
	}
	for _, l := range []string{v.Host, v.BridgeName} {
		if l == "" {
			continue
		}
		if err := h.settle(l); err != nil {
			return err
		}
	}
	return n.dress(index, v)
}

// dress gives the interface with that number in the namespace, which is up, its
// settings, addresses and default routes, and tells the neighbours.
func (n *Namespace) dress(index int, v Veth) error {
	six := slices.ContainsFunc(v.Addr, func(a netip.Prefix) bool { return a.Addr().Is6() })
	if six || len(v.Sysctls) > 0 {
		err := n.Do(func() error {
			conf := "net/ipv6/conf/" + v.Inside
			var all []error
			if six {
				// Addresses come from the pool alone, and are unique by it.
				all = append(all, SetSysctl(conf+"/accept_dad", "0"), SetSysctl(conf+"/autoconf", "0"), SetSysctl(conf+"/accept_ra", "0"), SetSysctl(conf+"/disable_ipv6", "0"))
			}
			for k, val := range v.Sysctls {
				all = append(all, SetSysctl(k, val))
			}
			return errors.Join(all...)
		})
		if err != nil {
			return err
		}
	}
	for _, a := range v.Addr {
		if err := n.address(index, a); err != nil {
			return err
		}
	}
	for _, gw := range v.Gateway {
		if err := n.gateway(index, gw); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) pair(n *Namespace, v Veth) error {
	info := attr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.Inside))
	peer.AddRtAttr(unix.IFLA_ADDRESS, v.MAC)
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(n.f.Fd())))
	parts := []nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), name(v.Host), info}
	if v.MTU > 0 {
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.MTU)))
		parts = append(parts, attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.MTU))))
	}
	if v.Bridge != 0 {
		parts = append(parts, attr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(v.Bridge))))
	}
	_, err := h.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...)
	return err
}

// port sets the flags of a bridge port (IFLA_BRPORT_* of <linux/if_link.h>).
//
// Where bridged frames run through the packet filter (br_netfilter), a container
// that calls its own published port is answered by the bridge, not by the
// router: the frame must be allowed out of the port that it came in by.
// Elsewhere that flag would only reflect every broadcast to its sender.
func (h *Host) port(v Veth) error {
	const hairpin, isolated = 4, 33
	info := attr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	filtered, _ := Sysctl("net/bridge/bridge-nf-call-iptables")
	if filtered == "1" {
		info.AddRtAttr(hairpin, []byte{1})
	}
	if v.Isolated {
		info.AddRtAttr(isolated, []byte{1})
	}
	if v.Bridge == 0 || filtered != "1" && !v.Isolated {
		return nil
	}
	i, err := h.index(v.Host)
	if err != nil {
		return err
	}
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(i)
	_, err = h.do(unix.RTM_SETLINK, 0, msg, info)
	return err
}
