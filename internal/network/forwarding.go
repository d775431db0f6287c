package network

import (
	"errors"
	"fmt"
	"slices"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
)

// The switches of the two versions of IP.
const (
	ipForward  = "net/ipv4/ip_forward"
	ip6Forward = "net/ipv6/conf/all/forwarding"
)

// startForwarding makes the host forward packets, which published ports and the
// way out of a bridge need. A host that did not forward before must not become
// a router between the networks it is in: the interfaces of that moment are
// written down, and the packet rules drop what would go from one of them to
// another. Interfaces made later, by whatever program, are not concerned.
func (s *stage) startForwarding(n driver.Network) error {
	if s.noForward || n.Internal {
		return nil
	}
	var all []error
	if n.Subnet.IsValid() {
		all = append(all, s.forward(ipForward, s.book.Forwarding(), nil))
	}
	if n.Subnet6.IsValid() {
		all = append(all, s.forward(ip6Forward, s.book.Forwarding().IPv6(), keepAdvertised))
	}
	return errors.Join(all...)
}

// forward switches one version of IP on; first is done before, with the
// interfaces of that moment.
func (s *stage) forward(key string, record ledger.Forwarding, first func(links []string) error) error {
	if v, err := kernel.Sysctl(key); err != nil || v == "1" {
		return err
	}
	closed, err := s.foreignLinks()
	if err != nil {
		return err
	}
	if err := record.SetClosed(closed); err != nil {
		return err
	}
	s.bridge.SetClosed(s.book.Forwarding().Closed(), s.book.Forwarding().IPv6().Closed())
	if first != nil {
		err = first(closed)
	}
	if err == nil {
		err = kernel.SetSysctl(key, "1")
	}
	if err != nil {
		return errs.New(errs.Unsupported, "switch IP forwarding on: %w", err)
	}
	return nil
}

// keepAdvertised makes interfaces that have their addresses and routes from
// advertisements of routers go on taking them, which one that forwards does only
// if it is told so (accept_ra=2).
func keepAdvertised(links []string) error {
	for _, l := range links {
		key := "net/ipv6/conf/" + l + "/accept_ra"
		if v, err := kernel.Sysctl(key); err == nil && v == "1" {
			if err := kernel.SetSysctl(key, "2"); err != nil {
				return err
			}
		}
	}
	return nil
}

// stopForwarding switches forwarding off again if this daemon switched it on
// and nothing seems to need it: no network is up, and no interface has appeared
// since that another program might route through.
func (s *stage) stopForwarding() error {
	return errors.Join(s.unforward(ip6Forward, s.book.Forwarding().IPv6()), s.unforward(ipForward, s.book.Forwarding()))
}

func (s *stage) unforward(key string, record ledger.Forwarding) error {
	before := record.Closed()
	if before == nil {
		return nil
	}
	now, err := s.foreignLinks()
	if err != nil {
		return err
	}
	if s.up.any() || slices.ContainsFunc(now, func(l string) bool { return !slices.Contains(before, l) }) {
		return nil
	}
	if err := kernel.SetSysctl(key, "0"); err != nil {
		return fmt.Errorf("switch IP forwarding off: %w", err)
	}
	err = record.SetClosed(nil)
	s.bridge.SetClosed(s.book.Forwarding().Closed(), s.book.Forwarding().IPv6().Closed())
	return err
}

// foreignLinks returns the interfaces that no Gantry made, loopback left out.
func (s *stage) foreignLinks() ([]string, error) {
	all, err := s.host.Links("")
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, w := range s.book.Networks() {
		own[w.Link] = w.Driver == "bridge" // and not the parent of others
	}
	names := []string{}
	for _, l := range all {
		if l.Name != "lo" && !own[l.Name] && !ledger.IsOurs(l.Name) {
			names = append(names, l.Name)
		}
	}
	return names, nil
}
