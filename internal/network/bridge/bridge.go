// Package bridge makes networks out of a bridge on the host, a veth pair for
// each container, and the packet rules of package nat.
//
// Package network calls it through the driver contract. It owns the links and
// the nftables table of this daemon, and remembers which bridges and ports are
// in the rules, so that it can draw them anew whenever something else has
// flushed them. It decides nothing.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/ipam"
	"gantry/internal/network/kernel"
	"gantry/internal/network/nat"
	"gantry/internal/network/relay"
)

// Driver implements driver.Driver.
type Driver struct {
	host   *kernel.Host
	rules  *nat.Rules
	relay  *relay.Relay
	watch  *nat.Watcher
	tasks  sync.WaitGroup
	table  string
	closed []string
	// closed6 is closed for IPv6 alone.
	closed6 []string
	ended   chan struct{} // closed by Close
	direct  bool
	accept  nat.Mark

	redrawn atomic.Int64

	mu    sync.Mutex // guards the maps, and the order of changes to the table
	nets  map[string]active
	ports map[string][]nat.Port // by endpoint: owner + "/" + network
	// linked are the endpoints in isolated networks, by the same.
	linked map[string]driver.Endpoint
}

type active struct {
	driver.Network
	index int // of the bridge
}

// Options configure a driver.
type Options struct {
	Host  *kernel.Host
	Table string // of nftables
	// Closed are the interfaces between which forwarding stays off, Closed6
	// those of IPv6 alone.
	Closed, Closed6 []string
	// Direct lets everybody who has a way to them reach the published ports at the
	// containers' own addresses.
	Direct bool
	// Accept marks packets that containers take at every port.
	Accept nat.Mark
	// Socket gives a copy of the bound socket of a published port, for those
	// that the packet rules can't serve.
	Socket func(nat.Port) (*os.File, error)
}

// Open returns a driver without networks. It changes nothing yet.
func Open(ctx context.Context, o Options) (*Driver, error) {
	rules, err := nat.Open(o.Table)
	if err != nil {
		return nil, err
	}
	d := &Driver{host: o.Host, rules: rules, table: o.Table, closed: o.Closed, closed6: o.Closed6, ended: make(chan struct{}), direct: o.Direct, accept: o.Accept, nets: map[string]active{}, ports: map[string][]nat.Port{}, linked: map[string]driver.Endpoint{}}
	d.relay = relay.New(ctx, sockets(o.Socket))
	if d.watch, err = rules.Watch(); err != nil {
		d.rules.Close()
		return nil, err
	}
	d.tasks.Go(d.keep)
	return d, nil
}

// Close ends the connection to the packet filter, and what is relayed. The
// networks stay.
func (d *Driver) Close() {
	close(d.ended)
	d.watch.Close()
	d.tasks.Wait()
	d.relay.Close()
	d.rules.Close()
}

// Published returns the ports in the kernel, or errs.NotFound if there is no
// table.
func (d *Driver) Published() ([]nat.Port, error) { return d.rules.Published() }

// DropsForwarding returns the chains of other programs that drop forwarded
// packets unless told otherwise.
func (d *Driver) DropsForwarding() ([]string, error) { return d.rules.DropsForwarding() }

// Ensure implements driver.Driver.
func (d *Driver) Ensure(ctx context.Context, n driver.Network, adopted []driver.Endpoint) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := kernel.Bridge{Name: n.Link, MTU: n.MTU, Foreign: n.Foreign}
	for _, gw := range []netip.Prefix{netip.PrefixFrom(n.Gateway6, n.Subnet6.Bits()), netip.PrefixFrom(n.Gateway, n.Subnet.Bits())} {
		if !gw.IsValid() {
			continue
		}
		b.MAC = ipam.MAC(gw.Addr())
		if !n.Bare || gw.Addr().Is6() {
			b.Addr = append(b.Addr, gw)
		}
	}
	index, err := d.host.EnsureBridge(b)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nets[n.ID] = active{n, index}
	for _, e := range adopted {
		if n.Isolated {
			d.linked[key(e)] = e
		}
		if len(e.Ports) > 0 {
			d.ports[key(e)] = ruled(d, e)
			d.adopt(e.Ports)
		}
	}
	return d.apply()
}

// Join implements driver.Driver.
func (d *Driver) Join(ctx context.Context, ns *kernel.Namespace, e driver.Endpoint) (err error) {
	d.mu.Lock()
	n, ok := d.nets[e.Network]
	d.mu.Unlock()
	if !ok {
		return errs.New(errs.Conflict, "network %s is not up", e.Network)
	}
	v := kernel.Veth{Host: e.HostLink, Bridge: n.index, BridgeName: n.Link, Inside: e.Interface, MAC: e.MAC, MTU: n.MTU, Isolated: n.Isolated, Sysctls: e.Sysctls}
	v.Addr, v.Gateway = e.Dress(), e.Gateways()
	err = d.host.Connect(ctx, ns, v)
	if errors.Is(err, unix.ENODEV) {
		// Someone has removed the bridge under our feet: make it again.
		if err = d.Ensure(ctx, n.Network, nil); err != nil {
			return err
		}
		d.mu.Lock()
		v.Bridge = d.nets[e.Network].index
		d.mu.Unlock()
		err = d.host.Connect(ctx, ns, v)
	}
	if err != nil {
		return err
	}
	if err := d.publish(e); err != nil {
		return errors.Join(err, d.host.RemoveLink(e.HostLink))
	}
	if n.Isolated {
		if err := link(d, e); err != nil {
			return errors.Join(err, d.Leave(context.WithoutCancel(ctx), e), d.host.RemoveLink(e.HostLink))
		}
	}
	return nil
}

func key(e driver.Endpoint) string { return e.Owner + "/" + e.Network }

func (d *Driver) publish(e driver.Endpoint) error {
	if len(e.Ports) == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	list := ruled(d, e)
	d.ports[key(e)] = list
	err := d.rules.Add(list)
	if errs.Is(err, errs.NotFound) { // the table was flushed from outside
		err = d.apply()
	}
	if err == nil {
		err = d.relay.Serve(relayed(e.Ports))
	}
	if err != nil {
		delete(d.ports, key(e))
		return errors.Join(err, d.rules.Delete(list))
	}
	// A datagram flow that was there before would go on bypassing the port.
	return forget(e.Ports, netip.Addr{})
}

// ruled are the ports that the packet rules have for an endpoint: the published
// ones and, where they are reached by routing, too, the container's. The lock is
// held.
func ruled(d *Driver, e driver.Endpoint) []nat.Port {
	if !d.direct && len(d.nets[e.Network].Trusted) == 0 {
		return e.Ports
	}
	return slices.Concat(e.Ports, nat.Opened(e.Ports))
}

// Ruled returns the ports that the packet rules have for an endpoint.
func Ruled(d *Driver, e driver.Endpoint) []nat.Port {
	d.mu.Lock()
	defer d.mu.Unlock()
	return ruled(d, e)
}

// Republish implements driver.Publisher: one transaction takes and gives
// elements of the maps.
func (d *Driver) Republish(_ context.Context, from, to driver.Endpoint) error {
	gone, come := without(from.Ports, to.Ports), without(to.Ports, from.Ports)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ports[key(to)] = ruled(d, to); len(to.Ports) == 0 {
		delete(d.ports, key(to))
	}
	err := d.rules.Replace(ruled(d, from), ruled(d, to))
	if err != nil { // whatever is in the kernel: draw it anew
		err = d.apply()
	}
	if err == nil {
		d.relay.Stop(relayed(gone))
		err = d.relay.Serve(relayed(come))
	}
	if err == nil { // datagram flows would go on as before
		err = errors.Join(forgetOf(to, gone), forget(come, netip.Addr{}))
	}
	if err != nil {
		d.ports[key(from)] = ruled(d, from)
		d.relay.Stop(relayed(come))
		return errors.Join(err, d.apply(), d.relay.Serve(relayed(from.Ports)))
	}
	return nil
}

// without returns the ports of a that b does not have.
func without(a, b []nat.Port) []nat.Port {
	return slices.DeleteFunc(slices.Clone(a), func(p nat.Port) bool { return slices.Contains(b, p) })
}

// Leave implements driver.Driver.
func (d *Driver) Leave(_ context.Context, e driver.Endpoint) error {
	d.mu.Lock()
	delete(d.ports, key(e))
	err := errors.Join(d.rules.Delete(ruled(d, e)), unlink(d, e))
	d.mu.Unlock()
	d.relay.Stop(relayed(e.Ports))
	return errors.Join(err, forgetOf(e, e.Ports))
}

// patience is how long Reap lets the kernel remove a pair with its namespace
// before it does so itself. The kernel does that for all namespaces that die at
// the same time in one go, which is many times cheaper than pair by pair.
const patience = 150 * time.Millisecond

// Reap implements driver.Driver.
func (d *Driver) Reap(ctx context.Context, e driver.Endpoint) error {
	deadline := time.After(patience)
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 16*time.Millisecond) {
		if _, err := d.host.Index(e.HostLink); errors.Is(err, unix.ENODEV) {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-deadline:
			return d.host.RemoveLink(e.HostLink)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), d.host.RemoveLink(e.HostLink))
		}
	}
}

// forgetOf drops the datagram flows through ports that an endpoint answers.
func forgetOf(e driver.Endpoint, ports []nat.Port) error {
	var all []error
	for _, a := range e.Addresses() {
		all = append(all, forget(ports, a.Addr()))
	}
	return errors.Join(all...)
}

// forget drops the datagram flows through ports that reply answers, or, if
// reply is invalid, all of them.
func forget(ports []nat.Port, reply netip.Addr) error {
	var flows []kernel.Flow
	for _, p := range ports {
		if p.Proto == nat.UDP {
			flows = append(flows, kernel.Flow{Proto: uint8(nat.UDP), Port: p.HostPort, Reply: reply})
		}
	}
	return drop(flows)
}

// drop has the kernel forget connections.
func drop(flows []kernel.Flow) error {
	err := kernel.Forget(flows)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without ctnetlink: flows end by time
	}
	return err
}

// Remove implements driver.Driver. The table goes with the last bridge.
func (d *Driver) Remove(_ context.Context, n driver.Network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !n.Foreign { // nobody is on it
		if err := d.host.LetGo(n.Link); err != nil {
			return err
		}
	}
	if _, ok := d.nets[n.ID]; !ok {
		return nil
	}
	delete(d.nets, n.ID)
	if len(d.nets) == 0 {
		return d.rules.Remove()
	}
	return d.apply()
}

// Tidy removes the table of a daemon before this one if no network is up: one
// that was killed may have left it.
func (d *Driver) Tidy() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.nets) > 0 {
		return nil
	}
	if _, err := d.rules.Published(); errs.Is(err, errs.NotFound) {
		return nil
	}
	return d.rules.Remove()
}

// Reassert draws the whole table again, for when it was flushed from outside.
func (d *Driver) Reassert() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.nets) == 0 {
		return nil
	}
	return d.apply()
}

// config is all that the rules say. The lock is held.
func (d *Driver) config() nat.Config {
	c := nat.Config{Table: d.table, Closed: d.closed, Closed6: d.closed6, Accept: d.accept}
	for _, n := range d.nets {
		c.Networks = append(c.Networks, nat.Network{
			Bridge: n.Link, Subnet: n.Subnet, Subnet6: n.Subnet6, Isolated: n.Isolated, Masquerade: n.NAT, Internal: n.Internal,
			Mode: nat.Mode(n.Mode4), Mode6: nat.Mode(n.Mode6), Trusted: n.Trusted, Direct: d.direct,
		})
	}
	c.Passes = passes(d.nets, d.linked)
	c.Ports = slices.Concat(slices.Collect(maps.Values(d.ports))...)
	return c
}

// apply puts the whole table into the kernel. The lock is held.
func (d *Driver) apply() error {
	c := d.config()
	if err := d.rules.Apply(nat.Render(c)); err != nil {
		return fmt.Errorf("bridge rules: %w", err)
	}
	return answerFor(d.host, c)
}

// SetClosed changes the interfaces between which forwarding stays off: that of
// both versions of IP, and of IPv6 alone. It takes effect with the next Ensure.
func (d *Driver) SetClosed(both, six []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed, d.closed6 = both, six
}
