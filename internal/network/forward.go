package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/network/kernel"
)

const ipForward = "net/ipv4/ip_forward"

// forwarding makes the host forward packets, which published ports and the way
// out of a bridge need. A host that did not forward before must not become a
// router between the networks it is in: the interfaces of that moment are
// written down, and the packet rules drop what would go from one of them to
// another. Interfaces made later, by whatever program, are not concerned.
func (n *Networks) forwarding() error {
	if n.opts.NoIPForward {
		return nil
	}
	if v, err := kernel.Sysctl(ipForward); err != nil || v == "1" {
		return err
	}
	closed, err := n.foreignLinks()
	if err != nil {
		return err
	}
	data, err := json.Marshal(closed)
	if err != nil {
		return err
	}
	if err := durable.Replace(n.closedFile(), data, 0o600); err != nil {
		return err
	}
	n.bridge.SetClosed(closed)
	if err := kernel.SetSysctl(ipForward, "1"); err != nil {
		return errs.New(errs.Unsupported, "switch IP forwarding on: %w", err)
	}
	return nil
}

// foreignLinks returns the interfaces that no Gantry made, loopback left out.
func (n *Networks) foreignLinks() ([]string, error) {
	all, err := n.host.Links("")
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, l := range all {
		if l.Name != "lo" && l.Name != n.opts.Bridge && !ours(l.Name) {
			names = append(names, l.Name)
		}
	}
	return names, nil
}

// reopen switches forwarding off again if this daemon switched it on and
// nothing seems to need it: no network is up, and no interface has appeared
// since that another program might route through.
func (n *Networks) reopen() error {
	before := n.readClosed()
	if before == nil {
		return nil
	}
	now, err := n.foreignLinks()
	if err != nil {
		return err
	}
	for _, l := range now {
		if !slices.Contains(before, l) {
			return nil
		}
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, w := range n.networks {
		if w.up {
			return nil
		}
	}
	if err := kernel.SetSysctl(ipForward, "0"); err != nil {
		return fmt.Errorf("switch IP forwarding off: %w", err)
	}
	if err := os.Remove(n.closedFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	n.bridge.SetClosed(nil)
	return nil
}

func (n *Networks) closedFile() string { return filepath.Join(n.opts.RunDir, "forwarding.json") }

// readClosed returns the interfaces that forwarding was switched on under, or
// nil if this daemon has not done so since the last boot.
func (n *Networks) readClosed() []string {
	data, err := os.ReadFile(n.closedFile())
	if err != nil {
		return nil
	}
	closed := []string{}
	if json.Unmarshal(data, &closed) != nil {
		return nil
	}
	return closed
}
