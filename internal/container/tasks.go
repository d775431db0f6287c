package container

import "sync"

// tasks counts the engine's goroutines. Unlike a sync.WaitGroup it may be given
// work at any time: what comes after all have ended and the engine has closed
// is dropped.
type tasks struct {
	mu     sync.Mutex
	idle   sync.Cond
	n      int
	closed bool
}

func newTasks() *tasks {
	t := &tasks{}
	t.idle.L = &t.mu
	return t
}

// Go runs fn in a goroutine that Close waits for.
func (t *tasks) Go(fn func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed && t.n == 0 {
		return
	}
	t.n++
	go func() {
		defer t.done()
		fn()
	}()
}

func (t *tasks) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 {
		t.idle.Broadcast()
	}
}

// Close waits until every goroutine has ended. Those that run may still start
// others.
func (t *tasks) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for t.n > 0 {
		t.idle.Wait()
	}
}
