// Package remote is the protocols of network and address drivers that are other
// programs, as Docker's plugins speak them: networks that another program makes,
// and addresses that another program gives out.
//
// Package network calls it through the driver contract, and for addresses around
// the decisions of its books. It keeps nothing but what the kernel has: which
// networks and endpoints a plugin knows is on the books. It bounds how long each
// call may take, and moves the links that plugins make into containers.
//
// Source: the libnetwork documents remote.md and ipam.md.
package remote

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
)

// What plugins say that they implement.
const (
	NetworkDriver = "NetworkDriver"
	IPAMDriver    = "IpamDriver"
)

// Caller reaches plugins.
type Caller interface {
	// Offers returns nil if the plugin of that name implements what.
	Offers(ctx context.Context, name, what string) error
	// Call calls a method with the JSON of in, and reads its answer into out.
	Call(ctx context.Context, name, method string, in, out any) error
}

// How long calls may take.
const (
	work = 2 * time.Minute  // what makes something
	undo = 15 * time.Second // what removes: a container that ends waits for it
)

// Driver is one plugin that makes networks. It implements driver.Driver,
// driver.Lasting and driver.Teller.
type Driver struct {
	Name   string
	Caller Caller
	Host   *kernel.Host
	// Namespace returns the path of an owner's namespace.
	Namespace func(owner string) string
}

// The names of options, by Docker's network labels.
const (
	optGeneric = "com.docker.network.generic"
	optIPv4    = "com.docker.network.enable_ipv4"
	optIPv6    = "com.docker.network.enable_ipv6"
	optExposed = "com.docker.network.endpoint.exposedports"
	optPortMap = "com.docker.network.portmap"
)

type ipData struct {
	AddressSpace string
	Pool         string
	Gateway      string            `json:",omitempty"`
	AuxAddresses map[string]string `json:",omitempty"`
}

type createNetwork struct {
	NetworkID          string
	Options            map[string]any
	IPv4Data, IPv6Data []ipData
}

// request names what a call is about.
type request struct {
	NetworkID  string
	EndpointID string         `json:",omitempty"`
	SandboxKey string         `json:",omitempty"`
	Interface  *iface         `json:",omitempty"`
	Options    map[string]any `json:",omitempty"`
}

type iface struct {
	Address, AddressIPv6, MacAddress string
}

type joined struct {
	InterfaceName         struct{ SrcName, DstName, DstPrefix string }
	Gateway, GatewayIPv6  string
	StaticRoutes          []route
	DisableGatewayService bool
}

// route is one of Join's answer: RouteType is 0 for one by NextHop, 1 for one to
// what is on the link.
type route struct {
	Destination string
	RouteType   int
	NextHop     string
}

func (d *Driver) call(ctx context.Context, within time.Duration, method string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return d.Caller.Call(ctx, d.Name, NetworkDriver+"."+method, in, out)
}

// Capabilities returns "local" or "global", which is how far the driver's networks
// reach.
func (d *Driver) Capabilities(ctx context.Context) (scope string, err error) {
	var c struct{ Scope string }
	if err := d.call(ctx, undo, "GetCapabilities", struct{}{}, &c); err != nil {
		return "", err
	}
	if c.Scope != "local" && c.Scope != "global" {
		return "", errs.New(errs.Invalid, "plugin %q: invalid capability: expecting 'local' or 'global', got %s", d.Name, c.Scope)
	}
	return c.Scope, nil
}

// Make implements driver.Lasting.
func (d *Driver) Make(ctx context.Context, n driver.Network) error {
	return d.call(ctx, work, "CreateNetwork", creation(n), nil)
}

// creation is what a plugin is told of a new network. Pure.
func creation(n driver.Network) createNetwork {
	c := createNetwork{NetworkID: n.ID, IPv4Data: []ipData{}, IPv6Data: []ipData{}, Options: map[string]any{
		optGeneric: n.Options, optIPv4: n.Subnet.IsValid(), optIPv6: n.Subnet6.IsValid(),
	}}
	if n.Options == nil {
		c.Options[optGeneric] = map[string]string{}
	}
	if n.Internal {
		c.Options["com.docker.network.internal"] = true
	}
	c.IPv4Data, c.IPv6Data = pool(c.IPv4Data, n.Subnet, n.Gateway), pool(c.IPv6Data, n.Subnet6, n.Gateway6)
	return c
}

func pool(to []ipData, subnet netip.Prefix, gateway netip.Addr) []ipData {
	if !subnet.IsValid() {
		return to
	}
	d := ipData{AddressSpace: "LocalDefault", Pool: subnet.String()}
	if gateway.IsValid() {
		d.Gateway = netip.PrefixFrom(gateway, subnet.Bits()).String()
	}
	return append(to, d)
}

// Unmake implements driver.Lasting. A plugin that does not know the network, or is
// not there any more, does not keep it on the books.
func (d *Driver) Unmake(ctx context.Context, n driver.Network) error {
	return gone(d.call(ctx, undo, "DeleteNetwork", request{NetworkID: n.ID}, nil))
}

// gone makes nothing of an error of what removes: neither a plugin that refuses nor
// one that is away shall keep containers and networks from going.
func gone(err error) error {
	if err == nil || errs.Is(err, errs.Unavailable) || errs.Is(err, errs.NotFound) {
		return nil
	}
	var text interface{ Refusal() int }
	if errors.As(err, &text) {
		return nil
	}
	return err
}

// Ensure implements driver.Driver. The plugin was told when the network was made.
func (d *Driver) Ensure(context.Context, driver.Network, []driver.Endpoint) error { return nil }

// Remove implements driver.Driver: at the end of the daemon the plugin's networks
// stay.
func (d *Driver) Remove(context.Context, driver.Network) error { return nil }

// Reap implements driver.Driver.
func (d *Driver) Reap(context.Context, driver.Endpoint) error { return nil }

// Join implements driver.Driver.
func (d *Driver) Join(ctx context.Context, ns *kernel.Namespace, e driver.Endpoint) error {
	_, err := d.JoinAndTell(ctx, ns, e)
	return err
}

// JoinAndTell implements driver.Teller.
func (d *Driver) JoinAndTell(ctx context.Context, ns *kernel.Namespace, e driver.Endpoint) (driver.Joined, error) {
	in := request{NetworkID: e.Network, EndpointID: e.ID, Interface: wanted(e), Options: options(e)}
	var made struct{ Interface *iface }
	if err := d.call(ctx, work, "CreateEndpoint", in, &made); err != nil {
		return driver.Joined{}, err
	}
	j, err := d.join(ctx, ns, e, made.Interface)
	if err != nil {
		return j, errors.Join(err, d.leave(context.WithoutCancel(ctx), e, ns, j.Source))
	}
	return j, nil
}

func (d *Driver) join(ctx context.Context, ns *kernel.Namespace, e driver.Endpoint, made *iface) (driver.Joined, error) {
	said, err := accept(e, made)
	if err != nil {
		return said, err
	}
	var a joined
	at := request{NetworkID: e.Network, EndpointID: e.ID, SandboxKey: d.Namespace(e.Owner), Options: options(e)}
	if err := d.call(ctx, work, "Join", at, &a); err != nil {
		return said, err
	}
	if said.Gateway, err = address(a.Gateway); err != nil {
		return said, err
	}
	if said.Gateway6, err = address(a.GatewayIPv6); err != nil {
		return said, err
	}
	routes, err := parseRoutes(a.StaticRoutes)
	if err != nil {
		return said, err
	}
	if a.InterfaceName.SrcName != "" { // or it is a network without a link
		said.Source = a.InterfaceName.SrcName
		name := a.InterfaceName.DstName
		if name == "" {
			name = e.Interface
		}
		said.Interface, said.MAC, err = d.Host.Adopt(ns, kernel.Adoption{
			Link: said.Source, Inside: name, Prefix: a.InterfaceName.DstPrefix, MAC: said.MAC, Addr: said.Addresses(e), Routes: routes, Sysctls: e.Sysctls,
		})
		if err != nil {
			return said, err
		}
	}
	if len(e.Publish) > 0 {
		err = d.call(ctx, work, "ProgramExternalConnectivity", request{NetworkID: e.Network, EndpointID: e.ID, Options: options(e)}, nil)
		var text interface{ Refusal() int }
		if errors.As(err, &text) && text.Refusal() == http.StatusNotFound {
			err = nil // plugins need not have it
		}
	}
	return said, err
}

// Leave implements driver.Driver.
func (d *Driver) Leave(ctx context.Context, e driver.Endpoint) error {
	ns, err := kernel.OpenNamespace(d.Namespace(e.Owner))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && kernel.IsNamespace(d.Namespace(e.Owner)) {
		return err
	}
	if err == nil {
		defer ns.Close()
	}
	return d.leave(ctx, e, ns, e.Source)
}

// leave gives the link back to the plugin, which made it, and tells it. ns is nil
// if the namespace has gone.
func (d *Driver) leave(ctx context.Context, e driver.Endpoint, ns *kernel.Namespace, source string) error {
	at := request{NetworkID: e.Network, EndpointID: e.ID}
	var all []error
	if len(e.Publish) > 0 {
		all = append(all, gone(d.call(ctx, undo, "RevokeExternalConnectivity", at, nil)))
	}
	all = append(all, gone(d.call(ctx, undo, "Leave", at, nil)))
	if ns != nil && source != "" {
		all = append(all, d.Host.GiveBack(ns, e.Interface, source))
	}
	return errors.Join(append(all, gone(d.call(ctx, undo, "DeleteEndpoint", at, nil)))...)
}

// wanted is the interface that a plugin is asked for: what is decided already, and
// empty where the plugin chooses. Pure.
func wanted(e driver.Endpoint) *iface {
	i := &iface{}
	if e.Addr.IsValid() {
		i.Address = e.Addr.String()
	}
	if e.Addr6.IsValid() {
		i.AddressIPv6 = e.Addr6.String()
	}
	if len(e.MAC) > 0 {
		i.MacAddress = hardware(e.MAC)
	}
	return i
}

// options are those of an endpoint. Pure.
func options(e driver.Endpoint) map[string]any {
	o := map[string]any{}
	for k, v := range e.Options {
		o[k] = v
	}
	type transport struct {
		Proto, Port int
	}
	exposed := []transport{}
	for _, p := range e.Expose {
		exposed = append(exposed, transport{int(p.Proto), int(p.Port)})
	}
	type binding struct {
		Proto, Port           int
		IP, HostIP            string
		HostPort, HostPortEnd int
	}
	mapped := []binding{}
	for _, p := range e.Publish {
		b := binding{Proto: int(p.Proto), Port: int(p.Port), HostPort: int(p.HostPort), HostPortEnd: int(p.HostPort)}
		if p.HostIP.IsValid() {
			b.HostIP = p.HostIP.String()
		}
		mapped = append(mapped, b)
	}
	o[optExposed], o[optPortMap] = exposed, mapped
	return o
}

// accept reads what a plugin says of the interface that it has made: it may
// choose what was left to it. Pure.
func accept(e driver.Endpoint, made *iface) (driver.Joined, error) {
	j := driver.Joined{MAC: e.MAC, Interface: e.Interface}
	if made == nil || *made == (iface{}) {
		return j, nil
	}
	for _, a := range []struct {
		text string
		had  netip.Prefix
		to   *netip.Prefix
	}{{made.Address, e.Addr, &j.Addr}, {made.AddressIPv6, e.Addr6, &j.Addr6}} {
		if a.text == "" {
			continue
		}
		p, err := netip.ParsePrefix(a.text)
		switch {
		case err != nil:
			return j, errs.New(errs.Invalid, "the plugin's address is not understood: %w", err)
		case a.had.IsValid() && a.had != p:
			return j, errs.New(errs.Invalid, "driver attempted to assign different IP address: %s instead of %s", p, a.had)
		case !a.had.IsValid():
			*a.to = p
		}
	}
	if made.MacAddress != "" {
		mac, err := parseMAC(made.MacAddress)
		if err != nil {
			return j, errs.New(errs.Invalid, "the plugin's hardware address is not understood: %w", err)
		}
		if len(e.MAC) > 0 && hardware(mac) != hardware(e.MAC) {
			return j, errs.New(errs.Invalid, "driver attempted to assign different MAC address: %s instead of %s", made.MacAddress, hardware(e.MAC))
		}
		j.MAC = mac
	}
	return j, nil
}

// address reads a gateway, with or without the length of its subnet. Pure.
func address(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, errs.New(errs.Invalid, "the plugin's gateway is not understood: %w", err)
	}
	return a, nil
}

// parseRoutes reads Join's routes: those on the link go first, others may need
// them. Pure.
func parseRoutes(rs []route) ([]kernel.StaticRoute, error) {
	var direct, via []kernel.StaticRoute
	for _, r := range rs {
		to, err := netip.ParsePrefix(r.Destination)
		if err != nil {
			return nil, errs.New(errs.Invalid, "the plugin's route to %q is not understood: %w", r.Destination, err)
		}
		switch r.RouteType {
		case 1:
			direct = append(direct, kernel.StaticRoute{To: to})
		case 0:
			hop, err := netip.ParseAddr(r.NextHop)
			if err != nil {
				return nil, errs.New(errs.Invalid, "failed to parse nexthop IP %s of the plugin's route to %s", strconv.Quote(r.NextHop), to)
			}
			via = append(via, kernel.StaticRoute{To: to, Via: hop})
		default:
			return nil, errs.New(errs.Invalid, "invalid RouteType %d of the plugin's route to %s", r.RouteType, to)
		}
	}
	return append(direct, via...), nil
}
