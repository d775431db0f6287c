package ledger

import (
	"net/netip"

	"gantry/internal/network/driver"
	"gantry/internal/wire"
)

// Sandbox is a container's network namespace and all its endpoints.
type Sandbox struct {
	ID        string // the owner's: the container's ID
	Path      string // of the bind-mounted namespace; empty for the host's
	Endpoints []Endpoint
}

// Endpoint is one container's place in one network.
type Endpoint struct {
	NetworkID   string
	NetworkName string
	ID          string
	Interface   string // in the container: eth0, eth1, …
	MAC         string
	IPv4        netip.Prefix // address with the subnet's length; invalid if none
	IPv6        netip.Prefix
	Gateway4    netip.Addr
	Gateway6    netip.Addr
	// Priority is that of the endpoint when the default route is given.
	Priority int `json:",omitempty"`
	// Ports holds what was published, with the host ports chosen. A port that
	// is only exposed has a nil list.
	Ports wire.PortMap
}

// AttachRequest asks for a sandbox.
type AttachRequest struct {
	ID       string // container ID
	Name     string // container name without the slash
	Hostname string
	// Mode is HostConfig.NetworkMode: "default", "bridge", "none", "host",
	// "container:<id>" (SharedWith set) or a network's name.
	Mode       string
	SharedWith string // ID of the container whose sandbox is joined
	Endpoints  map[string]*wire.EndpointSettings
	// Ports is what shall be published; PublishAll adds every exposed port.
	Ports      wire.PortMap
	Exposed    wire.PortSet
	PublishAll bool
	// DNS are the name servers that the user wants, DNSOptions lines of
	// resolv.conf(5).
	DNS        []netip.Addr
	DNSOptions []string
	// Sysctls are those below net., applied in the namespace.
	Sysctls map[string]string
	// Reaches are the exposed ports of other containers, by their IDs, that a
	// link lets this one reach in networks that isolate containers.
	Reaches Reaches
	// Rate bounds the traffic of each endpoint.
	Rate wire.NetRate
	// Given are addresses that other programs have given out, by network ID.
	Given map[string]Given
	// Namespace is the path of a network namespace to take, of a user
	// namespace that is not the host's; empty for a fresh one.
	Namespace string
}

// Reaches are exposed ports of containers by the containers' IDs.
type Reaches = map[string]wire.PortSet

// Entry is a sandbox on the books. It is never changed: what changes is replaced.
type Entry struct {
	Sandbox
	Name       string            // of the container
	Mode       string            // host, none, container or bridge (anything with links)
	SharedWith string            `json:",omitempty"`
	Links      []driver.Endpoint `json:",omitempty"`
	// Rate bounds the traffic of each endpoint.
	Rate   wire.NetRate `json:",omitzero"`
	Naming Naming       `json:",omitzero"`

	// Complete is true once everything is in the kernel. An entry that a
	// restart finds on disk is taken as complete.
	Complete bool `json:"-"`
	// Retired is true once the container has no use of it any more: its ports
	// are free, its addresses are held until the links have gone.
	Retired bool `json:"-"`
}

// HasNamespace reports whether the sandbox has a namespace of its own.
func (e *Entry) HasNamespace() bool { return e.Mode == ModeNone || e.Mode == ModeLinks }

// The modes of a sandbox's record.
const (
	ModeHost      = "host"
	ModeNone      = "none"
	ModeContainer = "container"
	ModeLinks     = "links"
)
