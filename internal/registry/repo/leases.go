package repo

import (
	"context"
	"sync"
	"time"
)

// leases remember when a thing was last relied upon, so that the collector does
// not take it from under a push.
//
// A push takes the lease of a blob before it looks whether the blob is there.
// The collector dooms a blob before it deletes it, which fails if there is a
// lease since its beginning less the grace; whoever takes the lease of a doomed
// blob waits, and then finds it gone. So of everything that the collector
// deletes it is true that no push has relied on it since before the collector
// read what is referred to.
type leases struct {
	mu     sync.Mutex
	at     map[string]time.Time
	doomed map[string]chan struct{}
}

func newLeases() *leases {
	return &leases{at: map[string]time.Time{}, doomed: map[string]chan struct{}{}}
}

// take notes that keys are relied upon from now.
func (l *leases) take(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		for {
			l.mu.Lock()
			wait := l.doomed[key]
			if wait == nil {
				l.at[key] = time.Now()
				l.mu.Unlock()
				break
			}
			l.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// doom keeps everybody from relying on key until done is called. False if
// somebody has done so at since or later.
func (l *leases) doom(key string, since time.Time) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, held := l.at[key]; held && !at.Before(since) || l.doomed[key] != nil {
		return nil, false
	}
	c := make(chan struct{})
	l.doomed[key] = c
	return func() {
		l.mu.Lock()
		delete(l.doomed, key)
		l.mu.Unlock()
		close(c)
	}, true
}

// expire forgets leases older than since.
func (l *leases) expire(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, at := range l.at {
		if at.Before(since) {
			delete(l.at, k)
		}
	}
}
