package kernel

import (
	"errors"
	"fmt"
	"math"

	"github.com/vishvananda/netlink"
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

// Shape makes the traffic of a pair obey r, in place of what bounded it before.
// Both ways packets wait in a queue in front of the pair: on the host for those
// that go in, in the namespace for those that come out. A pair without an end on
// the host, and a kernel without the queue, are errors that wrap unix.ENODEV and
// unix.ENOENT.
func (h *Host) Shape(n *Namespace, host, inside string, r Rate) error {
	in, err := h.index(host)
	if err == nil {
		err = bucket(in, r.In)
	} else if r.In == 0 {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("bound what %s receives: %w", inside, err)
	}
	out, err := n.index(inside)
	if err == nil {
		err = n.Do(func() error { return bucket(out, r.Out) })
	}
	if err != nil {
		return fmt.Errorf("bound what %s sends: %w", inside, err)
	}
	return nil
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
