package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/network/driver"
	"gantry/internal/network/ipam"
	"gantry/internal/network/kernel"
	"gantry/internal/network/nat"
	"gantry/internal/network/ports"
	"gantry/internal/wire"
)

// Attach makes the sandbox of a container: namespace, endpoints, addresses,
// published ports. What an earlier, interrupted attach or a missing detach left
// under the same ID is removed first. If it fails nothing is left.
//
// Errors carry Docker's texts: an unknown network is errs.NotFound, a taken host
// port or an exhausted pool fail with what the client knows.
func (n *Networks) Attach(ctx context.Context, r AttachRequest) (*Sandbox, error) {
	s, err := n.attach(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("failed to set up container networking: %w", err)
	}
	out := s.Sandbox
	return &out, nil
}

func (n *Networks) attach(ctx context.Context, r AttachRequest) (*sandbox, error) {
	unlock, err := n.making.Lock(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := n.detach(ctx, r.ID); err != nil {
		return nil, err
	}
	s, err := n.decide(r)
	if err != nil {
		return nil, err
	}
	if err = n.writeSandbox(s); err == nil {
		err = n.make(ctx, s, r.Sysctls)
	}
	if err != nil {
		return nil, errors.Join(err, n.unmake(context.WithoutCancel(ctx), s))
	}
	n.tellAll(wire.Event{Action: "connect"}, s.Endpoints, s.ID)
	return s, nil
}

// decide chooses everything and holds it: the sandbox is now on the books.
func (n *Networks) decide(r AttachRequest) (*sandbox, error) {
	s := &sandbox{Sandbox: Sandbox{ID: r.ID}, Name: r.Name}
	n.mu.Lock()
	defer n.mu.Unlock()
	kind, _, _ := strings.Cut(r.Mode, ":")
	switch {
	case kind == "container":
		t := n.sandboxes[r.SharedWith]
		if t == nil || !t.complete {
			return nil, errs.New(errs.Conflict, "cannot join network namespace of a non running container: %s", r.SharedWith)
		}
		s.Mode, s.SharedWith, s.Path = modeContainer, r.SharedWith, t.Path
	case r.Mode == hostNetwork, r.Mode == noneNetwork:
		s.Mode = r.Mode
		w := n.named(r.Mode)
		s.Endpoints = []Endpoint{{NetworkID: w.rec.ID, NetworkName: w.rec.Name, ID: id.New()}}
	default:
		s.Mode = modeLinks
		if err := n.decideLinks(s, r); err != nil {
			n.forgetLocked(s)
			return nil, err
		}
	}
	if s.Mode == modeNone || s.Mode == modeLinks {
		s.Path = filepath.Join(n.netnsDir(), s.ID)
	}
	n.sandboxes[s.ID] = s
	return s, nil
}

// wish is one network that a container asks for.
type wish struct {
	net      *network
	settings *wire.EndpointSettings
}

// wishes resolves the networks of a request: the mode's first, then the others
// by name. The lock is held.
func (n *Networks) wishes(r AttachRequest) ([]wish, error) {
	mode := r.Mode
	if mode == "" || mode == "default" {
		mode = defaultNetwork
	}
	first, err := n.find(mode)
	if err != nil {
		return nil, err
	}
	out := []wish{{net: first, settings: &wire.EndpointSettings{}}}
	for _, ref := range slices.Sorted(maps.Keys(r.Endpoints)) {
		set := r.Endpoints[ref]
		if set == nil {
			set = &wire.EndpointSettings{}
		}
		if ref == "default" {
			ref = defaultNetwork
		}
		w, err := n.find(ref)
		if err != nil && set.NetworkID != "" { // renamed or made anew under its ID
			w, err = n.find(set.NetworkID)
		}
		switch {
		case err != nil:
			return nil, err
		case w == first:
			out[0].settings = set
		case n.drivers[w.rec.Driver] == nil:
			return nil, errs.New(errs.Invalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
		default:
			out = append(out, wish{w, set})
		}
	}
	return out, nil
}

func (n *Networks) decideLinks(s *sandbox, r AttachRequest) error {
	ws, err := n.wishes(r)
	if err != nil {
		return err
	}
	gw := gatewayOf(ws)
	for i, w := range ws {
		if err := n.decideLink(s, w, i, i == gw); err != nil {
			return err
		}
	}
	if gw < 0 {
		return nil
	}
	e, l := &s.Endpoints[gw], &s.Links[gw]
	if err := n.decidePorts(e, l, ws[gw].net, r); err != nil {
		return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", r.Name, e.ID, err)
	}
	return nil
}

// gatewayOf returns the index of the network that gives the default route: the
// highest priority, then the first by name; never an internal one. Pure.
func gatewayOf(ws []wish) int {
	best := -1
	for i, w := range ws {
		if w.net.rec.Internal {
			continue
		}
		if best < 0 || cmp.Or(cmp.Compare(ws[best].settings.GwPriority, w.settings.GwPriority),
			cmp.Compare(w.net.rec.Name, ws[best].net.rec.Name)) < 0 {
			best = i
		}
	}
	return best
}

func (n *Networks) decideLink(s *sandbox, w wish, index int, gateway bool) error {
	rec := &w.net.rec
	p := rec.plan()
	if w.net.pool == nil {
		return errs.New(errs.Unsupported, "network %s has no IPv4 addresses", rec.Name)
	}
	addr, err := n.address(s.ID, w)
	if err != nil {
		return err
	}
	w.net.users++
	e := Endpoint{
		NetworkID: rec.ID, NetworkName: rec.Name, ID: id.New(), Interface: ifPrefix(rec) + strconv.Itoa(index),
		IPv4: netip.PrefixFrom(addr, p.Subnet.Bits()),
	}
	l := driver.Endpoint{Owner: s.ID, Network: rec.ID, Interface: e.Interface, HostLink: hostLink(s.ID, index), Addr: e.IPv4, MAC: ipam.MAC(addr)}
	if m := w.settings.MacAddress; len(m) > 0 {
		l.MAC = m
	}
	e.MAC = net.HardwareAddr(l.MAC).String()
	if !rec.Internal {
		e.Gateway4 = p.Gateway
	}
	if gateway {
		l.Gateway = e.Gateway4
	}
	s.Endpoints, s.Links = append(s.Endpoints, e), append(s.Links, l)
	return nil
}

func ifPrefix(r *record) string {
	if p := r.Options[optIfPrefix]; p != "" {
		return p
	}
	return "eth"
}

// address takes the wished address, or any.
func (n *Networks) address(owner string, w wish) (netip.Addr, error) {
	if c := w.settings.IPAMConfig; c != nil && c.IPv4Address.IsValid() {
		if w.net.rec.Name == defaultNetwork {
			return netip.Addr{}, errOwnAddress
		}
		return c.IPv4Address, w.net.pool.Claim(c.IPv4Address, owner)
	}
	a, err := w.net.pool.Allocate(owner)
	if err != nil {
		return a, errs.New(errs.Denied, "no available IPv4 addresses on this network's address pools: %s (%s)", w.net.rec.Name, w.net.rec.ID)
	}
	return a, nil
}

var errOwnAddress = errs.New(errs.Invalid, "invalid config for network bridge: invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only")

// linkPrefix begins the host's end of every veth pair, bridgePrefix the bridges
// of networks that users made.
const (
	linkPrefix   = "gt"
	bridgePrefix = "gb"
)

// hostLink names the host's end of a container's n-th interface, in the 15
// bytes that a name has.
func hostLink(owner string, n int) string {
	return fmt.Sprintf("%s%.11s%s", linkPrefix, owner, strconv.FormatInt(int64(n), 36))
}

// decidePorts holds host ports for what shall be published.
func (n *Networks) decidePorts(e *Endpoint, l *driver.Endpoint, w *network, r AttachRequest) error {
	e.Ports = wire.PortMap{}
	for p := range r.Exposed {
		e.Ports[p] = nil
	}
	for _, b := range bindings(r) {
		proto := nat.ParseProto(string(b.port.Proto()))
		if proto == 0 {
			return errs.New(errs.Invalid, "invalid protocol %q", b.port.Proto())
		}
		ip := b.HostIP
		if !ip.IsValid() {
			ip = n.opts.HostIP
			if a, err := netip.ParseAddr(w.rec.Options[optHostIP]); err == nil {
				ip = a
			}
		}
		if ip = ip.Unmap(); ip.Is6() {
			return errs.New(errs.Unsupported, "Bind for [%s]:%s failed: network %s has no IPv6", ip, b.HostPort, w.rec.Name)
		}
		want, err := ports.Parse(b.HostPort)
		if err != nil {
			return err
		}
		got, err := n.ports.Reserve(proto.String(), ip, want)
		if err != nil {
			return err
		}
		l.Ports = append(l.Ports, nat.Port{Proto: proto, HostIP: ip, HostPort: got, Container: netip.AddrPortFrom(l.Addr.Addr(), b.port.Num()), Owner: l.Owner})
		e.Ports[b.port] = append(e.Ports[b.port], wire.PortBinding{HostIP: ip, HostPort: strconv.Itoa(int(got))})
	}
	return nil
}

type binding struct {
	port wire.Port
	wire.PortBinding
}

// bindings lists what a request publishes: fixed host ports first, so that no
// ephemeral choice takes one of them, then by container port. Pure.
func bindings(r AttachRequest) []binding {
	var out []binding
	for p, bs := range r.Ports {
		for _, b := range bs {
			out = append(out, binding{p, b})
		}
	}
	if r.PublishAll {
		for p := range r.Exposed {
			if len(r.Ports[p]) == 0 {
				out = append(out, binding{p, wire.PortBinding{}})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b binding) int {
		return cmp.Or(rank(a.HostPort)-rank(b.HostPort), cmp.Compare(a.port.Num(), b.port.Num()), cmp.Compare(a.port.Proto(), b.port.Proto()))
	})
	return out
}

func rank(hostPort string) int {
	switch {
	case hostPort == "" || hostPort == "0":
		return 2
	case strings.Contains(hostPort, "-"):
		return 1
	}
	return 0
}

// make puts a decided sandbox into the kernel.
func (n *Networks) make(ctx context.Context, s *sandbox, sysctls map[string]string) error {
	if s.Mode == modeNone || s.Mode == modeLinks {
		ns, err := kernel.CreateNamespace(s.Path)
		if err != nil {
			return err
		}
		defer ns.Close()
		for _, l := range s.Links {
			if err := n.join(ctx, ns, l); err != nil {
				return err
			}
		}
		if err := applySysctls(ns, sysctls); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.complete = true
	return nil
}

// join makes one endpoint, raising its network if need be.
func (n *Networks) join(ctx context.Context, ns *kernel.Namespace, l driver.Endpoint) error {
	n.mu.RLock()
	w := n.networks[l.Network]
	n.mu.RUnlock()
	if w == nil {
		return notFound(l.Network)
	}
	if err := n.raise(ctx, w); err != nil {
		return err
	}
	return n.drivers[w.rec.Driver].Join(ctx, ns, l)
}

func applySysctls(ns *kernel.Namespace, sysctls map[string]string) error {
	if len(sysctls) == 0 {
		return nil
	}
	return ns.Do(func() error {
		for _, k := range slices.Sorted(maps.Keys(sysctls)) {
			key := strings.ReplaceAll(k, ".", "/")
			if !strings.HasPrefix(key, "net/") {
				return errs.New(errs.Invalid, "sysctl %q is not of the network namespace", k)
			}
			if err := kernel.SetSysctl(key, sysctls[k]); err != nil {
				return errs.New(errs.Invalid, "sysctl %s: %w", k, err)
			}
		}
		return nil
	})
}

// Detach removes the sandbox of a container, also a half-made one. One that
// does not exist is no error.
func (n *Networks) Detach(ctx context.Context, container string) error {
	unlock, err := n.making.Lock(ctx, container)
	if err != nil {
		return err
	}
	defer unlock()
	return n.detach(ctx, container)
}

// detach is Detach with the container's lock held.
func (n *Networks) detach(ctx context.Context, container string) error {
	n.mu.RLock()
	s := n.sandboxes[container]
	n.mu.RUnlock()
	if s == nil {
		return nil
	}
	endpoints := s.Endpoints // unmake empties the record
	// Half a removal helps nobody: once begun it is not cancelled.
	if err := n.unmake(context.WithoutCancel(ctx), s); err != nil {
		return fmt.Errorf("remove networking of container %s: %w", container, err)
	}
	if s.complete {
		n.tellAll(wire.Event{Action: "disconnect"}, endpoints, s.ID)
	}
	return nil
}
