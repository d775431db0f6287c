package kernel

import (
	"errors"
	"fmt"
	"math"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The figures of the token buckets (tc-tbf(8)): what may pass at once is what
// the rate lets through in burstTime, but no less than some full packets; what
// has to wait longer than queueTime is dropped, so that senders slow down.
const (
	burstTime  = 0.01 // seconds
	queueTime  = 0.05 // seconds
	leastBurst = 16 << 10
)

// A Rate bounds a pair of links in bits per second; 0 is no bound.
type Rate struct {
	In  int64 // into the namespace
	Out int64 // out of it
}

// A Shaper bounds one pair of links from the host's side, where a container has
// no say whatever capabilities it has.
type Shaper struct {
	Host   string // the end on the host
	Inside string // the end in the namespace
	// Queue is the name of the link in which packets wait that come out of the
	// namespace, and Owner its alias. It is made for the purpose.
	Queue, Owner string
}

// Shape makes the traffic of a pair obey r, in place of what bounded it before.
//
// Packets that go in wait in front of the host's end. Those that come out of it
// are led through a link of their own (<linux/if_link.h>, ifb), in front of which
// they wait. Where there is no end on the host, and where the kernel lacks what
// that needs, they wait in the namespace.
//
// To bound what goes into a pair without an end on the host, and a kernel without
// any queue, are errors that wrap unix.ENODEV and unix.ENOENT.
func (h *Host) Shape(n *Namespace, s Shaper, r Rate) error {
	host, err := 0, error(unix.ENODEV)
	if s.Host != "" {
		host, err = h.index(s.Host)
	}
	there := err == nil
	if there {
		err = bucket(host, r.In)
	} else if r.In == 0 {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("bound what %s receives: %w", s.Inside, err)
	}
	if !there {
		err = n.bound(s.Inside, r.Out)
	} else if err = h.boundFrom(host, s, r.Out); lacking(err) {
		err = errors.Join(h.Unshape(s), n.bound(s.Inside, r.Out))
	}
	if err != nil {
		return fmt.Errorf("bound what %s sends: %w", s.Inside, err)
	}
	return nil
}

// lacking reports whether an error says that the kernel does not have something.
func lacking(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT)
}

// Unshape removes what Shape made for what comes out of a pair. If there is
// nothing that is no error.
func (h *Host) Unshape(s Shaper) error {
	if i, err := h.index(s.Host); err == nil {
		if err := unled(i); err != nil {
			return err
		}
	}
	return h.RemoveLink(s.Queue)
}

// boundFrom bounds what comes out of the end with that number on the host.
func (h *Host) boundFrom(host int, s Shaper, bits int64) error {
	if bits == 0 {
		return h.Unshape(s)
	}
	info := attr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("ifb"))
	_, err := h.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC), name(s.Queue), info,
		attr(unix.IFLA_TXQLEN, nl.Uint32Attr(queueLength)))
	made := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	queue, err := h.index(s.Queue)
	if err != nil {
		return err
	}
	if made {
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(queue)
		if _, err = h.do(unix.RTM_SETLINK, 0, msg, attr(unix.IFLA_IFALIAS, []byte(s.Owner))); err != nil {
			return err
		}
		if err = optional(SetSysctl("net/ipv6/conf/"+s.Queue+"/disable_ipv6", "1")); err != nil {
			return err
		}
		if err = h.up(queue); err != nil {
			return err
		}
	}
	if err = bucket(queue, bits); err != nil {
		return err
	}
	return lead(host, queue)
}

// queueLength is how many packets an ifb passes on at once.
const queueLength = 1000

func ingress(link int) *netlink.Ingress {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
}

// lead makes everything that comes out of a link wait in another.
func lead(link, queue int) error {
	if err := unled(link); err != nil { // it may be half made
		return err
	}
	if err := netlink.QdiscAdd(ingress(link)); err != nil {
		return err
	}
	return netlink.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: link, Parent: netlink.MakeHandle(0xffff, 0), Priority: 1, Protocol: unix.ETH_P_ALL},
		ClassId:     netlink.MakeHandle(1, 1), RedirIndex: queue,
	})
}

// unled ends what lead began.
func unled(link int) error {
	err := netlink.QdiscDel(ingress(link))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) { // there is none
		return nil
	}
	return err
}

// bound bounds what a link of the namespace sends.
func (n *Namespace) bound(link string, bits int64) error {
	i, err := n.index(link)
	if err != nil {
		return err
	}
	return n.Do(func() error { return bucket(i, bits) })
}

// bucket puts a token bucket in front of a link of the calling thread's
// namespace, or takes it away if bits is 0.
func bucket(index int, bits int64) error {
	attrs := netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	if bits == 0 {
		err := netlink.QdiscDel(&netlink.Tbf{QdiscAttrs: attrs})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) { // there is none
			return nil
		}
		return err
	}
	rate := max(bits/8, 1)
	burst := clamp(float64(rate)*burstTime, leastBurst)
	return netlink.QdiscReplace(&netlink.Tbf{
		QdiscAttrs: attrs, Rate: uint64(rate), Limit: burst + clamp(float64(rate)*queueTime, leastBurst),
		Buffer: netlink.Xmittime(uint64(rate), burst),
	})
}

func clamp(bytes float64, least uint32) uint32 {
	return max(least, uint32(min(bytes, math.MaxInt32/2)))
}
