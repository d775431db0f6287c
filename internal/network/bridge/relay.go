package bridge

import (
	"net/netip"
	"os"

	"gantry/internal/network/nat"
	"gantry/internal/network/relay"
)

// relayed returns those of ports that the packet rules can't serve alone. Pure.
func relayed(ports []nat.Port) []relay.Port {
	var out []relay.Port
	for _, p := range ports {
		if p.Relayed() {
			out = append(out, relay.Port{UDP: p.Proto == nat.UDP, Host: netip.AddrPortFrom(p.HostIP, p.HostPort), To: p.Container})
		}
	}
	return out
}

// sockets tells the relay where the sockets of its ports are.
func sockets(of func(nat.Port) (*os.File, error)) relay.Sockets {
	return func(p relay.Port) (*os.File, error) {
		proto := nat.TCP
		if p.UDP {
			proto = nat.UDP
		}
		return of(nat.Port{Proto: proto, HostIP: p.Host.Addr(), HostPort: p.Host.Port()})
	}
}

// adopt serves ports again that a daemon before this one has served. One whose
// socket another program has taken meanwhile stays without: the container runs
// on, and its other ports work.
func (d *Driver) adopt(ports []nat.Port) {
	for _, p := range relayed(ports) {
		_ = d.relay.Serve([]relay.Port{p})
	}
}
