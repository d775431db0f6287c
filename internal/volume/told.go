package volume

import "sync"

// told remembers which mounts events were published of, so that a container
// that is taken down twice, as a clean-up may do, is told of once. What was
// mounted before this process began is taken for mounted until told otherwise.
type told struct {
	mu   sync.Mutex
	down map[[2]string]bool // container and volume: unmounted, and told so
}

func (t *told) mount(container, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.down, [2]string{container, name})
}

// unmount reports whether it is news.
func (t *told) unmount(container, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := [2]string{container, name}
	if t.down[key] {
		return false
	}
	if t.down == nil {
		t.down = map[[2]string]bool{}
	}
	t.down[key] = true
	return true
}

// forget drops what is remembered of a container.
func (t *told) forget(container string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.down {
		if key[0] == container {
			delete(t.down, key)
		}
	}
}
