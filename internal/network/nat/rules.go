package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

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

	mu sync.Mutex // one transaction at a time on the connection
	c  *nftables.Conn
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
		for i, m := range rs.Maps {
			set := r.set(m.name)
			set.ID = uint32(i + 1)
			if err := c.AddSet(set, nil); err != nil {
				return err
			}
			if err := addElements(c, set, m.ports); err != nil {
				return err
			}
		}
		made := make([]*nftables.Chain, len(rs.Chains))
		for i, ch := range rs.Chains {
			made[i] = &nftables.Chain{Name: ch.name, Table: r.table}
			if ch.hook.text != "" {
				made[i].Type, made[i].Hooknum, made[i].Priority = ch.hook.kind, ch.hook.num, ch.hook.priority
			}
			c.AddChain(made[i])
		}
		for i, ch := range rs.Chains {
			for _, ru := range ch.rules {
				nr := &nftables.Rule{Table: r.table, Chain: made[i]}
				for _, p := range ru {
					nr.Exprs = append(nr.Exprs, p.exprs...)
				}
				c.AddRule(nr)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("set packet rules: %w", err)
	}
	return nil
}

// Add publishes ports: one element each, nothing else is touched. A port that
// is there already is replaced. If the table is not there the error is
// errs.NotFound: apply it whole.
func (r *Rules) Add(ports []Port) error {
	err := r.elements(ports, addElements)
	if errors.Is(err, unix.EEXIST) { // left by a daemon that died: replace it
		err = errors.Join(r.Delete(ports), r.elements(ports, addElements))
	}
	if errors.Is(err, os.ErrNotExist) {
		return errs.New(errs.NotFound, "publish: table %s: %w", r.table.Name, err)
	}
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// Delete takes published ports back. Ports that are not published are no error.
func (r *Rules) Delete(ports []Port) error {
	del := func(c *nftables.Conn, s *nftables.Set, ports []Port) error {
		es := make([]nftables.SetElement, len(ports))
		for i, p := range ports {
			es[i].Key = key(s.Name, p)
		}
		return c.SetDeleteElements(s, es)
	}
	err := r.elements(ports, del)
	if !errors.Is(err, os.ErrNotExist) {
		return wrap("unpublish", err)
	}
	var all []error // one that is missing fails the others with it: one by one
	for _, p := range ports {
		if err := r.elements([]Port{p}, del); !errors.Is(err, os.ErrNotExist) {
			all = append(all, err)
		}
	}
	return wrap("unpublish", errors.Join(all...))
}

// Replace takes some published ports back and publishes others, in one
// transaction: packets see all of it or nothing. If one of gone is not published
// or one of come is, nothing happens, and that is an error.
func (r *Rules) Replace(gone, come []Port) error {
	return wrap("publish", r.transact(func(c *nftables.Conn) error {
		for _, p := range gone {
			set := r.setOf(p)
			if err := c.SetDeleteElements(set, []nftables.SetElement{{Key: key(set.Name, p)}}); err != nil {
				return err
			}
		}
		for _, p := range come {
			if err := addElements(c, r.setOf(p), []Port{p}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// setOf is the map that a port is in.
func (r *Rules) setOf(p Port) *nftables.Set {
	if p.HostIP.IsUnspecified() {
		return r.set(anywhere)
	}
	return r.set(byAddress)
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (r *Rules) elements(ports []Port, fn func(*nftables.Conn, *nftables.Set, []Port) error) error {
	if len(ports) == 0 {
		return nil
	}
	var at, any []Port
	for _, p := range ports {
		if p.HostIP.IsUnspecified() {
			any = append(any, p)
		} else {
			at = append(at, p)
		}
	}
	return r.transact(func(c *nftables.Conn) error {
		for name, ports := range map[string][]Port{byAddress: at, anywhere: any} {
			if len(ports) == 0 {
				continue
			}
			if err := fn(c, r.set(name), ports); err != nil {
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
	for _, name := range []string{byAddress, anywhere} {
		es, err := r.c.GetSetElements(r.set(name))
		if err != nil {
			return nil, fmt.Errorf("list published ports: %w", err)
		}
		for _, e := range es {
			out = append(out, decode(name, e))
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

// set describes a map of published ports. Fields of keys and values are padded
// to four bytes each, as concatenations are.
func (r *Rules) set(name string) *nftables.Set {
	types := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	if name == byAddress {
		types = append([]nftables.SetDatatype{nftables.TypeIPAddr}, types...)
	}
	return &nftables.Set{
		Table: r.table, Name: name, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(types...),
		DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}
}

func addElements(c *nftables.Conn, s *nftables.Set, ports []Port) error {
	for len(ports) > 0 {
		n := min(chunk, len(ports))
		es := make([]nftables.SetElement, n)
		for i, p := range ports[:n] {
			val := make([]byte, 8)
			copy(val, p.Container.Addr().AsSlice())
			binary.BigEndian.PutUint16(val[4:], p.Container.Port())
			es[i] = nftables.SetElement{Key: key(s.Name, p), Val: val, Comment: p.Owner}
		}
		if err := c.SetAddElements(s, es); err != nil {
			return err
		}
		ports = ports[n:]
	}
	return nil
}

func key(set string, p Port) []byte {
	k := make([]byte, 8, 12)
	k[0] = byte(p.Proto)
	binary.BigEndian.PutUint16(k[4:], p.HostPort)
	if set == byAddress {
		return append(p.HostIP.AsSlice(), k...)
	}
	return k
}

func decode(set string, e nftables.SetElement) Port {
	p := Port{HostIP: netip.IPv4Unspecified(), Owner: e.Comment}
	k := e.Key
	if set == byAddress {
		p.HostIP, _ = netip.AddrFromSlice(k[:4])
		k = k[4:]
	}
	p.Proto, p.HostPort = Proto(k[0]), binary.BigEndian.Uint16(k[4:])
	if len(e.Val) >= 6 {
		a, _ := netip.AddrFromSlice(e.Val[:4])
		p.Container = netip.AddrPortFrom(a, binary.BigEndian.Uint16(e.Val[4:]))
	}
	return p
}
