// Package event carries facts to whoever listens: one bounded bus with a
// history, fed by the engine and read by the events endpoint, the health
// checks and the clean-up.
//
// A publisher never waits: a listener that does not keep up is cut off and
// told so by its closed channel. It knows nothing of filters and HTTP.
package event

import (
	"sync"
	"time"

	"gantry/internal/wire"
)

// History is how many past events a bus remembers, as Docker's daemon does.
const History = 256

// backlog is how many events a listener may be behind before it is cut off.
const backlog = 1024

// A Bus distributes events. Make one with New.
type Bus struct {
	mu     sync.Mutex
	past   []wire.Event // oldest first, at most History
	subs   map[*Subscription]struct{}
	closed bool
	now    func() time.Time
}

// New returns an empty bus.
func New() *Bus {
	return &Bus{subs: map[*Subscription]struct{}{}, now: time.Now}
}

// Publish stamps e with the present time, if it has none, and hands it to every
// listener.
func (b *Bus) Publish(e wire.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if e.TimeNano == 0 {
		now := b.now()
		e.Time, e.TimeNano = now.Unix(), now.UnixNano()
	}
	if e.Scope == "" {
		e.Scope = "local"
	}
	if len(b.past) == History {
		b.past = append(b.past[:0], b.past[1:]...)
	}
	b.past = append(b.past, e)
	for s := range b.subs {
		select {
		case s.ch <- e:
		default:
			b.drop(s)
		}
	}
}

// A Subscription is one listener's view of a bus.
type Subscription struct {
	// C gives the events in order. It is closed when the bus closes, when
	// the subscription closes, and when its reader has fallen too far behind.
	C <-chan wire.Event

	ch  chan wire.Event
	bus *Bus
}

// Subscribe returns the remembered events that are not older than since (none
// if since is zero) and a subscription that continues where they end, without
// a gap.
func (b *Bus) Subscribe(since time.Time) (past []wire.Event, s *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !since.IsZero() {
		for _, e := range b.past {
			if e.TimeNano >= since.UnixNano() {
				past = append(past, e)
			}
		}
	}
	ch := make(chan wire.Event, backlog)
	s = &Subscription{C: ch, ch: ch, bus: b}
	if b.closed {
		close(ch)
		return past, s
	}
	b.subs[s] = struct{}{}
	return past, s
}

// Close ends the subscription. It may be called twice.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	s.bus.drop(s)
}

// drop removes s and closes its channel, once. The lock is held.
func (b *Bus) drop(s *Subscription) {
	if _, ok := b.subs[s]; ok {
		delete(b.subs, s)
		close(s.ch)
	}
}

// Listeners returns how many subscriptions are open.
func (b *Bus) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}

// Close ends every subscription; later events are dropped.
func (b *Bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		b.drop(s)
	}
}
