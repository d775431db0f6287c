package remote

import (
	"context"
	"sync"
)

// A limiter bounds how many connections fetch blobs, and lets the bound change.
// The zero value allows none.
type limiter struct {
	mu      sync.Mutex
	limit   int
	used    int
	waiting []chan struct{}
}

// resize sets the bound. Those above it go on.
func (l *limiter) resize(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = n
	l.wake()
}

// wake lets waiters in, in their order.
func (l *limiter) wake() {
	for l.used < l.limit && len(l.waiting) > 0 {
		l.used++
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
	}
}

// acquire waits for a place.
func (l *limiter) acquire(ctx context.Context) error {
	l.mu.Lock()
	if l.used < l.limit && len(l.waiting) == 0 {
		l.used++
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	l.waiting = append(l.waiting, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, w := range l.waiting {
			if w == turn {
				l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
				return context.Cause(ctx)
			}
		}
		l.used-- // it was let in meanwhile
		l.wake()
		return context.Cause(ctx)
	}
}

// spare takes up to n places that nobody waits for, and returns how many.
func (l *limiter) spare(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		return 0
	}
	n = max(min(n, l.limit-l.used), 0)
	l.used += n
	return n
}

// release gives n places back.
func (l *limiter) release(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used -= n
	l.wake()
}
