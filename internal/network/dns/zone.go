package dns

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Zone is the names on one network. A name's addresses are replaced as a whole,
// and whoever looks one up never waits.
type Zone struct {
	name  string   // of the network, in lower case
	names sync.Map // name in lower case -> []holder
	ptrs  sync.Map // netip.Addr -> the name of who has it

	mu     sync.Mutex
	owners map[string]Names // by container ID; for writers
}

// Names are those of one container on a network.
type Names struct {
	All   []string // the first one is told for its addresses
	Addrs []netip.Addr
}

// holder is one of those that have a name.
type holder struct {
	owner string
	addrs []netip.Addr
}

func newZone(name string) *Zone {
	return &Zone{name: strings.ToLower(name), owners: map[string]Names{}}
}

// Set makes these the names of a container, instead of those that it had; none
// if there are no addresses.
func (z *Zone) Set(owner string, n Names) {
	n.All = slices.Clone(n.All)
	for i := range n.All {
		n.All[i] = strings.ToLower(n.All[i])
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	old := z.owners[owner]
	if len(n.Addrs) == 0 {
		n = Names{}
		delete(z.owners, owner)
	} else {
		z.owners[owner] = n
	}
	// What comes is there before what goes is gone.
	for _, name := range n.All {
		z.put(name, owner, n.Addrs)
	}
	for _, a := range n.Addrs {
		if len(n.All) > 0 {
			z.ptrs.Store(a, n.All[0])
		}
	}
	for _, name := range old.All {
		if !slices.Contains(n.All, name) {
			z.put(name, owner, nil)
		}
	}
	for _, a := range old.Addrs {
		if !slices.Contains(n.Addrs, a) {
			z.ptrs.Delete(a)
		}
	}
}

// put replaces an owner's share of a name.
func (z *Zone) put(name, owner string, addrs []netip.Addr) {
	old, _ := z.names.Load(name)
	var now []holder
	if old != nil {
		now = slices.DeleteFunc(slices.Clone(old.([]holder)), func(h holder) bool { return h.owner == owner })
	}
	if len(addrs) > 0 {
		now = append(now, holder{owner, addrs})
	}
	if len(now) == 0 {
		z.names.Delete(name)
		return
	}
	z.names.Store(name, now)
}

// Empty reports whether nobody has a name here.
func (z *Zone) Empty() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.owners) == 0
}

// lookup appends the addresses that a name has.
func (z *Zone) lookup(dst []netip.Addr, name string) []netip.Addr {
	if v, ok := z.names.Load(name); ok {
		for _, h := range v.([]holder) {
			dst = append(dst, h.addrs...)
		}
	}
	return dst
}

// of returns the whole name of who has an address.
func (z *Zone) of(a netip.Addr) (string, bool) {
	v, ok := z.ptrs.Load(a)
	if !ok {
		return "", false
	}
	return v.(string) + "." + z.name, true
}
