package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/nat"
	"gantry/internal/network/ports"
	"gantry/internal/wire"
)

// Options of publishing, by Docker's names and, the last one, our own.
const (
	optHostIP6   = "com.docker.network.bridge.host_binding_ipv6"
	optMode4     = "com.docker.network.bridge.gateway_mode_ipv4"
	optMode6     = "com.docker.network.bridge.gateway_mode_ipv6"
	optPublished = "gantry.published-ports"
)

// Filtered is the value of the option published-ports with which packets for
// published ports run through the filters that the host has for its own.
const Filtered = "filtered"

// decidePorts holds host ports for what shall be published.
func (b *state) decidePorts(e *Endpoint, l *driver.Endpoint, w *network, r AttachRequest) error {
	e.Ports = wire.PortMap{}
	for p := range r.Exposed {
		e.Ports[p] = nil
	}
	for _, x := range bindings(r) {
		if err := decidePort(b, e, l, w, x); err != nil {
			return err
		}
	}
	return nil
}

// decidePort holds one number at every address of a binding.
func decidePort(b *state, e *Endpoint, l *driver.Endpoint, w *network, x binding) error {
	proto := nat.ParseProto(string(x.port.Proto()))
	if proto == 0 {
		return errs.New(errs.Invalid, "invalid protocol %q", x.port.Proto())
	}
	want, err := ports.Parse(x.HostPort)
	if err != nil {
		return err
	}
	made := wanted(b, x, l, w)
	if len(made) == 0 {
		if x.HostIP.IsValid() {
			return errs.New(errs.Unsupported, "Bind for %s failed: network %s has no addresses of this kind", netip.AddrPortFrom(x.HostIP, want.First), w.rec.Name)
		}
		return nil
	}
	var ips []netip.Addr
	for _, p := range made {
		if p.HostPort != 0 {
			ips = append(ips, p.HostIP)
		}
	}
	var got uint16
	if len(ips) > 0 {
		got, err = b.ports.ReserveAll(proto.String(), ips, want)
	}
	if errors.Is(err, ports.ErrTaken) {
		return fmt.Errorf("%w: %s", err, b.holder(proto, ips, want))
	}
	if err != nil {
		return err
	}
	for _, p := range made {
		at := wire.PortBinding{HostIP: p.HostIP}
		if p.HostPort != 0 {
			p.HostPort = got
			at.HostPort = strconv.Itoa(int(got))
		} else if slices.Contains(l.Ports, p) {
			continue // two bindings open the same port
		}
		l.Ports = append(l.Ports, p)
		e.Ports[x.port] = append(e.Ports[x.port], at)
	}
	return nil
}

// wanted are the ports that a binding comes to, one for each address that it is
// for and that can be served. Their host port is 0 in a routed network, where
// the container's own is opened, else 1 for "to be chosen".
func wanted(b *state, x binding, l *driver.Endpoint, w *network) []nat.Port {
	var out []nat.Port
	for _, ip := range b.bindAddresses(x, w) {
		to := l.Addr.Addr()
		if l.Addr6.IsValid() && (ip.Is6() || !to.IsValid()) {
			to = l.Addr6.Addr()
		}
		p := nat.Port{
			Proto: nat.ParseProto(string(x.port.Proto())), HostIP: ip, HostPort: 1, Owner: l.Owner,
			Container: netip.AddrPortFrom(to, x.port.Num()),
		}
		if routed(w, ip) {
			if p.HostPort = 0; ip.Is4() == p.Container.Addr().Is4() {
				out = append(out, p)
			}
			continue
		}
		how := w.rec.Options[optPublished]
		p.Filtered = how == Filtered || how == "" && b.filtered
		if p.Translated() || p.Relayed() && !b.noRelay {
			out = append(out, p)
		}
	}
	return out
}

// routed reports whether a network does not translate the addresses of the kind
// of ip.
func routed(w *network, ip netip.Addr) bool {
	opt := optMode4
	if ip.Is6() {
		opt = optMode6
	}
	return nat.Mode(w.rec.Options[opt]) == nat.Routed
}

// bindAddresses are the host's addresses that a binding is for: of both
// versions of IP, unless it, the network or the daemon's settings name one.
func (b *state) bindAddresses(x binding, w *network) []netip.Addr {
	if x.HostIP.IsValid() {
		return []netip.Addr{x.HostIP.Unmap()}
	}
	first, second := b.hostIP, netip.IPv6Unspecified()
	if a, err := netip.ParseAddr(w.rec.Options[optHostIP]); err == nil {
		first = a.Unmap()
	}
	if a, err := netip.ParseAddr(w.rec.Options[optHostIP6]); err == nil {
		second = a
	}
	if !b.ipv6 || first.Is6() || second.IsUnspecified() && !first.IsUnspecified() {
		return []netip.Addr{first}
	}
	return []netip.Addr{first, second}
}

// Socket returns a copy of the socket that holds the host port of a published
// port.
func Socket(b *Book, p nat.Port) (*os.File, error) { return b.ports.Socket(portKey(p)) }

// hasIPv6 reports whether this host has any address of IPv6, be it loopback's.
func hasIPv6() bool {
	b, err := os.ReadFile("/proc/self/net/if_inet6")
	return err == nil && len(b) > 0
}

// holder says who has a host port that can't be had.
func (b *state) holder(proto nat.Proto, ips []netip.Addr, want ports.Range) string {
	for _, e := range b.entries {
		if e.Retired {
			continue
		}
		for _, l := range e.Links {
			for _, p := range l.Ports {
				if p.Proto == proto && p.HostPort == want.First && slices.ContainsFunc(ips, func(ip netip.Addr) bool {
					return p.HostIP == ip || p.HostIP.Is4() == ip.Is4() && (p.HostIP.IsUnspecified() || ip.IsUnspecified())
				}) {
					return fmt.Sprintf("container %s publishes it", e.Name)
				}
			}
		}
	}
	return "a program of this host has it"
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
