package classic

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
)

// Limits of what is remembered of contexts.
const (
	maxContexts = 16
	maxStamps   = 1 << 20 // of all together
)

// A stamp is what the transfer compares files by.
type stamp struct {
	name        string
	size, mtime int64
}

// keys remembers contexts, so that one which is sent again is transferred to the
// builder only as far as it has changed. The transfer takes files of the same
// name, size and time for the same; contexts that programs make often have the
// time 0 everywhere. So a key, under which the builder keeps a copy, is used
// again only if the contents behind equal stamps are known to be equal.
type keys struct {
	mu     sync.Mutex
	used   []*contextKey // most recently used last
	stamps int
}

type contextKey struct {
	key  string
	last int // files of the latest context
	sums map[stamp][sha256.Size]byte
}

// key returns the key for a context.
func (k *keys) key(t *tarFS) string {
	list := map[stamp][sha256.Size]byte{}
	t.root.stamps(list)
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := len(k.used) - 1; i >= 0; i-- {
		if c := k.used[i]; c.fits(list) {
			k.used = append(append(k.used[:i:i], k.used[i+1:]...), c)
			k.learn(c, list)
			return c.key
		}
	}
	c := &contextKey{key: "classic-" + rand.Text(), sums: map[stamp][sha256.Size]byte{}}
	k.used = append(k.used, c)
	k.learn(c, list)
	return c.key
}

// fits says whether a context may be compared with what is kept under the key,
// and has enough in common with it.
func (c *contextKey) fits(list map[stamp][sha256.Size]byte) bool {
	same := 0
	for s, sum := range list {
		old, ok := c.sums[s]
		if ok && old != sum {
			return false
		}
		if ok {
			same++
		}
	}
	return same*2 >= max(c.last, len(list))
}

func (k *keys) learn(c *contextKey, list map[stamp][sha256.Size]byte) {
	before := len(c.sums)
	for s, sum := range list {
		c.sums[s] = sum
	}
	c.last = len(list)
	k.stamps += len(c.sums) - before
	for len(k.used) > maxContexts || k.stamps > maxStamps && len(k.used) > 0 {
		k.stamps -= len(k.used[0].sums)
		k.used = k.used[1:]
	}
}

// stamps collects the stamps of the regular files.
func (n *node) stamps(list map[stamp][sha256.Size]byte) {
	if n.children == nil {
		if n.stat.Linkname == "" {
			list[stamp{n.stat.Path, n.stat.Size, n.stat.ModTime}] = n.sum
		}
		return
	}
	for _, c := range n.children {
		c.stamps(list)
	}
}
