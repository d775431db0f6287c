package remote

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/id"
	apiwire "gantry/internal/wire"
)

// tick is how often progress is told.
const tick = 100 * time.Millisecond

// A teller tells a client what goes on. Its messages come from several
// goroutines, one at a time, and none after close.
type teller struct {
	mu     sync.Mutex
	tell   func(apiwire.Progress)
	last   map[string]apiwire.Progress // by id, so that nothing is said twice
	closed bool
}

func newTeller(tell func(apiwire.Progress)) *teller {
	return &teller{tell: tell, last: map[string]apiwire.Progress{}}
}

// say tells a status; of the object id if that is not empty.
func (t *teller) say(id, status string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.tell(apiwire.Progress{ID: id, Status: status})
	}
}

// step tells what is being done with an object, and how far it is.
func (t *teller) step(id, status string, p apiwire.ProgressDetail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.last[id]; t.closed || old.Status == status && old.Progress != nil && *old.Progress == p {
		return
	}
	m := apiwire.Progress{ID: id, Status: status, Progress: &p}
	t.last[id] = m
	t.tell(m)
}

// aux tells a value for programs.
func (t *teller) aux(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		return
	}
	raw := json.RawMessage(data)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.tell(apiwire.Progress{Aux: &raw})
	}
}

// close ends the telling.
func (t *teller) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

func short(d digest.Digest) string { return id.Short(d.Encoded()) }

// every calls fn each tick until the returned function is called, which waits
// for it.
func every(ctx context.Context, d time.Duration, fn func()) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(d)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				fn()
			case <-end:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(end); <-done })
}
