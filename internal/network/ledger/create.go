package ledger

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/id"
	"gantry/internal/network/ipam"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// Create puts a new network on the books. Its subnet, if it names none, is one
// that neither another network nor one of routes has. Errors carry Docker's
// texts: errs.Conflict for a name that is taken, errs.Denied for an overlap or a
// predefined name, errs.NotFound for an unknown driver, errs.Invalid for what
// can't be.
// poolIDs are an address plugin's names for the subnets that c names.
func (b *Book) Create(c wire.NetworkCreate, routes []netip.Prefix, poolIDs ...string) (Record, error) {
	r, err := requested(c)
	if err != nil {
		return r, err
	}
	r.PoolIDs = poolIDs
	adoptLink(b, &r)
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.RLock()
	err = b.admit(&r, routes)
	b.mu.RUnlock()
	if err != nil {
		return r, err
	}
	return r, b.put(r)
}

// requested is the record that a request describes, as far as it can be told
// without the other networks. Pure but for its identity.
func requested(c wire.NetworkCreate) (Record, error) {
	r := newRecord(c.Name, c.Driver)
	if r.Driver == "" || r.Driver == "default" {
		r.Driver = driverBridge
	}
	if c.ConfigOnly {
		r.ConfigOnly, r.Driver = true, "null"
		if err := checkConfigOnly(c); err != nil {
			return r, err
		}
		c.Driver = driverBridge
	} else {
		c.Driver = r.Driver
	}
	if err := checkRequest(c, c.Driver); err != nil {
		return r, err
	}
	if c.ConfigFrom != nil {
		r.ConfigFrom = *c.ConfigFrom
	}
	r.Internal, r.Attachable, r.IPAM.Options = c.Internal, c.Attachable, nil
	if c.IPAM != nil {
		r.IPAM.Options = c.IPAM.Options
		if c.IPAM.Driver != "" {
			r.IPAM.Driver = c.IPAM.Driver
		}
		r.IPAM.Config = c.IPAM.Config
	}
	if c.Options != nil {
		r.Options = c.Options
	}
	if c.Labels != nil {
		r.Labels = c.Labels
	}
	if c.EnableIPv4 != nil {
		r.EnableIPv4 = *c.EnableIPv4
	}
	if c.EnableIPv6 != nil {
		r.EnableIPv6 = *c.EnableIPv6
	}
	if err := checkOptions(&r); err != nil {
		return r, err
	}
	var pools []ipam.Config
	for _, p := range r.IPAM.Config {
		pools = append(pools, poolConfig(p))
	}
	if err := ipam.Check(pools); err != nil {
		return r, err
	}
	if r.ConfigOnly {
		return r, nil
	}
	return r, r.nameLink()
}

func checkRequest(c wire.NetworkCreate, driver string) error {
	switch {
	case strings.TrimSpace(c.Name) == "":
		return errs.New(errs.Invalid, "invalid name: name is empty")
	case Predefined(c.Name) || c.Name == "default":
		return errs.New(errs.Denied, "operation is not permitted on predefined %s network ", c.Name)
	case driver == "host" || driver == "null":
		return errs.New(errs.Denied, "only one instance of %q network is allowed", driver)
	case c.Ingress:
		return errs.New(errs.Denied, "Ingress network can only be global scope network")
	case c.Scope == "swarm":
		return errs.New(errs.Denied, "cannot create a swarm scoped network when swarm is not active")
	case driver == "overlay":
		return errs.New(errs.Denied, "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
	case c.EnableIPv4 != nil && !*c.EnableIPv4 && (c.EnableIPv6 == nil || !*c.EnableIPv6):
		return errs.New(errs.Invalid, "IPv4 or IPv6 must be enabled")
	}
	return nil
}

// admit checks a new record against the others and completes its addresses. The
// lock is held.
func (b *state) admit(r *Record, routes []netip.Prefix) error {
	for _, w := range b.networks {
		if w.rec.Name == r.Name {
			return errs.New(errs.Conflict, "network with name %s already exists", r.Name)
		}
		if w.rec.Link == r.Link && r.Driver == driverBridge && w.rec.Driver == driverBridge {
			return errs.New(errs.Denied, "cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name", r.ID, r.Link, w.rec.ID, w.rec.Link)
		}
	}
	if r.Linked() && r.Driver != driverBridge {
		if err := b.admitParent(r); err != nil {
			return err
		}
	}
	if r.IPAM.Driver == "null" || r.RemoteIPAM() || r.ConfigOnly {
		return nil
	}
	others := b.subnets("")
	for _, c := range r.IPAM.Config {
		if c.Subnet.IsValid() && ipam.Overlaps(c.Subnet, others) {
			return ipam.ErrOverlap
		}
	}
	for family, on := range []bool{r.EnableIPv4, r.EnableIPv6} {
		if _, has := r.subnet(family); !on || has {
			continue
		}
		s, err := ipam.Choose(ipam.Of(families[family], b.pools), append(others, routes...))
		if err != nil {
			return err
		}
		r.Chosen = r.Chosen || family == v4
		r.IPAM.Config = slices.DeleteFunc(r.IPAM.Config, func(c wire.IPAMConfig) bool { return !c.Subnet.IsValid() })
		r.IPAM.Config = append(r.IPAM.Config, wire.IPAMConfig{Subnet: s})
	}
	if r.Driver == driverBridge && r.several() {
		return errs.New(errs.Denied, "bridge driver doesn't support multiple subnets")
	}
	for i := range r.IPAM.Config {
		if c := &r.IPAM.Config[i]; !c.Gateway.IsValid() && c.Subnet.IsValid() && r.ownsGateway() {
			c.Gateway = ipam.First(c.Subnet)
		}
	}
	return nil
}

// families are the versions of IP by their index.
var families = [2]ipam.Family{ipam.IPv4, ipam.IPv6}

// Relocate returns the record of a network whose subnet was not the user's wish,
// after choosing another subnet if routes overlap it and no container has an
// address there.
func (b *Book) Relocate(networkID string, routes []netip.Prefix) (Record, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.RLock()
	w := b.networks[networkID]
	if w == nil || w.going {
		b.mu.RUnlock()
		return Record{}, notFound(networkID)
	}
	r, fixed, others := w.rec, w.users > 0 || w.pools[v4] == nil || len(w.pools[v4].Leases()) > 0, b.subnets(networkID)
	b.mu.RUnlock()
	if fixed || !ipam.Overlaps(r.Plan().Subnet, routes) {
		return r, nil
	}
	s, err := ipam.Choose(ipam.Of(ipam.IPv4, b.pools), append(others, routes...))
	if err != nil {
		return r, err
	}
	was := r.Plan().Subnet
	r.IPAM.Config = slices.Clone(r.IPAM.Config)
	for i := range r.IPAM.Config {
		if c := &r.IPAM.Config[i]; c.Subnet == was {
			c.Subnet, c.Gateway = s, ipam.First(s)
		}
	}
	return r, b.put(r)
}

// Delete has a network taken out of the kernel by down, and then takes it off the
// books: whoever is killed in between finds the record again. Meanwhile nobody
// finds the network. If down fails it stays. One with endpoints is errs.Denied.
func (b *Book) Delete(ref string, down func(Record) error) (Record, error) {
	w, err := withdraw(b, ref)
	if err != nil {
		return Record{}, err
	}
	if err = down(w.rec); err == nil {
		err = b.store.Update(func(tx *store.Tx) error { return bucket.Delete(tx, w.rec.ID) })
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		w.going = false
		return w.rec, err
	}
	delete(b.networks, w.rec.ID)
	return w.rec, nil
}

// withdraw makes a network one that nobody finds, and so nobody joins.
func withdraw(b *Book, ref string) (*network, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	w, err := b.find(ref)
	if err == nil {
		err = b.removable(w)
	}
	if err != nil {
		return nil, err
	}
	w.going = true
	return w, nil
}

func (b *state) removable(w *network) error {
	if Predefined(w.rec.Name) {
		return errs.New(errs.Denied, "%s is a pre-defined network and cannot be removed", w.rec.Name)
	}
	if by := dependent(b, &w.rec); by != "" {
		return errs.New(errs.Denied, "configuration network %q is in use by network %s", w.rec.Name, by)
	}
	if w.users == 0 {
		return nil
	}
	var by []string
	for _, s := range b.entries {
		for _, e := range s.Endpoints {
			if e.NetworkID == w.rec.ID && !s.Retired {
				by = append(by, fmt.Sprintf("name:%q id:%q", s.Name, id.Short(e.ID)))
			}
		}
	}
	return errs.New(errs.Denied, "error while removing network: network %s has active endpoints (%s)", w.rec.Name, strings.Join(by, ", "))
}

// Unused returns the names of the networks that users made, that no container
// is on and that pass the filters of a prune.
func (b *Book) Unused(f filter.Args, now time.Time) ([]string, error) {
	if err := f.Check(filter.NetworksPrune); err != nil {
		return nil, err
	}
	before, err := f.Until(now)
	if err != nil {
		return nil, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []string
	for _, w := range b.sorted() {
		if w.users == 0 && !Predefined(w.rec.Name) && f.Labels(w.rec.Labels) && (before.IsZero() || w.rec.Created.Before(before)) {
			out = append(out, w.rec.Name)
		}
	}
	return out, nil
}
