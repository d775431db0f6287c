package driver

import (
	"context"
	"net/netip"
	"slices"

	"gantry/internal/network/kernel"
	"gantry/internal/network/nat"
)

// Publication is a port that a driver which is another program is asked to publish,
// or, with nothing but protocol and port, told of.
type Publication struct {
	Proto    nat.Proto
	Port     uint16
	HostIP   netip.Addr `json:",omitzero"`
	HostPort uint16     `json:",omitempty"` // 0: any
}

// Joined is what a driver has made of an endpoint where it had the choice.
type Joined struct {
	Source      string // name of the link on the host, before it came into the namespace
	Interface   string
	MAC         []byte
	Addr, Addr6 netip.Prefix // invalid: as decided
	// Gateway and Gateway6 are the default routes that the network offers; invalid
	// for none.
	Gateway, Gateway6 netip.Addr
}

// Addresses returns those of an endpoint: the decided ones and the driver's.
func (j Joined) Addresses(e Endpoint) []netip.Prefix {
	return slices.DeleteFunc([]netip.Prefix{e.Addr, e.Addr6, j.Addr, j.Addr6}, func(p netip.Prefix) bool { return !p.IsValid() })
}

// Teller is a driver that chooses something itself. Default routes are set by
// whoever has called it.
type Teller interface {
	// JoinAndTell is Join, and tells what was chosen.
	JoinAndTell(ctx context.Context, ns *kernel.Namespace, e Endpoint) (Joined, error)
}

// Lasting is a driver that has to be told once of a network's beginning and end,
// and keeps it in between whatever becomes of the daemon.
type Lasting interface {
	Make(ctx context.Context, n Network) error
	Unmake(ctx context.Context, n Network) error
}
