package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemovedLinkLeavesItsName: what is made under the name of a link that has
// just been removed stays, and has its addresses, however long the kernel goes
// on with the old one.
func TestRemovedLinkLeavesItsName(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("kernel tests need root")
		}
		t.Skip("kernel tests need root")
	}
	ready := make(chan error)
	go func() { // the thread ends with its namespace
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = removeAndMake()
		}
		ready <- err
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
}

func removeAndMake() error {
	h, err := Open()
	if err != nil {
		return err
	}
	want := netip.MustParsePrefix("10.99.0.1/24")
	bridge := Bridge{Name: "gbx", Addr: []netip.Prefix{want}}
	for range 10 {
		if _, err := h.EnsureBridge(bridge); err != nil {
			return err
		}
		if err := h.RemoveLink("gbx"); err != nil {
			return err
		}
		if _, err := number(h, "gbx"); !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("the link is there after its removal: %w", err)
		}
	}
	for i := range 12 { // more than can go at once
		if _, err := h.EnsureBridge(Bridge{Name: fmt.Sprint("gby", i), Addr: bridge.Addr}); err != nil {
			return err
		}
	}
	for i := range 12 {
		if err := h.LetGo(fmt.Sprint("gby", i)); err != nil {
			return err
		}
	}
	for i := range 12 {
		if _, err := h.Index(fmt.Sprint("gby", i)); !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("a link that was let go is met: %w", err)
		}
	}
	if err := errors.Join(h.RemoveLink("gbx"), h.RemoveLink("a name that is longer than any of a link")); err != nil {
		return fmt.Errorf("links that are not there: %w", err)
	}
	if _, err := h.EnsureBridge(bridge); err != nil {
		return err
	}
	h.Close() // everything that was on its way out has gone
	if h, err = Open(); err != nil {
		return err
	}
	defer h.Close()
	if got, err := h.Addresses("gbx"); err != nil || len(got) != 1 || got[0] != want {
		return fmt.Errorf("the last link has the addresses %v: %w", got, err)
	}
	return nil
}
