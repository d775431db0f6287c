package network

import (
	"net"
	"net/netip"
	"os"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
	"gantry/internal/network/nat"
)

// PortAnswer says which rule lets a packet pass, or stops it.
type PortAnswer = nat.Answer

// Why explains whether a packet from an address (invalid: from some host
// elsewhere) gets through to a port of a container, "80" or "53/udp".
func Why(n *Networks, container, port string, from netip.Addr) (PortAnswer, error) {
	q := nat.Question{From: from.Unmap()}
	number, proto, ok := strings.Cut(port, "/")
	if !ok {
		proto = "tcp"
	}
	at, err := netip.ParseAddrPort("0.0.0.0:" + number)
	if q.Proto = nat.ParseProto(proto); err != nil || q.Proto == 0 || at.Port() == 0 {
		return PortAnswer{}, errs.New(errs.Invalid, "invalid port %q: want PORT[/tcp|udp|sctp]", port)
	}
	q.Port = at.Port()
	if e := n.book.Get(container); e != nil && e.Complete {
		for _, l := range e.Links {
			if w, err := n.book.Network(l.Network); err == nil && w.Driver == "bridge" {
				q.Ports = append(q.Ports, l.Ports...)
				if q.Link == "" || len(l.Ports) > 0 || inside(l, q.From) {
					q.Link, q.To = w.Link, nil
					for _, a := range l.Addresses() {
						q.To = append(q.To, a.Addr())
					}
				}
			}
		}
	}
	h, err := hostFacts(n)
	if err != nil {
		return PortAnswer{}, err
	}
	return n.stage.bridge.Explain(h, q), nil
}

// inside reports whether an address is in the subnet of an endpoint.
func inside(l driver.Endpoint, a netip.Addr) bool {
	return a.IsValid() && (l.Addr.Masked().Contains(a) || l.Addr6.Masked().Contains(a))
}

// hostFacts is what of this machine decides along with our own rules.
func hostFacts(n *Networks) (h nat.Host, err error) {
	on := func(key string) bool { v, err := kernel.Sysctl(key); return err == nil && v == "1" }
	h.Forward4, h.Forward6, h.Unwatched = on(ipForward), on("net/ipv6/conf/all/forwarding"), nat.Legacy()
	_, err = n.stage.bridge.Published()
	if h.Table = err == nil; err != nil && !errs.Is(err, errs.NotFound) {
		return h, err
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return h, os.NewSyscallError("list addresses", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			h.Own = append(h.Own, p.Addr())
		}
	}
	h.Drops, err = n.stage.bridge.Drops()
	return h, err
}

// Blocked returns, in sentences, the chains of other programs that drop what is
// forwarded to containers by default.
func Blocked(n *Networks) ([]string, error) { return n.stage.bridge.Blocked() }

// Unblock makes the chains that Blocked has named accept what goes to and comes
// from the bridges of this daemon, after all rules that they have.
func Unblock(n *Networks) error { return n.stage.bridge.Unblock() }
