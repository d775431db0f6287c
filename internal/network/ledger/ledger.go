// Package ledger keeps the books of the networks: which exist, which container
// has which address, host port and link. It decides; what it decided is then
// made by others.
//
// Package network calls it. It writes two kinds of record. A network outlives
// the machine's uptime: bucket "networks" of the database. A sandbox lives and
// dies with the kernel objects it lists, so its record lies beside them in the
// run directory, which a reboot empties as it empties the kernel:
//
//	<run>/sandbox/<container id>.json   addresses, ports, names of links
//	<run>/netns/<container id>          the bound namespace (made by others)
//
// The record is written before the first kernel object is made and removed
// after the last is gone. So whatever happens in between, the record tells what
// may exist, and no address is given out twice. The package must not know how
// any of it is made.
package ledger

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/network/driver"
	"gantry/internal/network/ipam"
	"gantry/internal/network/nat"
	"gantry/internal/network/ports"
	"gantry/internal/store"
)

// Options say where the books are and what they start with.
type Options struct {
	Store   *store.DB
	RunDir  string
	Default Default
	Pools   []Source // what networks without a subnet are cut from; nil: the usual ones
	// Routes are the host's, Default.Link's own left out: new subnets avoid
	// them.
	Routes    []netip.Prefix
	Ephemeral ports.Range
	// Filtered makes published ports obey the host's filters, in networks that
	// do not say otherwise.
	Filtered bool
	// NoRelay publishes nothing that the packet rules can't do alone.
	NoRelay bool
	// Local is the block of unique local IPv6 addresses (RFC 4193) that
	// networks are cut from when Pools have none.
	Local netip.Prefix
	// There returns the addresses of a link of the host, or an error if there
	// is no such link. It may be nil.
	There func(link string) ([]netip.Prefix, error)
}

// Source is a block of addresses that subnets are cut from.
type Source = ipam.Source

// ParseEphemeral reads net.ipv4.ip_local_port_range.
func ParseEphemeral(s string) ports.Range { return ports.ParseEphemeral(s) }

// A Book is the books of one daemon. It is safe for concurrent use; no lock is
// held over I/O except the database's own.
type Book struct {
	store   *store.DB
	run     string
	there   func(link string) ([]netip.Prefix, error)
	records records
	writing sync.Mutex // one change of the set of networks at a time

	mu sync.RWMutex
	state
}

// state is what is on the books. Its methods want the book's lock held, and
// change nothing but these fields.
type state struct {
	pools    []ipam.Source
	hostIP   netip.Addr
	ipv6     bool // this host has it
	filtered bool
	noRelay  bool
	ports    *ports.Table
	networks map[string]*network
	entries  map[string]*Entry
}

// network is a record with what follows from it.
type network struct {
	rec   Record
	pools [2]*ipam.Pool // of IPv4 and IPv6; nil without such addresses
	users int           // endpoints, also of sandboxes in the making
	going bool          // it is being removed: nobody finds it
}

// The families of addresses, as indices of network.pools.
const (
	v4 = 0
	v6 = 1
)

func newNetwork(r Record) *network { return &network{rec: r, pools: r.pools()} }

// Open reads the books, makes the three networks that always exist, and holds
// the addresses and host ports of the sandboxes it finds.
func Open(o Options) (*Book, error) {
	b := &Book{store: o.Store, run: o.RunDir, there: o.There, records: records(filepath.Join(o.RunDir, "sandbox")), state: state{
		pools: o.Pools, hostIP: o.Default.HostIP, ports: ports.New(o.Ephemeral), ipv6: hasIPv6(), filtered: o.Filtered, noRelay: o.NoRelay,
		networks: map[string]*network{}, entries: map[string]*Entry{},
	}}
	if len(ipam.Of(ipam.IPv4, b.pools)) == 0 {
		b.pools = append(b.pools, ipam.Defaults()...)
	}
	if len(ipam.Of(ipam.IPv6, b.pools)) == 0 && o.Local.IsValid() {
		b.pools = append(b.pools, ipam.Source{Base: o.Local, Bits: 64})
	}
	for _, d := range []string{b.NamespaceDir(), string(b.records)} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return nil, err
		}
	}
	err := b.load(o)
	if err == nil {
		err = b.adopt()
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Close lets go of the sockets that hold host ports. The records stay.
func (b *Book) Close() { b.ports.Close() }

// NamespaceDir is where namespaces are bound.
func (b *Book) NamespaceDir() string { return filepath.Join(b.run, "netns") }

func (b *Book) load(o Options) error {
	err := b.store.View(func(tx *store.Tx) error {
		for _, r := range bucket.All(tx) {
			b.networks[r.ID] = newNetwork(r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var changed []Record
	for _, w := range []struct{ name, driver string }{{Host, "host"}, {None, "null"}} {
		if b.named(w.name) == nil {
			changed = append(changed, newRecord(w.name, w.driver))
		}
	}
	if !o.Default.Off {
		var old *Record
		except := ""
		if w := b.named(Bridge); w != nil {
			old, except = &w.rec, w.rec.ID
		}
		r, err := found(b, o.Default, old).record(old, b.pools, append(b.subnets(except), o.Routes...))
		if err != nil {
			return err
		}
		if old == nil || !sameRecord(*old, r) {
			changed = append(changed, r)
		}
	}
	return b.put(changed...)
}

// put writes records and takes them into use.
func (b *Book) put(rs ...Record) error {
	if len(rs) == 0 {
		return nil
	}
	err := b.store.Update(func(tx *store.Tx) error {
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
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range rs {
		b.networks[r.ID] = newNetwork(r)
	}
	return nil
}

// subnets are those of all networks but one. The lock is held, or nobody else
// has the book yet.
func (b *state) subnets(except string) []netip.Prefix {
	var out []netip.Prefix
	for _, w := range b.networks {
		if w.rec.ConfigOnly {
			continue
		}
		for _, c := range w.rec.IPAM.Config {
			if w.rec.ID != except && c.Subnet.IsValid() {
				out = append(out, c.Subnet)
			}
		}
	}
	return out
}

// adopt reads the records of sandboxes and holds what they have.
func (b *Book) adopt() error {
	files, err := os.ReadDir(string(b.records))
	if err != nil {
		return err
	}
	written := map[string]time.Time{}
	for _, f := range files {
		owner, ok := strings.CutSuffix(f.Name(), ".json")
		var e *Entry
		if ok {
			e, err = b.records.read(owner)
		}
		if !ok || err != nil {
			// A temporary file, or one cut short: nothing was made after it.
			_ = os.Remove(filepath.Join(string(b.records), f.Name()))
			continue
		}
		b.entries[owner] = e
		if st, err := f.Info(); err == nil {
			written[owner] = st.ModTime()
		}
	}
	disown(b.entries, written)
	for _, e := range b.entries {
		for _, l := range e.Links {
			b.hold(l)
		}
	}
	return nil
}

// disown takes host ports from sandboxes whose containers were done with them:
// a retired one gives its ports back before its record goes, and if the daemon
// was killed in between the record of their next owner is the newer one.
func disown(entries map[string]*Entry, written map[string]time.Time) {
	owners := slices.Collect(maps.Keys(entries))
	slices.SortFunc(owners, func(a, b string) int {
		if c := written[b].Compare(written[a]); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	taken := map[ports.Key]bool{}
	for _, owner := range owners {
		for i := range entries[owner].Links {
			l := &entries[owner].Links[i]
			l.Ports = slices.DeleteFunc(l.Ports, func(p nat.Port) bool {
				k := portKey(p)
				if p.HostPort == 0 {
					return false
				}
				if taken[k] {
					return true
				}
				taken[k] = true
				return false
			})
		}
	}
}

// hold claims the address and the host ports of an endpoint from before.
func (b *state) hold(l driver.Endpoint) {
	if w := b.networks[l.Network]; w != nil {
		w.users++
		for i, a := range [2]netip.Prefix{l.Addr, l.Addr6} {
			if w.pools[i] != nil && a.IsValid() {
				_ = w.pools[i].Claim(a.Addr(), l.Owner) // outside after a change of subnet: nobody gets it either
			}
		}
	}
	for _, p := range l.Ports {
		b.ports.Claim(ports.Key{Proto: p.Proto.String(), IP: p.HostIP, Port: p.HostPort})
	}
}

// drop gives endpoints back.
func (b *state) drop(links []driver.Endpoint) {
	b.retire(links)
	b.release(links)
}

// retire gives back what an endpoint's successor may need at once: host ports,
// and the claim that keeps its network.
func (b *state) retire(links []driver.Endpoint) {
	for _, l := range links {
		if w := b.networks[l.Network]; w != nil {
			w.users--
		}
		for _, p := range l.Ports {
			b.ports.Release(ports.Key{Proto: p.Proto.String(), IP: p.HostIP, Port: p.HostPort})
		}
	}
}

// release frees the addresses of endpoints.
func (b *state) release(links []driver.Endpoint) {
	for _, l := range links {
		if w := b.networks[l.Network]; w != nil {
			for i, a := range [2]netip.Prefix{l.Addr, l.Addr6} {
				if w.pools[i] != nil && a.IsValid() {
					w.pools[i].Release(a.Addr(), l.Owner)
				}
			}
		}
	}
}

// Get returns the sandbox of a container, or nil.
func (b *Book) Get(owner string) *Entry {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.entries[owner]
}

// Entries returns all sandboxes.
func (b *Book) Entries() []*Entry {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]*Entry, 0, len(b.entries))
	for _, e := range b.entries {
		out = append(out, e)
	}
	return out
}

// Complete notes that all of a sandbox is in the kernel, and returns the entry
// as it is now.
func (b *Book) Complete(owner string) *Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.entries[owner]
	if old == nil {
		return nil
	}
	e := *old
	e.Complete = true
	b.entries[owner] = &e
	return &e
}

// Retire notes that a container has done with its sandbox, and returns the entry
// as it was; nil if there is none or it was retired before.
func (b *Book) Retire(owner string) *Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.entries[owner]
	if old == nil || old.Retired {
		return nil
	}
	e := *old
	e.Complete, e.Retired = false, true
	b.entries[owner] = &e
	b.retire(e.Links)
	return old
}

// Strike takes a sandbox off the books: its addresses and ports are free.
func (b *Book) Strike(owner string) error {
	if err := b.records.remove(owner); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[owner]; e != nil {
		if !e.Retired {
			b.retire(e.Links)
		}
		b.release(e.Links)
		delete(b.entries, owner)
	}
	return nil
}

// Network returns the record of a network by its ID.
func (b *Book) Network(networkID string) (Record, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if w := b.networks[networkID]; w != nil && !w.going {
		return w.rec, nil
	}
	return Record{}, notFound(networkID)
}

// Networks returns the records of all networks, oldest first.
func (b *Book) Networks() []Record {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []Record
	for _, w := range b.sorted() {
		out = append(out, w.rec)
	}
	return out
}

// Find returns the record of the network with this ID, name or unique prefix of
// an ID.
func (b *Book) Find(ref string) (Record, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	w, err := b.find(ref)
	if err != nil {
		return Record{}, err
	}
	return w.rec, nil
}

// On returns the endpoints on a network, those of sandboxes in the making left
// out, and how many there are with those.
func (b *Book) On(networkID string) (links []driver.Endpoint, users int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, e := range b.entries {
		for _, l := range e.Links {
			if e.Complete && l.Network == networkID {
				links = append(links, l)
			}
		}
	}
	if w := b.networks[networkID]; w != nil {
		users = w.users
	}
	return links, users
}

// Leases returns who has which address.
func (b *Book) Leases() map[netip.Addr]string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := map[netip.Addr]string{}
	for _, w := range b.networks {
		for _, p := range w.pools {
			if p == nil {
				continue
			}
			for a, owner := range p.Leases() {
				out[a] = owner
			}
		}
	}
	return out
}

// named returns the network called name, or nil. The lock is held.
func (b *state) named(name string) *network {
	for _, w := range b.networks {
		if w.rec.Name == name && !w.going {
			return w
		}
	}
	return nil
}

// sorted returns the networks, oldest first. The lock is held.
func (b *state) sorted() []*network {
	all := make([]*network, 0, len(b.networks))
	for _, w := range b.networks {
		if !w.going {
			all = append(all, w)
		}
	}
	slices.SortFunc(all, func(a, b *network) int {
		if c := a.rec.Created.Compare(b.rec.Created); c != 0 {
			return c
		}
		return strings.Compare(a.rec.Name, b.rec.Name)
	})
	return all
}

func notFound(ref string) error { return errs.New(errs.NotFound, "network %s not found", ref) }
