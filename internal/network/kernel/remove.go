package kernel

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// removals is how many links are on their way out of the kernel at once. It
// takes most of the way one after another, and each holds up a thread.
const removals = 16

// RemoveLink removes the link, and with a veth its other end. One that does not
// exist is no error.
//
// It returns when the link is not there for anybody any more: its name is free,
// no route leads to it. By then the kernel has done with it but for waiting until
// no processor can still look at it (twice a grace period of RCU, some tens of
// milliseconds), which whoever asked has no use of. Whatever is made next has to
// wait for the part of that which matters, inside the kernel. Close waits for
// all of it.
func (h *Host) RemoveLink(link string) error { return takeOff(h, link, nil) }

// How long LetGo waits for a link to go: while the kernel is at others it takes
// them one after another, and to wait is in vain.
const (
	patience     = 10 * time.Millisecond
	patienceBusy = 500 * time.Microsecond
)

// LetGo is RemoveLink for a link that leads to nobody: where the kernel is busy
// with others it does not wait long. Whoever makes a link of this name here, or
// asks for one or for routes, does not meet the old one.
func (h *Host) LetGo(link string) error {
	wait := patience
	if h.removing.Load() > 0 {
		wait = patienceBusy
	}
	return takeOff(h, link, time.After(wait))
}

// takeOff begins the removal of a link and returns when it is gone, or, without
// an error, when enough is over.
func takeOff(h *Host, link string, enough <-chan time.Time) error {
	i, err := number(h, link)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove link %s: %w", link, err)
	}
	c := <-h.spare
	done, gone := make(chan error, 1), &departure{index: int(i), over: make(chan struct{})}
	h.leaving.Store(link, gone)
	h.removing.Add(1)
	h.going.Go(func() {
		defer h.removing.Add(-1)
		done <- remove(c, i)
		h.leaving.CompareAndDelete(link, gone)
		close(gone.over)
		h.spare <- c
	})
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 4*time.Millisecond) {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("remove link %s: %w", link, err)
			}
			return nil
		case <-enough:
			return nil
		case <-time.After(wait):
		}
		if now, err := number(h, link); errors.Is(err, unix.ENODEV) || err == nil && now != i {
			h.leaving.CompareAndDelete(link, gone)
			return nil
		}
	}
}

// departure is a link on its way out that may still be seen.
type departure struct {
	index int
	over  chan struct{} // closed when it has gone
}

// await returns when no link of this name is on its way out.
func await(h *Host, link string) {
	if gone, ok := h.leaving.Load(link); ok {
		<-gone.(*departure).over
	}
}

// remove removes the link with this number, to the end. It is by number since by
// then another link could have the name.
func remove(c conn, index uint32) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	if _, err := c.do(unix.RTM_DELLINK, 0, msg); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// number returns that of a link, or unix.ENODEV. Other than index it never waits
// for a change that the kernel is busy with (netdevice(7), SIOCGIFINDEX).
func number(h *Host, link string) (uint32, error) {
	r, err := unix.NewIfreq(link)
	if err != nil { // no link can have such a name
		return 0, unix.ENODEV
	}
	if err := unix.IoctlIfreq(h.fd, unix.SIOCGIFINDEX, r); err != nil {
		return 0, err
	}
	return r.Uint32(), nil
}
