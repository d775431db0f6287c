// Package event carries facts to whoever listens: one bounded bus with a
// history, fed by the engine and read by the events endpoint, the health
// checks and the clean-up.
//
// A publisher never waits: a listener that does not keep up is cut off and
// told so by its closed channel; it can go on where it was, as long as the
// history reaches back that far. It writes one file, the journal, in which the
// history outlives the process. It knows nothing of filters and HTTP.
package event

import (
	"sync"
	"time"

	"gantry/internal/wire"
)

// History is how many past events a bus remembers.
const History = 1024

// backlog is how many events a listener may be behind before it is cut off.
const backlog = 1024

// A Bus distributes events. Make one with New.
type Bus struct {
	mu     sync.Mutex
	past   []wire.Event // oldest first, at most History
	lost   int64        // TimeNano of the newest that is not remembered any more
	last   int64        // TimeNano of the newest
	subs   map[*Subscription]struct{}
	closed bool
	now    func() time.Time

	journal *journal // nil: nothing is written
}

// New returns an empty bus.
func New() *Bus {
	return &Bus{subs: map[*Subscription]struct{}{}, now: time.Now}
}

// Publish stamps e with the present time, if it has none, and hands it to every
// listener. No two events have the same TimeNano.
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
	if e.TimeNano <= b.last {
		e.TimeNano = b.last + 1
		e.Time = time.Unix(0, e.TimeNano).Unix()
	}
	b.last = e.TimeNano
	if e.Scope == "" {
		e.Scope = "local"
	}
	b.remember(e)
	if b.journal != nil {
		b.journal.add(e)
	}
	for s := range b.subs {
		select {
		case s.ch <- e:
		default:
			s.behind = true
			b.drop(s)
		}
	}
}

// remember adds e to the history. The lock is held.
func (b *Bus) remember(e wire.Event) {
	if len(b.past) >= History {
		b.lost = b.past[0].TimeNano
		b.past = append(b.past[:0], b.past[1:]...)
	}
	b.past = append(b.past, e)
}

// A Subscription is one listener's view of a bus.
type Subscription struct {
	// C gives the events in order. It is closed when the bus closes, when
	// the subscription closes, and when its reader has fallen too far behind.
	C <-chan wire.Event

	ch     chan wire.Event
	bus    *Bus
	behind bool // it was cut off
}

// Subscribe returns the remembered events that are not older than since (none
// if since is zero) and a subscription that continues where they end, without
// a gap.
func (b *Bus) Subscribe(since time.Time) (past []wire.Event, s *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !since.IsZero() {
		past = b.from(since.UnixNano())
	}
	return past, b.subscribe()
}

// Resume is Subscribe for a listener that was cut off: past begins after the
// event of that TimeNano. It returns false if events between are forgotten.
func (b *Bus) Resume(after int64) (past []wire.Event, s *Subscription, whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.from(after + 1), b.subscribe(), b.lost <= after
}

// from returns the remembered events from a moment on. The lock is held.
func (b *Bus) from(nano int64) (past []wire.Event) {
	for _, e := range b.past {
		if e.TimeNano >= nano {
			past = append(past, e)
		}
	}
	return past
}

// subscribe adds a listener. The lock is held.
func (b *Bus) subscribe() *Subscription {
	ch := make(chan wire.Event, backlog)
	s := &Subscription{C: ch, ch: ch, bus: b}
	if b.closed {
		close(ch)
		return s
	}
	b.subs[s] = struct{}{}
	return s
}

// Behind reports whether the subscription was cut off because its reader fell
// too far behind. What C still gives is without a gap.
func (s *Subscription) Behind() bool {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	return s.behind
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

// Close ends every subscription and writes the journal; later events are
// dropped. It may be called twice.
func (b *Bus) Close() {
	b.mu.Lock()
	b.closed = true
	for s := range b.subs {
		b.drop(s)
	}
	j := b.journal
	b.journal = nil
	b.mu.Unlock()
	if j != nil {
		j.close()
	}
}
