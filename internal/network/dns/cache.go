package dns

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// cache keeps others' answers for as long as they say, in a bounded space: the
// one that was asked for least lately goes first. Equal questions that are under
// way are asked once.
type cache struct {
	room int // bytes

	mu      sync.Mutex
	used    int
	byKey   map[string]*list.Element // of kept
	recent  *list.List
	flights map[string]*flight
}

type kept struct {
	key string
	r   response
	at  time.Time
}

// overhead is what keeping an answer costs besides its bytes, about.
const overhead = 300

func (k *kept) size() int { return len(k.key) + len(k.r.raw) + 2*len(k.r.ttls) + overhead }

// flight is a question under way.
type flight struct {
	done chan struct{}
	r    response
	ok   bool
	// given up: whoever asked has gone. It says nothing of the answer.
	given bool
}

func newCache(room int) *cache {
	return &cache{room: room, byKey: map[string]*list.Element{}, recent: list.New(), flights: map[string]*flight{}}
}

// get returns the answer to a question and how many seconds old it is.
func (c *cache) get(key string, now time.Time) (r response, age uint32, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		return r, 0, false
	}
	k := e.Value.(*kept)
	age = uint32(now.Sub(k.at) / time.Second)
	if now.Before(k.at) || age >= k.r.ttl {
		c.drop(e)
		return r, 0, false
	}
	c.recent.MoveToFront(e)
	return k.r, age, true
}

func (c *cache) put(key string, r response, now time.Time) {
	k := &kept{key, r, now}
	if r.ttl == 0 || k.size() > c.room/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[key]; e != nil {
		c.drop(e)
	}
	c.byKey[key] = c.recent.PushFront(k)
	for c.used += k.size(); c.used > c.room; {
		c.drop(c.recent.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	k := e.Value.(*kept)
	c.used -= k.size()
	delete(c.byKey, k.key)
	c.recent.Remove(e)
}

// once has ask answer a question, unless someone asks it just now: then it waits
// for that answer.
func (c *cache) once(ctx context.Context, key string, ask func() (response, bool)) (response, bool) {
	for {
		c.mu.Lock()
		f := c.flights[key]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			c.flights[key] = f
			c.mu.Unlock()
			c.fly(ctx, key, f, ask)
			return f.r, f.ok
		}
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return response{}, false
		}
		if !f.given {
			return f.r, f.ok
		}
	}
}

func (c *cache) fly(ctx context.Context, key string, f *flight, ask func() (response, bool)) {
	defer func() {
		c.mu.Lock()
		delete(c.flights, key)
		c.mu.Unlock()
		close(f.done)
	}()
	f.r, f.ok = ask()
	f.given = !f.ok && ctx.Err() != nil
	if f.ok {
		c.put(key, f.r, time.Now())
	}
}
