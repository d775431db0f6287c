package remote

import (
	"context"
	"net"
	"net/netip"

	"gantry/internal/errs"
)

// Pool is a subnet that an address plugin has given to a network.
type Pool struct {
	ID string // the plugin's
	// Subnet and Gateway as the plugin has chosen or confirmed them.
	Subnet  netip.Prefix
	Gateway netip.Addr // invalid for none
	Range   netip.Prefix
	Aux     map[string]netip.Addr
	IPv6    bool
}

// Addresses is one plugin that gives out addresses.
type Addresses struct {
	Name   string
	Caller Caller
}

// Options of requests for addresses, by Docker's labels.
const (
	optType    = "RequestAddressType"
	typeGate   = "com.docker.network.gateway"
	optMAC     = "com.docker.network.endpoint.macaddress"
	keyGateway = "com.docker.network.gateway"
)

func (a Addresses) call(ctx context.Context, method string, in, out any) error {
	within := work
	if out == nil {
		within = undo
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return a.Caller.Call(ctx, a.Name, IPAMDriver+"."+method, in, out)
}

type poolAsked struct {
	AddressSpace string
	Pool         string
	SubPool      string
	Options      map[string]string
	V6           bool
}

type addressAsked struct {
	PoolID  string
	Address string
	Options map[string]string
}

// Acquire asks for a pool like p: with a subnet that the plugin chooses where p has
// none, and with a gateway if routed says so in GatewayOf's words. Whoever gets one
// must Return it.
func (a Addresses) Acquire(ctx context.Context, p Pool, options map[string]string) (Pool, error) {
	var spaces struct{ LocalDefaultAddressSpace string }
	if err := a.call(ctx, "GetDefaultAddressSpaces", struct{}{}, &spaces); err != nil {
		return p, err
	}
	ask := poolAsked{AddressSpace: spaces.LocalDefaultAddressSpace, Options: options, V6: p.IPv6}
	if p.Subnet.IsValid() {
		ask.Pool = p.Subnet.String()
	}
	if p.Range.IsValid() {
		ask.SubPool = p.Range.String()
	}
	var got struct {
		PoolID string
		Pool   string
		Data   map[string]string
	}
	if err := a.call(ctx, "RequestPool", ask, &got); err != nil {
		return p, err
	}
	p.ID = got.PoolID
	err := a.fill(ctx, &p, got.Pool, got.Data[keyGateway])
	if err != nil {
		_ = a.Return(context.WithoutCancel(ctx), p)
	}
	return p, err
}

func (a Addresses) fill(ctx context.Context, p *Pool, subnet, gateway string) error {
	s, err := netip.ParsePrefix(subnet)
	if err != nil {
		return errs.New(errs.Invalid, "plugin %q: its pool %q is not understood", a.Name, subnet)
	}
	p.Subnet = s.Masked()
	if gateway != "" && !p.Gateway.IsValid() {
		if p.Gateway, err = address(gateway); err != nil {
			return err
		}
	} else {
		got, err := a.Take(ctx, *p, p.Gateway, map[string]string{optType: typeGate})
		if err != nil {
			return err
		}
		p.Gateway = got.Addr()
	}
	for _, aux := range p.Aux {
		if _, err := a.Take(ctx, *p, aux, nil); err != nil {
			return err
		}
	}
	return nil
}

// Return gives a pool back, with the addresses that the network itself has of it.
func (a Addresses) Return(ctx context.Context, p Pool) error {
	for _, aux := range p.Aux {
		_ = a.Release(ctx, p.ID, aux)
	}
	if p.Gateway.IsValid() {
		_ = a.Release(ctx, p.ID, p.Gateway)
	}
	return gone(a.call(ctx, "ReleasePool", struct{ PoolID string }{p.ID}, nil))
}

// Take asks for the address want of a pool, or for any if that is invalid.
func (a Addresses) Take(ctx context.Context, p Pool, want netip.Addr, options map[string]string) (netip.Prefix, error) {
	ask := addressAsked{PoolID: p.ID, Options: options}
	if want.IsValid() {
		ask.Address = want.String()
	}
	var got struct{ Address string }
	if err := a.call(ctx, "RequestAddress", ask, &got); err != nil {
		return netip.Prefix{}, err
	}
	to, err := netip.ParsePrefix(got.Address)
	if err != nil {
		return netip.Prefix{}, errs.New(errs.Invalid, "plugin %q: its address %q is not understood", a.Name, got.Address)
	}
	return to, nil
}

// NeedsMAC reports whether the plugin wants to know the hardware addresses of those
// who get addresses.
func (a Addresses) NeedsMAC(ctx context.Context) (bool, error) {
	var c struct{ RequiresMACAddress bool }
	err := a.call(ctx, "GetCapabilities", struct{}{}, &c)
	return c.RequiresMACAddress, err
}

// ForMAC are the options of Take for the owner of a hardware address.
func ForMAC(mac net.HardwareAddr) map[string]string { return map[string]string{optMAC: mac.String()} }

// Release gives an address back. One that the plugin does not know is no error.
func (a Addresses) Release(ctx context.Context, poolID string, at netip.Addr) error {
	return gone(a.call(ctx, "ReleaseAddress", struct{ PoolID, Address string }{poolID, at.String()}, nil))
}

func hardware(mac []byte) string { return net.HardwareAddr(mac).String() }

func parseMAC(s string) (net.HardwareAddr, error) { return net.ParseMAC(s) }
