package lazy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// traffic is what is on its way for all blobs of an image. Reads of containers go at
// once; the background has the connections that are left.
type traffic struct {
	limit int // of connections, if containers do not want more
	bytes atomic.Int64

	mu      sync.Mutex
	change  sync.Cond
	wanted  int // reads of containers that wait
	filling int
	near    *blob // was read from last
	nearAt  int64 // from where on it will be
}

func newTraffic(connections int) *traffic {
	t := &traffic{limit: max(connections, 1)}
	t.change.L = &t.mu
	return t
}

// want tells of a read that waits, until served.
func (t *traffic) want() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wanted++
}

func (t *traffic) served() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wanted--
	t.change.Broadcast()
}

// follow tells that a container has read up to off: what is behind it is fetched
// before anything else.
func (t *traffic) follow(b *blob, off int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.near, t.nearAt = b, off
}

// turn waits for a connection for the background, until done.
func (t *traffic) turn(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.change.Broadcast()
	})()
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.wanted+t.filling >= t.limit && ctx.Err() == nil {
		t.change.Wait()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t.filling++
	return nil
}

func (t *traffic) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.filling--
	t.change.Broadcast()
}

// ahead is how far before a container the background runs, in bytes.
const ahead = 8 * fillRun

// A filler fetches all of an image's blobs.
type filler struct {
	way    *traffic
	blobs  []*blob
	urgent []int64 // bytes of each blob that its maker says are needed first
}

// next claims what the background fetches next: what containers will read soon, what
// layers' makers say they will, then all, lowest layer first. nil: nothing is missing.
func (f *filler) next() (b *blob, first, end int) {
	f.way.mu.Lock()
	near, at := f.way.near, f.way.nearAt
	f.way.mu.Unlock()
	if near != nil {
		if first, end = near.take(at, ahead); first < end {
			return near, first, end
		}
	}
	for i, b := range f.blobs {
		if first, end = b.take(0, f.urgent[i]); first < end {
			return b, first, end
		}
	}
	for _, b := range f.blobs {
		if first, end = b.take(0, b.layer.Size); first < end {
			return b, first, end
		}
	}
	return nil, 0, 0
}

// run fetches all that is missing, over as many connections as there are.
func (f *filler) run(ctx context.Context) error {
	for !f.complete() { // somebody else's part may have failed, or been wrong
		all := make([]error, f.way.limit)
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() { all[i] = f.work(ctx) })
		}
		wg.Wait()
		if err := errors.Join(all...); err != nil {
			return err
		}
		for _, b := range f.blobs {
			if err := b.settle(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *filler) complete() bool {
	for _, b := range f.blobs {
		if !b.complete() {
			return false
		}
	}
	return true
}

// work fetches one part after the other.
func (f *filler) work(ctx context.Context) error {
	for {
		if err := f.way.turn(ctx); err != nil {
			return err
		}
		b, first, end := f.next()
		if b == nil {
			f.way.done()
			return nil
		}
		err := b.fetch(first, end)
		f.way.done()
		if err != nil {
			return err
		}
	}
}
