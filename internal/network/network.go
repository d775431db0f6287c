// Package network gives containers their networks: namespaces, addresses,
// published ports, names.
//
// The engine's launch package attaches and detaches containers; the API lists,
// inspects, creates. Its child ledger keeps the books and decides; drivers
// (bridge) make what was decided out of kernel objects; this package drives
// both and keeps their order: first on the books, then in the kernel; out of the
// kernel, then off the books. Every kernel object carries its owner's id in its
// name or comment, so that what no record owns can be found and removed. It
// must not know of containers beyond their ids, names and endpoint settings.
package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/filter"
	"gantry/internal/keyed"
	"gantry/internal/network/bridge"
	"gantry/internal/network/driver"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
	"gantry/internal/network/macvlan"
	"gantry/internal/network/names"
	"gantry/internal/network/nat"
	"gantry/internal/network/remote"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// The values of this package are those on the books.
type (
	// Sandbox is a container's network namespace and all its endpoints.
	Sandbox = ledger.Sandbox
	// Endpoint is one container's place in one network.
	Endpoint = ledger.Endpoint
	// AttachRequest asks for a sandbox.
	AttachRequest = ledger.AttachRequest
	// Reaches are exposed ports of containers by the containers' IDs.
	Reaches = ledger.Reaches
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
	// IPv6 gives the default network IPv6, too: Subnet6 and Range6 as above, by
	// default a subnet of this host's unique local block.
	IPv6    bool
	Subnet6 netip.Prefix
	Range6  netip.Prefix
	// Gateway and Gateway6 are the routers of the default network's containers,
	// where that is not the bridge.
	Gateway, Gateway6 netip.Addr
	MTU               int
	// HostIP is where ports are published whose binding names no address;
	// 0.0.0.0 by default.
	HostIP netip.Addr
	// Pools are what networks without a subnet are cut from.
	Pools []ledger.Source

	// NetworkOptions are, by driver, the options that new networks get unless
	// they are made with others.
	NetworkOptions map[string]map[string]string

	IsolateDefault bool // containers of the default network do not reach each other
	NoMasquerade   bool
	// FilterPorts makes published ports obey the host's own filters: packets
	// for them run through its input hooks. A network's option
	// "gantry.published-ports" overrides it.
	FilterPorts bool
	// DirectRouting lets everybody who has a way to them reach the published ports
	// at the containers' own addresses.
	DirectRouting bool
	// AcceptMark is what of a packet's mark lets it to every port of containers.
	AcceptMark Mark
	// NoRelay publishes only what the packet rules can do alone: not ::1, and
	// IPv6 only to containers that have it.
	NoRelay bool
	// NoIPForward leaves net.ipv4.ip_forward as it is.
	NoIPForward bool
	// HostGateway is what "host-gateway" stands for; by default the default
	// network's gateway.
	HostGateway netip.Addr
	// Plugins reaches the drivers of networks and addresses that are other programs;
	// nil: there are none.
	Plugins remote.Caller
	// Keeper has the supervisors of containers hold the sockets on which names
	// are asked for, so that questions wait for the next daemon; may be nil.
	Keeper names.Keeper
}

// Mark is what a packet's mark has to be.
type Mark = nat.Mark

// Networks are the networks and sandboxes of one daemon. It is safe for
// concurrent use.
type Networks struct {
	opts  Options
	book  *ledger.Book
	stage *stage
	names *names.Names
	// nameless says whose names could not be taken over at the start.
	nameless error

	making  keyed.Mutex[string] // work on one container at a time
	reaping sync.WaitGroup
}

// Open reads the books and adopts what runs: it holds the addresses and host
// ports of existing sandboxes and puts the packet rules they need in place. On
// a host without containers it changes nothing.
func Open(ctx context.Context, o Options) (_ *Networks, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open networks: %w", err)
		}
	}()
	o = o.withDefaults()
	host, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	s := &stage{host: host, noForward: o.NoIPForward}
	n := &Networks{opts: o, stage: s}
	defer func() {
		if err != nil {
			release(n)
		}
	}()
	routes, err := host.Routes(o.Bridge)
	if err != nil {
		return nil, err
	}
	r, _ := kernel.Sysctl("net/ipv4/ip_local_port_range")
	n.book, err = ledger.Open(ledger.Options{
		Store: o.Store, RunDir: o.RunDir, Pools: o.Pools, Routes: routes, Ephemeral: ledger.ParseEphemeral(r),
		Filtered: o.FilterPorts, NoRelay: o.NoRelay,
		Default: ledger.Default{
			Off: o.Bridge == "none", Link: o.Bridge, Subnet: o.Subnet, Range: o.Range, MTU: o.MTU,
			IPv6: o.IPv6, Subnet6: o.Subnet6, Range6: o.Range6, Gateway: o.Gateway, Gateway6: o.Gateway6,
			Isolated: o.IsolateDefault, NoNAT: o.NoMasquerade, HostIP: o.HostIP, Options: o.NetworkOptions["bridge"],
		},
		Local: localBlock(), There: host.Addresses,
	})
	if err != nil {
		return nil, err
	}
	s.book = n.book
	n.names = names.New(context.WithoutCancel(ctx), names.Options{Book: n.book, Keeper: o.Keeper, Host: nameServers})
	if s.bridge, err = bridge.Open(ctx, bridge.Options{Host: host, Table: o.table(), Closed: n.book.Forwarding().Closed(), Closed6: n.book.Forwarding().IPv6().Closed(), Direct: o.DirectRouting, Accept: o.AcceptMark, Socket: func(p nat.Port) (*os.File, error) { return ledger.Socket(n.book, p) }}); err != nil {
		return nil, err
	}
	namespace := func(owner string) string { return filepath.Join(n.book.NamespaceDir(), owner) }
	s.plugins = o.Plugins
	s.plugin = func(name string) *remote.Driver {
		return &remote.Driver{Name: name, Caller: o.Plugins, Host: host, Namespace: namespace}
	}
	s.drivers = map[string]driver.Driver{
		"bridge": s.bridge, macvlan.Macvlan: macvlan.New(host, macvlan.Macvlan, namespace), macvlan.IPvlan: macvlan.New(host, macvlan.IPvlan, namespace),
	}
	if err := s.adopt(ctx); err != nil {
		return nil, err
	}
	n.nameless = n.names.Adopt(ctx)
	return n, nil
}

// localBlock is the block of unique local IPv6 addresses of this machine.
func localBlock() netip.Prefix {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(id) == 0 {
		name, _ := os.Hostname()
		id = []byte(name)
	}
	return ledger.Local(bytes.TrimSpace(id))
}

func (o Options) withDefaults() Options {
	if o.Bridge == "" {
		o.Bridge = ledger.InstanceName("gantry0", o.Instance)
	}
	if o.Plugins == nil {
		o.Plugins = noPlugins{}
	}
	if !o.HostIP.IsValid() {
		o.HostIP = netip.IPv4Unspecified()
	}
	return o
}

func (o Options) table() string {
	if o.Instance == "" {
		return "gantry"
	}
	return "gantry-" + o.Instance
}

// CloseOptions say what Close leaves.
type CloseOptions struct {
	// Remove takes bridges that no sandbox uses, and the packet rules if none
	// uses those, off the host. Records stay.
	Remove bool
}

// Close ends the daemon's part. Running containers keep their networking: only
// sockets are given back, those that hold host ports included.
func (n *Networks) Close(ctx context.Context, o CloseOptions) error {
	ctx = context.WithoutCancel(ctx) // what is not taken off now stays
	n.stage.up.end()
	n.Settle()
	var all []error
	if o.Remove {
		for _, w := range n.book.Networks() {
			if w.Linked() {
				all = append(all, n.stage.lower(ctx, w))
			}
		}
		all = append(all, n.stage.stopForwarding())
	}
	release(n)
	return errors.Join(all...)
}

func release(n *Networks) {
	if n.names != nil {
		n.names.Close()
	}
	n.stage.host.Close()
	if n.stage.bridge != nil {
		n.stage.bridge.Close()
	}
	if n.book != nil {
		n.book.Close()
	}
}

// Inspect returns the network called ref, or with this ID or prefix of it, with
// its containers and address usage. An unknown one is errs.NotFound.
func (n *Networks) Inspect(_ context.Context, ref string) (wire.NetworkInspect, error) {
	return n.book.Inspect(ref)
}

// List returns the networks that pass the filters, oldest first, with the
// containers in them.
func (n *Networks) List(_ context.Context, f filter.Args) ([]wire.NetworkInspect, error) {
	return n.book.List(f)
}

// Create makes a network. It takes form on the host with its first container.
func (n *Networks) Create(ctx context.Context, c wire.NetworkCreate) (wire.NetworkCreated, error) {
	routes, err := n.stage.host.Routes()
	if err != nil {
		return wire.NetworkCreated{}, err
	}
	if c, err = ledger.Inherit(n.book, c); err != nil {
		return wire.NetworkCreated{}, err
	}
	if c, err = n.completed(c); err != nil {
		return wire.NetworkCreated{}, err
	}
	if err := known(ctx, n.stage, c.Driver); err != nil {
		return wire.NetworkCreated{}, err
	}
	pools, undo, err := acquire(ctx, n.stage.plugins, &c)
	if err != nil {
		return wire.NetworkCreated{}, err
	}
	w, err := n.book.Create(c, routes, pools...)
	if err != nil {
		undo()
		return wire.NetworkCreated{}, err
	}
	if err := begin(ctx, n.stage, w); err != nil {
		_, back := n.book.Delete(w.ID, func(w ledger.Record) error { return n.stage.lower(context.WithoutCancel(ctx), w) })
		undo()
		return wire.NetworkCreated{}, errors.Join(err, back)
	}
	n.tell(wire.Event{Action: "create"}, w, "")
	return wire.NetworkCreated{ID: w.ID}, nil
}

// completed adds to a request what the configuration and the machine have to say.
func (n *Networks) completed(c wire.NetworkCreate) (wire.NetworkCreate, error) {
	name := c.Driver
	if name == "" || name == "default" {
		name = "bridge"
	}
	if more := n.opts.NetworkOptions[name]; len(more) > 0 && !c.ConfigOnly {
		all := maps.Clone(more)
		maps.Copy(all, c.Options)
		c.Options = all
	}
	return c, nil
}

// Remove removes a network that no container is on; others are errs.Denied.
func (n *Networks) Remove(ctx context.Context, ref string) error {
	ctx = context.WithoutCancel(ctx) // half a removal helps nobody
	w, err := n.book.Delete(ref, func(w ledger.Record) error {
		if err := finish(ctx, n.stage, w); err != nil {
			return fmt.Errorf("remove network %s: %w", w.Name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	n.names.Forget(w.ID)
	n.tell(wire.Event{Action: "destroy"}, w, "")
	return nil
}

// Prune removes the networks that no container is on and that pass the filters.
func (n *Networks) Prune(ctx context.Context, f filter.Args) (wire.NetworksPruned, error) {
	var out wire.NetworksPruned
	names, err := n.book.Unused(f, time.Now())
	if err != nil {
		return out, err
	}
	for _, name := range names {
		err := n.Remove(ctx, name)
		if errs.Is(err, errs.Denied) || errs.Is(err, errs.NotFound) {
			continue // joined or removed in the meantime
		}
		if err != nil {
			return out, err
		}
		out.NetworksDeleted = append(out.NetworksDeleted, name)
	}
	if n.opts.Events != nil {
		n.opts.Events.Publish(wire.Event{Type: "network", Action: "prune", Actor: wire.EventActor{Attributes: map[string]string{"reclaimed": "0"}}})
	}
	return out, nil
}

// tell puts an event about a network on the bus: e names the action, container
// is who comes or leaves, if anyone.
func (n *Networks) tell(e wire.Event, w ledger.Record, container string) {
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
		if w, err := n.book.Network(ep.NetworkID); err == nil {
			n.tell(e, w, container)
		}
	}
}
