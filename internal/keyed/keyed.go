// Package keyed serialises work by key: one mutex, or one flight, for each
// name. It owns the map from key to waiters; it knows nothing of what the keys
// name.
package keyed

import (
	"context"
	"sync"
)

// Mutex is a set of mutexes, one a key, that exist only while they are held or
// waited for. The zero value is ready.
type Mutex[K comparable] struct {
	mu sync.Mutex
	m  map[K]*slot
}

type slot struct {
	held chan struct{} // holds one token while the key is locked
	refs int
}

// Lock locks key and returns the function that unlocks it, or ctx's error if
// ctx ends first.
func (m *Mutex[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	m.mu.Lock()
	s := m.m[key]
	if s == nil {
		if m.m == nil {
			m.m = map[K]*slot{}
		}
		s = &slot{held: make(chan struct{}, 1)}
		m.m[key] = s
	}
	s.refs++
	m.mu.Unlock()

	select {
	case s.held <- struct{}{}:
		return sync.OnceFunc(func() { <-s.held; m.release(key, s) }), nil
	case <-ctx.Done():
		m.release(key, s)
		return nil, context.Cause(ctx)
	}
}

func (m *Mutex[K]) release(key K, s *slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.refs--; s.refs == 0 {
		delete(m.m, key)
	}
}

// Flight runs a function at most once at a time for each key; callers that come
// while it runs share its result. The zero value is ready.
type Flight[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]*flight[V]
}

type flight[V any] struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	val     V
	err     error
}

// Do returns what fn returns for key. fn's context ends when every caller that
// waits for this flight has given up, not when the first one has.
func (f *Flight[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error)) (V, error) {
	f.mu.Lock()
	c := f.m[key]
	if c == nil {
		if f.m == nil {
			f.m = map[K]*flight[V]{}
		}
		run, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c = &flight[V]{done: make(chan struct{}), cancel: cancel}
		f.m[key] = c
		go func() {
			c.val, c.err = fn(run)
			f.mu.Lock()
			if f.m[key] == c {
				delete(f.m, key)
			}
			f.mu.Unlock()
			cancel()
			close(c.done)
		}()
	}
	c.waiters++
	f.mu.Unlock()

	select {
	case <-c.done:
		return c.val, c.err
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		if c.waiters--; c.waiters == 0 {
			c.cancel()
			if f.m[key] == c {
				delete(f.m, key)
			}
		}
		var zero V
		return zero, context.Cause(ctx)
	}
}
