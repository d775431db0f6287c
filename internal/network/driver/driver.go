// Package driver is the contract between the networks and what makes them real:
// a driver turns a decided network and a decided endpoint into kernel objects
// and takes them out again.
//
// Package network calls it; children such as bridge implement it. A driver
// chooses nothing: names, addresses and ports come decided. Everything it
// makes carries the owner's id or a name derived from it.
package driver

import (
	"context"
	"net/netip"
	"slices"

	"gantry/internal/network/kernel"
	"gantry/internal/network/nat"
)

// Network is a network as a driver sees it.
type Network struct {
	ID       string
	Name     string
	Link     string       // name of the bridge or the parent interface
	Subnet   netip.Prefix // IPv4; invalid if it has none
	Gateway  netip.Addr   // this host's address in Subnet; invalid for none
	Subnet6  netip.Prefix // IPv6; invalid if it has none
	Gateway6 netip.Addr
	Mode4    GatewayMode
	Mode6    GatewayMode
	Trusted  []string // interfaces of the host that reach published ports at the containers' addresses
	MTU      int      // 0 means the default
	Internal bool
	Isolated bool // containers do not reach each other
	NAT      bool // containers reach elsewhere under the host's address
	// Bare bridges have no IPv4 address of the network: some other machine on
	// them is the gateway.
	Bare    bool
	Foreign bool // the link is the administrator's: used, never made nor removed
	// Options are the user's; drivers that are other programs get them as they are.
	Options map[string]string
	// Parentless networks stand on a link that leads nowhere.
	Parentless bool
	// Kind is what is particular to a driver: the mode of macvlan and ipvlan.
	Kind string
}

// GatewayMode is how a bridge's containers and the world reach each other.
type GatewayMode string

// The modes that Docker knows; the empty one is NAT.
const (
	ModeNAT         GatewayMode = "nat"
	ModeUnprotected GatewayMode = "nat-unprotected" // unpublished ports are reachable, too
	ModeRouted      GatewayMode = "routed"          // no translation: published ports are let through
	ModeIsolated    GatewayMode = "isolated"        // the host has no address in the network
)

// Endpoint is one container's end of a network.
type Endpoint struct {
	ID        string `json:",omitempty"` // of the endpoint
	Owner     string // container ID
	Network   string // network ID
	Interface string // name in the container
	HostLink  string // name on the host; empty for none
	Driver    string `json:",omitempty"` // of the network; empty is bridge
	MAC       []byte
	Addr      netip.Prefix // IPv4; invalid for none
	Addr6     netip.Prefix // IPv6; invalid for none
	// Gateway and Gateway6 are the default routes; invalid for none, and
	// unspecified for a route to the link itself.
	Gateway  netip.Addr
	Gateway6 netip.Addr
	// LinkLocal are addresses that the user gives besides, with the length of
	// their subnets. Nobody else's use of them is known.
	LinkLocal []netip.Prefix `json:",omitempty"`
	Ports     []nat.Port
	// Reaches are the containers whose ports this one may reach even where the
	// network isolates its containers from each other.
	Reaches []Reach `json:",omitempty"`
	// The rest is for drivers that are other programs: the user's options, the
	// ports, and what the link is called while it is on the host.
	Options map[string]string `json:",omitempty"`
	Expose  []Publication     `json:",omitempty"`
	Publish []Publication     `json:",omitempty"`
	Source  string            `json:",omitempty"`
	// Sysctls of the interface: "net.ipv4.conf.IFNAME.log_martians" with the
	// name put in.
	Sysctls map[string]string `json:",omitempty"`
}

// Reach names ports of another container that is to be reached by a link. Whether
// that one is on the network, and where, may change.
type Reach struct {
	Owner string // its ID
	Ports []Publication
}

// Addresses returns those that the endpoint has.
func (e Endpoint) Addresses() []netip.Prefix {
	return slices.DeleteFunc([]netip.Prefix{e.Addr, e.Addr6}, func(p netip.Prefix) bool { return !p.IsValid() })
}

// Dress are all addresses of the interface.
func (e Endpoint) Dress() []netip.Prefix { return append(e.Addresses(), e.LinkLocal...) }

// Gateways returns the default routes that the endpoint has.
func (e Endpoint) Gateways() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{e.Gateway, e.Gateway6}, func(a netip.Addr) bool { return !a.IsValid() })
}

// Driver makes networks of one kind. Its methods are idempotent and safe for
// concurrent use with different arguments.
type Driver interface {
	// Ensure makes the network, or adopts and mends what is there. adopted are
	// the endpoints that live on it from before.
	Ensure(ctx context.Context, n Network, adopted []Endpoint) error
	// Join makes the endpoint in ns. If it fails nothing of it is left.
	Join(ctx context.Context, ns *kernel.Namespace, e Endpoint) error
	// Leave takes the endpoint's ports back and whatever else leads to it.
	Leave(ctx context.Context, e Endpoint) error
	// Reap returns when nothing of an endpoint that has left is there any more,
	// also of a half-made one. Its namespace is on its way out already.
	Reap(ctx context.Context, e Endpoint) error
	// Remove removes a network without endpoints.
	Remove(ctx context.Context, n Network) error
}

// Publisher is a driver that can change the published ports of an endpoint that
// is there, without disturbing the others.
type Publisher interface {
	// Republish takes the ports of from back that to does not have and
	// publishes those of to that from does not have. Everything else of the
	// two endpoints is the same. If it fails the ports are those of from.
	Republish(ctx context.Context, from, to Endpoint) error
}

// Linker is a driver that can change what an endpoint that is there reaches by
// links.
type Linker interface {
	// Relink makes it what e says.
	Relink(ctx context.Context, e Endpoint) error
}
