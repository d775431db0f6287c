// Package network owns the networks of this daemon: their records, their
// addresses, and what stands for them in the kernel (bridges, veth pairs,
// network namespaces, nftables elements). Drivers live in its children.
//
// The engine's launch package attaches and detaches containers; the API lists
// and inspects. Every kernel object carries its owner's id in its name or
// comment, so that what no record owns can be found and removed. It must not
// know of containers beyond their ids, names and endpoint settings.
//
// It writes two kinds of record. A network is a decision that outlives the
// machine's uptime: bucket "networks" of the database. A sandbox lives and dies
// with the kernel objects it lists, so its record lies beside them in the run
// directory, which a reboot empties as it empties the kernel:
//
//	<run>/sandbox/<container id>.json   addresses, ports, names of links
//	<run>/netns/<container id>          the bound namespace
//
// The record is written before the first kernel object is made and removed
// after the last is gone. So whatever happens in between, the record tells what
// may exist, and no address is given out twice.
package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/keyed"
	"gantry/internal/network/bridge"
	"gantry/internal/network/driver"
	"gantry/internal/network/ipam"
	"gantry/internal/network/kernel"
	"gantry/internal/network/nat"
	"gantry/internal/network/ports"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// Options configure the networks of a daemon. The zero value of a field means
// its default.
type Options struct {
	Store  *store.DB
	RunDir string
	Events *event.Bus // may be nil

	// Instance tells daemons of one host apart. It is part of the name of the
	// nftables table, and of the bridge unless Bridge names one.
	Instance string
	// Bridge is the link of the default network; "gantry0" by default. "none"
	// switches the default network off.
	Bridge string
	// Subnet is the default network's subnet and, unless its host bits are
	// zero, the gateway: "10.1.2.3/24". By default the first of Pools that no
	// route of the host uses.
	Subnet netip.Prefix
	// Range is the part of Subnet that containers get addresses from.
	Range netip.Prefix
	MTU   int
	// HostIP is where ports are published whose binding names no address;
	// 0.0.0.0 by default.
	HostIP netip.Addr
	// Pools are what networks without a subnet are cut from.
	Pools []ipam.Source

	IsolateDefault bool // containers of the default network do not reach each other
	NoMasquerade   bool
	// NoIPForward leaves net.ipv4.ip_forward as it is.
	NoIPForward bool
	// HostGateway is what "host-gateway" stands for; by default the default
	// network's gateway.
	HostGateway netip.Addr
}

// Networks are the networks and sandboxes of one daemon.
type Networks struct {
	opts    Options
	host    *kernel.Host
	rules   *nat.Rules
	drivers map[string]driver.Driver
	bridge  *bridge.Driver
	ports   *ports.Table

	// making serialises work on one container, raising work on one network.
	making, raising keyed.Mutex[string]

	mu        sync.RWMutex // guards what follows; never held over I/O
	networks  map[string]*network
	sandboxes map[string]*sandbox
}

// network is a record with what is derived from it.
type network struct {
	rec   record
	pool  *ipam.Pool // nil without IPv4 addresses
	up    bool       // its driver has made it
	gone  bool       // removed: nobody may raise it again
	users int        // endpoints, also of sandboxes in the making
}

// Open reads the records and adopts what runs: it holds the addresses and host
// ports of existing sandboxes and puts the packet rules they need in place. On
// a host without containers it changes nothing.
func Open(ctx context.Context, o Options) (_ *Networks, err error) {
	o = o.withDefaults()
	n := &Networks{opts: o, networks: map[string]*network{}, sandboxes: map[string]*sandbox{}}
	for _, d := range []string{n.netnsDir(), n.sandboxDir()} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, fmt.Errorf("open networks: %w", err)
		}
	}
	if n.host, err = kernel.Open(); err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	defer func() {
		if err != nil {
			n.release()
		}
	}()
	if n.rules, err = nat.Open(o.table()); err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	r, _ := kernel.Sysctl("net/ipv4/ip_local_port_range")
	n.ports = ports.New(ports.ParseEphemeral(r))
	n.bridge = bridge.New(bridge.Options{Host: n.host, Rules: n.rules, Table: o.table(), Closed: n.readClosed()})
	n.drivers = map[string]driver.Driver{"bridge": n.bridge}
	if err := n.load(); err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	if err := n.adopt(ctx); err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	return n, nil
}

func (o Options) withDefaults() Options {
	if o.Bridge == "" {
		o.Bridge = instanceName("gantry0", o.Instance)
	}
	if !o.HostIP.IsValid() {
		o.HostIP = netip.IPv4Unspecified()
	}
	if o.Pools == nil {
		o.Pools = ipam.Defaults()
	}
	return o
}

func (o Options) table() string {
	if o.Instance == "" {
		return "gantry"
	}
	return "gantry-" + o.Instance
}

func (n *Networks) netnsDir() string   { return filepath.Join(n.opts.RunDir, "netns") }
func (n *Networks) sandboxDir() string { return filepath.Join(n.opts.RunDir, "sandbox") }

// CloseOptions say what Close leaves.
type CloseOptions struct {
	// Remove takes bridges that no sandbox uses, and the packet rules if none
	// uses those, off the host. Records stay.
	Remove bool
}

// Close ends the daemon's part. Running containers keep their networking: only
// sockets are given back, those that hold host ports included.
func (n *Networks) Close(ctx context.Context, o CloseOptions) error {
	var all []error
	if o.Remove {
		n.mu.RLock()
		var idle []*network
		for _, w := range n.networks {
			if w.users == 0 && n.drivers[w.rec.Driver] != nil {
				idle = append(idle, w)
			}
		}
		n.mu.RUnlock()
		for _, w := range idle {
			all = append(all, n.lower(ctx, w))
		}
		all = append(all, n.reopen())
	}
	n.release()
	return errors.Join(all...)
}

func (n *Networks) release() {
	if n.host != nil {
		n.host.Close()
	}
	if n.rules != nil {
		n.rules.Close()
	}
	if n.ports != nil {
		n.ports.Close()
	}
}

// raise makes the network exist in the kernel, once.
func (n *Networks) raise(ctx context.Context, w *network) error {
	n.mu.RLock()
	up := w.up
	n.mu.RUnlock()
	if up {
		return nil
	}
	unlock, err := n.raising.Lock(ctx, w.rec.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if w.up {
		return nil
	}
	if w.gone {
		return notFound(w.rec.Name)
	}
	d := n.drivers[w.rec.Driver]
	if err := n.forwarding(); err != nil {
		return err
	}
	n.mu.RLock()
	var adopted []driver.Endpoint
	for _, s := range n.sandboxes {
		for _, l := range s.Links {
			if l.Network == w.rec.ID && s.complete {
				adopted = append(adopted, l)
			}
		}
	}
	n.mu.RUnlock()
	if err := d.Ensure(ctx, w.rec.plan(), adopted); err != nil {
		return err
	}
	n.mu.Lock()
	w.up = true
	n.mu.Unlock()
	return nil
}

// lower takes a network off the kernel, if nobody uses it.
func (n *Networks) lower(ctx context.Context, w *network) error {
	unlock, err := n.raising.Lock(ctx, w.rec.ID)
	if err != nil {
		return err
	}
	defer unlock()
	n.mu.Lock()
	busy, up := w.users > 0, w.up
	if !busy {
		w.up = false
	}
	n.mu.Unlock()
	if busy || !up {
		return nil
	}
	return n.drivers[w.rec.Driver].Remove(ctx, w.rec.plan())
}

func notFound(ref string) error { return errs.New(errs.NotFound, "network %s not found", ref) }

// tell puts an event about a network on the bus: e names the action, container
// is who comes or leaves, if anyone.
func (n *Networks) tell(e wire.Event, w *record, container string) {
	if n.opts.Events == nil {
		return
	}
	e.Type = "network"
	e.Actor = wire.EventActor{ID: w.ID, Attributes: map[string]string{"name": w.Name, "type": w.Driver}}
	if container != "" {
		e.Actor.Attributes["container"] = container
	}
	n.opts.Events.Publish(e)
}

// tellAll puts one event for each endpoint of a sandbox on the bus.
func (n *Networks) tellAll(e wire.Event, endpoints []Endpoint, container string) {
	for _, ep := range endpoints {
		n.mu.RLock()
		w := n.networks[ep.NetworkID]
		n.mu.RUnlock()
		if w != nil {
			n.tell(e, &w.rec, container)
		}
	}
}
