package nat

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// chunk is how many elements one netlink message carries: their list must stay
// below 64 KiB.
const chunk = 256

// sendBuffer holds the largest transaction: about 130 bytes an element.
const sendBuffer = 8 << 20

// Rules is the table in the kernel, over one lasting connection.
type Rules struct {
	table *nftables.Table

	mu   sync.Mutex // one transaction at a time on the connection
	c    *nftables.Conn
	port atomic.Uint32 // the kernel's number for the connection
}

// Open connects to the packet filter of the calling thread's network namespace.
// It changes nothing. A kernel without nftables is errs.Unsupported.
func Open(table string) (*Rules, error) {
	r := &Rules{table: &nftables.Table{Family: nftables.TableFamilyINet, Name: table}}
	if err := r.dial(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Rules) dial() error {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		r.port.Store(portOf(c))
		if c.SetWriteBuffer(sendBuffer) != nil { // needs CAP_NET_ADMIN for so much
			return nil
		}
		_ = c.SetReadBuffer(sendBuffer)
		return nil
	}))
	if err != nil {
		return errs.New(errs.Unsupported, "open nftables: %w", err)
	}
	r.c = c
	return nil
}

// Close ends the connection. The rules stay.
func (r *Rules) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.c.CloseLasting()
}

// transact collects what fn asks for and sends it as one transaction: all of
// it happens, or nothing.
func (r *Rules) transact(fn func(*nftables.Conn) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := fn(r.c)
	if err == nil {
		err = r.c.Flush()
	}
	if err == nil {
		return nil
	}
	// What is queued or unread on the connection would meet the next caller.
	_ = r.c.CloseLasting()
	return errors.Join(err, r.dial())
}

// Apply replaces the whole table. Packets see the old rules or the new ones.
func (r *Rules) Apply(rs Ruleset) error {
	err := r.transact(func(c *nftables.Conn) error {
		// To add before deleting makes the deletion succeed in any case.
		c.AddTable(r.table)
		c.DelTable(r.table)
		c.AddTable(r.table)
		return fill(c, r.table, rs)
	})
	if err != nil {
		return fmt.Errorf("set packet rules: %w", err)
	}
	return nil
}

// fill asks for everything in a table that is empty.
func fill(c *nftables.Conn, t *nftables.Table, rs Ruleset) error {
	for i, m := range rs.Maps {
		set := m.set(t)
		set.ID = uint32(i + 1)
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
		if err := addElements(c, set, m.layout, m.spans); err != nil {
			return err
		}
	}
	made := make([]*nftables.Chain, len(rs.Chains))
	for i, ch := range rs.Chains {
		made[i] = &nftables.Chain{Name: ch.name, Table: t}
		if ch.hook.text != "" {
			made[i].Type, made[i].Hooknum, made[i].Priority = ch.hook.kind, ch.hook.num, ch.hook.priority
		}
		c.AddChain(made[i])
	}
	for i, m := range rs.Links { // their elements name chains
		set := m.set(t)
		set.ID = uint32(len(rs.Maps) + i + 1)
		if err := c.AddSet(set, m.elements()); err != nil {
			return err
		}
	}
	for i, ch := range rs.Chains {
		for _, ru := range ch.rules {
			nr := &nftables.Rule{Table: t, Chain: made[i]}
			for _, p := range ru {
				nr.Exprs = append(nr.Exprs, p.exprs...)
			}
			c.AddRule(nr)
		}
	}
	return nil
}

// Add publishes the ports of a container: one element each, or for each range,
// nothing else is touched. What is there already is replaced. If the table is not
// there the error is errs.NotFound: apply it whole.
func (r *Rules) Add(ports []Port) error {
	all := spans(ports)
	err := r.elements(all, addElements)
	if errors.Is(err, unix.EEXIST) { // left by a daemon that died: replace it
		err = errors.Join(r.Delete(ports), r.elements(all, addElements))
	}
	if errors.Is(err, os.ErrNotExist) {
		return errs.New(errs.NotFound, "publish: table %s: %w", r.table.Name, err)
	}
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// Delete takes published ports back, all that a container has. Ports that are
// not published are no error.
func (r *Rules) Delete(ports []Port) error {
	list := spans(ports)
	err := r.elements(list, deleteElements)
	if !errors.Is(err, os.ErrNotExist) || len(list) == 1 {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return wrap("unpublish", err)
	}
	var all []error // one that is missing fails the others with it: one by one
	for _, p := range list {
		if err := r.elements([]span{p}, deleteElements); !errors.Is(err, os.ErrNotExist) {
			all = append(all, err)
		}
	}
	return wrap("unpublish", errors.Join(all...))
}

// Replace makes the published ports of a container, which are from, those of to,
// in one transaction: packets see all of it or nothing. If something that goes is
// not published or something that comes is, nothing happens, and that is an error.
func (r *Rules) Replace(from, to []Port) error {
	was, will := spans(from), spans(to)
	return wrap("publish", r.transact(func(c *nftables.Conn) error {
		for _, p := range without(was, will) {
			l := layoutOf(p)
			if err := deleteElements(c, l.set(r.table), l, []span{p}); err != nil {
				return err
			}
		}
		for _, p := range without(will, was) {
			l := layoutOf(p)
			if err := addElements(c, l.set(r.table), l, []span{p}); err != nil {
				return err
			}
		}
		return nil
	}))
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (r *Rules) elements(list []span, fn func(*nftables.Conn, *nftables.Set, layout, []span) error) error {
	by := map[layout][]span{}
	for _, p := range list {
		by[layoutOf(p)] = append(by[layoutOf(p)], p)
	}
	if len(by) == 0 {
		return nil
	}
	return r.transact(func(c *nftables.Conn) error {
		for l, list := range by {
			if err := fn(c, l.set(r.table), l, list); err != nil {
				return err
			}
		}
		return nil
	})
}

// Remove removes the table. If there is none that is no error.
func (r *Rules) Remove() error {
	return wrap("remove packet rules", r.transact(func(c *nftables.Conn) error {
		c.AddTable(r.table)
		c.DelTable(r.table)
		return nil
	}))
}

// Published returns the ports in the kernel's maps, or errs.NotFound if there
// is no table.
func (r *Rules) Published() ([]Port, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, err := r.c.ListTableOfFamily(r.table.Name, r.table.Family); err != nil || t == nil {
		return nil, errs.New(errs.NotFound, "no table %s", r.table.Name)
	}
	var out []Port
	for _, l := range layouts {
		es, err := r.c.GetSetElements(l.set(r.table))
		if errors.Is(err, os.ErrNotExist) {
			continue // the table is one of an older version
		}
		if err != nil {
			return nil, fmt.Errorf("list published ports: %w", err)
		}
		for _, e := range es {
			out = append(out, l.decode(e).ports()...)
		}
	}
	return out, nil
}

// DropsForwarding returns the names of the base chains of other programs that
// drop forwarded packets unless told otherwise, as "table/chain": containers
// are not reachable through them, whatever our own rules say.
func (r *Rules) DropsForwarding() ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, err := r.c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var out []string
	for _, c := range all {
		if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop && c.Table.Name != r.table.Name {
			out = append(out, c.Table.Name+"/"+c.Name)
		}
	}
	return out, nil
}

func addElements(c *nftables.Conn, s *nftables.Set, l layout, list []span) error {
	for some := range slices.Chunk(list, chunk) {
		es := make([]nftables.SetElement, len(some))
		for i, p := range some {
			es[i] = l.element(p)
		}
		if err := c.SetAddElements(s, es); err != nil {
			return err
		}
	}
	return nil
}

func deleteElements(c *nftables.Conn, s *nftables.Set, l layout, list []span) error {
	for some := range slices.Chunk(list, chunk) {
		es := make([]nftables.SetElement, len(some))
		for i, p := range some {
			es[i].Key, es[i].KeyEnd = l.keys(p)
		}
		if err := c.SetDeleteElements(s, es); err != nil {
			return err
		}
	}
	return nil
}
