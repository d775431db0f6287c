package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gantry/internal/durable"
	"gantry/internal/id"
	"gantry/internal/network/driver"
	"gantry/internal/network/ipam"
	"gantry/internal/network/ports"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// record is what is decided about a network.
type record struct {
	wire.Network
	// Link is the bridge's name.
	Link string
	// Chosen is true if the subnet was not the user's wish, so that another
	// one would do.
	Chosen bool
}

var bucket = store.NewBucket[record]("networks")

// The names of the three networks that always exist.
const (
	defaultNetwork = "bridge"
	hostNetwork    = "host"
	noneNetwork    = "none"
)

// Options of a network, by Docker's names.
const (
	optDefault  = "com.docker.network.bridge.default_bridge"
	optICC      = "com.docker.network.bridge.enable_icc"
	optMasq     = "com.docker.network.bridge.enable_ip_masquerade"
	optHostIP   = "com.docker.network.bridge.host_binding_ipv4"
	optName     = "com.docker.network.bridge.name"
	optMTU      = "com.docker.network.driver.mtu"
	optIfPrefix = "com.docker.network.container_iface_prefix"
)

const defaultMTU = 1500

// plan is the record as the driver sees it. Pure.
func (r *record) plan() driver.Network {
	p := driver.Network{
		ID: r.ID, Name: r.Name, Link: r.Link, Internal: r.Internal,
		Isolated: isFalse(r.Options[optICC]), NAT: !isFalse(r.Options[optMasq]),
	}
	if v, err := strconv.Atoi(r.Options[optMTU]); err == nil {
		p.MTU = v
	}
	for _, c := range r.IPAM.Config {
		if c.Subnet.IsValid() && c.Subnet.Addr().Is4() {
			p.Subnet, p.Gateway = c.Subnet, c.Gateway
			break
		}
	}
	return p
}

func isFalse(s string) bool { b, err := strconv.ParseBool(s); return err == nil && !b }

// pool returns the addresses of the record's IPv4 subnet, or nil.
func (r *record) pool() *ipam.Pool {
	for _, c := range r.IPAM.Config {
		if c.Subnet.IsValid() && c.Subnet.Addr().Is4() {
			return ipam.New(poolConfig(c))
		}
	}
	return nil
}

func poolConfig(c wire.IPAMConfig) ipam.Config {
	p := ipam.Config{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway}
	for _, a := range c.AuxAddress {
		p.Aux = append(p.Aux, a)
	}
	return p
}

// instanceName returns base, or for a named instance a name of at most 15
// bytes, the kernel's limit, that differs for each instance.
func instanceName(base, instance string) string {
	if instance == "" {
		return base
	}
	if s := base + "-" + instance; len(s) <= 15 {
		return s
	}
	h := fnv.New32a()
	h.Write([]byte(instance))
	return fmt.Sprintf("%.6s-%08x", base, h.Sum32())
}

// load reads the records of networks and makes those that always exist.
func (n *Networks) load() error {
	var all []record
	err := n.opts.Store.View(func(tx *store.Tx) error {
		for _, r := range bucket.All(tx) {
			all = append(all, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range all {
		n.networks[r.ID] = &network{rec: r, pool: r.pool()}
	}
	var changed []record
	for _, w := range []struct{ name, driver string }{{hostNetwork, "host"}, {noneNetwork, "null"}} {
		if n.named(w.name) == nil {
			changed = append(changed, newRecord(w.name, w.driver))
		}
	}
	if n.opts.Bridge != "none" {
		r, err := n.defaultRecord()
		if err != nil {
			return err
		}
		if w := n.named(defaultNetwork); w == nil || !sameRecord(w.rec, r) {
			changed = append(changed, r)
		}
	}
	return n.put(changed...)
}

func newRecord(name, driver string) record {
	return record{Network: wire.Network{
		Name: name, ID: id.New(), Created: time.Now().UTC(), Scope: "local", Driver: driver, EnableIPv4: true,
		IPAM: wire.IPAM{Driver: "default"}, Options: map[string]string{}, Labels: map[string]string{},
	}}
}

func sameRecord(a, b record) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// put writes records and takes them into use.
func (n *Networks) put(rs ...record) error {
	if len(rs) == 0 {
		return nil
	}
	err := n.opts.Store.Update(func(tx *store.Tx) error {
		for _, r := range rs {
			if err := bucket.Put(tx, r.ID, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range rs {
		n.networks[r.ID] = &network{rec: r, pool: r.pool()}
	}
	return nil
}

// defaultRecord is the default network as the options want it, with the
// identity and the chosen subnet that it has already.
func (n *Networks) defaultRecord() (record, error) {
	o := n.opts
	r := newRecord(defaultNetwork, "bridge")
	old := n.named(defaultNetwork)
	if old != nil {
		r.ID, r.Created = old.rec.ID, old.rec.Created
	}
	r.Link = o.Bridge
	mtu := o.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	r.Options = map[string]string{
		optDefault: "true", optICC: strconv.FormatBool(!o.IsolateDefault), optMasq: strconv.FormatBool(!o.NoMasquerade),
		optHostIP: o.HostIP.String(), optName: o.Bridge, optMTU: strconv.Itoa(mtu),
	}
	c := wire.IPAMConfig{Subnet: o.Subnet.Masked(), IPRange: o.Range}
	switch {
	case o.Subnet.IsValid():
		c.Gateway = o.Subnet.Addr()
		if o.Subnet == o.Subnet.Masked() {
			c.Gateway = ipam.First(o.Subnet)
		}
	case old != nil && old.rec.Chosen && n.stillFree(old.rec):
		r.Chosen, c = true, old.rec.IPAM.Config[0]
	default:
		taken, err := n.taken(r.ID)
		if err != nil {
			return r, err
		}
		if c.Subnet, err = ipam.Choose(o.Pools, taken); err != nil {
			return r, err
		}
		r.Chosen, c.Gateway = true, ipam.First(c.Subnet)
	}
	r.IPAM.Config = []wire.IPAMConfig{c}
	return r, ipam.Check([]ipam.Config{poolConfig(c)})
}

// stillFree reports whether a chosen subnet may go on being used: its bridge is
// there, or nothing else has taken the addresses meanwhile.
func (n *Networks) stillFree(r record) bool {
	if _, err := n.host.Index(r.Link); err == nil {
		return true
	}
	taken, err := n.taken(r.ID)
	return err != nil || !ipam.Overlaps(r.plan().Subnet, taken)
}

// taken are the subnets that a new network must avoid: routes of the host and
// subnets of the other networks.
func (n *Networks) taken(except string) ([]netip.Prefix, error) {
	routes, err := n.host.Routes()
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, w := range n.networks {
		if w.rec.ID == except {
			continue
		}
		for _, c := range w.rec.IPAM.Config {
			if c.Subnet.IsValid() {
				routes = append(routes, c.Subnet)
			}
		}
	}
	return routes, nil
}

// named returns the network called name, or nil.
func (n *Networks) named(name string) *network {
	for _, w := range n.networks {
		if w.rec.Name == name {
			return w
		}
	}
	return nil
}

// adopt reads the records of sandboxes, holds what they have, and raises the
// networks that they use.
func (n *Networks) adopt(ctx context.Context) error {
	files, err := os.ReadDir(n.sandboxDir())
	if err != nil {
		return err
	}
	used := map[*network]bool{}
	for _, f := range files {
		owner, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok {
			continue
		}
		s, err := n.readSandbox(owner)
		if err != nil {
			// Written in part, so nothing was made yet: only the file is left.
			_ = os.Remove(filepath.Join(n.sandboxDir(), f.Name()))
			continue
		}
		n.sandboxes[owner] = s
		for _, l := range s.Links {
			if w := n.networks[l.Network]; w != nil {
				n.hold(w, l)
				used[w] = true
			}
		}
	}
	for w := range used {
		if err := n.raise(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// hold claims the address and the host ports of an endpoint from before.
func (n *Networks) hold(w *network, l driver.Endpoint) {
	w.users++
	if w.pool != nil {
		_ = w.pool.Claim(l.Addr.Addr(), l.Owner) // outside after a change of subnet: nobody gets it either
	}
	for _, p := range l.Ports {
		n.ports.Claim(ports.Key{Proto: p.Proto.String(), IP: p.HostIP, Port: p.HostPort})
	}
}

func (n *Networks) sandboxFile(owner string) string {
	return filepath.Join(n.sandboxDir(), owner+".json")
}

func (n *Networks) readSandbox(owner string) (*sandbox, error) {
	data, err := os.ReadFile(n.sandboxFile(owner))
	if err != nil {
		return nil, err
	}
	s := &sandbox{complete: true}
	if err := json.Unmarshal(data, s); err != nil || s.ID != owner {
		return nil, fmt.Errorf("sandbox record of %s: %w", owner, errors.Join(err, fs.ErrInvalid))
	}
	return s, nil
}

func (n *Networks) writeSandbox(s *sandbox) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return durable.Replace(n.sandboxFile(s.ID), data, 0o600)
}

// sorted returns the networks, oldest first.
func (n *Networks) sorted() []*network {
	all := make([]*network, 0, len(n.networks))
	for _, w := range n.networks {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *network) int {
		if c := a.rec.Created.Compare(b.rec.Created); c != 0 {
			return c
		}
		return strings.Compare(a.rec.Name, b.rec.Name)
	})
	return all
}
