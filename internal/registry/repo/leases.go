package repo

import (
	"context"
	"sync"
	"time"
)

// leases remember when a thing was last relied upon, so that the collector does
// not take it from under a push.
//
// A push holds the lease of a blob from before it looks whether the blob is there
// until what refers to the blob is written. The collector dooms a blob before it
// deletes it, which fails if its lease is held, or was at the collection's
// beginning less the grace or later; whoever wants the lease of a doomed blob
// waits, and then finds it gone. So a push has either written its reference before
// the collector read what is referred to, or the blob stays.
type leases struct {
	mu     sync.Mutex
	at     map[string]time.Time
	held   map[string]int // by how many
	doomed map[string]chan struct{}
}

func newLeases() *leases {
	return &leases{at: map[string]time.Time{}, held: map[string]int{}, doomed: map[string]chan struct{}{}}
}

// hold keeps the collector from keys until release is called, and notes that they
// are relied upon from then.
func (l *leases) hold(ctx context.Context, keys ...string) (release func(), err error) {
	var held []string
	release = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, key := range held {
			l.at[key] = time.Now()
			if l.held[key]--; l.held[key] == 0 {
				delete(l.held, key)
			}
		}
	}
	for _, key := range keys {
		for {
			l.mu.Lock()
			wait := l.doomed[key]
			if wait == nil {
				l.held[key]++
				held = append(held, key)
				l.mu.Unlock()
				break
			}
			l.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
				release()
				return nil, ctx.Err()
			}
		}
	}
	return release, nil
}

// take notes that keys are relied upon from now.
func (l *leases) take(ctx context.Context, keys ...string) error {
	release, err := l.hold(ctx, keys...)
	if err == nil {
		release()
	}
	return err
}

// doom keeps everybody from relying on key until done is called. False if
// somebody has done so at since or later.
func (l *leases) doom(key string, since time.Time) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, held := l.at[key]; held && !at.Before(since) || l.held[key] > 0 || l.doomed[key] != nil {
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
