package network

import "sync"

// raised remembers which networks are in the kernel, by their IDs.
type raised struct {
	mu    sync.Mutex
	up    map[string]bool // changed under stage.raising too
	ended bool            // nothing is raised any more
}

func (r *raised) has(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up[id]
}

func (r *raised) any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.up) > 0
}

func (r *raised) add(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.up == nil {
		r.up = map[string]bool{}
	}
	r.up[id] = true
}

func (r *raised) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.up, id)
}

// end makes hasEnded true from now on: what came up after the last lowering would
// stay on the host.
func (r *raised) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

func (r *raised) hasEnded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}
