package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"gantry/internal/logs"
	"gantry/internal/logs/driver"
	"gantry/internal/logs/files"
)

const (
	// batchEntries and batchBytes bound what is sent at once.
	batchEntries = 1000
	batchBytes   = 256 << 10
	// queued bounds the entries that are read ahead.
	queued = 64
	// saveEvery is how often the cursor is written at most.
	saveEvery = 100 * time.Millisecond
	// Pauses between attempts to send.
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	// complainEvery is how often a remote that takes nothing is logged.
	complainEvery = time.Minute
)

// A parcel is a message and the place behind it.
type parcel struct {
	driver.Message
	at logs.Place
}

// run sends until everything is sent and the container has ended, or ctx ends.
func (b *ship) run(ctx context.Context) {
	b.begin()
	defer func() {
		b.mu.Lock()
		b.over = true
		b.mu.Unlock()
	}()
	pause, complained := firstPause, time.Time{}
	for {
		ended := b.current()
		before := b.sent()
		t, err := b.stream(ctx, ended)
		if err == nil && ctx.Err() == nil {
			if err = b.to.Finish(ctx); err == nil {
				t.finish()
			}
			if err == nil && b.finished(ended) {
				return
			}
		}
		if ctx.Err() != nil {
			_ = b.to.Finish(ctx) // what is not known to have arrived is sent again
			return
		}
		if err == nil {
			continue
		}
		if b.sent() != before {
			pause = firstPause
		}
		if time.Since(complained) > complainEvery {
			b.log.Warn("a container's log can't be sent", "error", err)
			complained = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// begin reads the cursor. If the log has lost its end in a crash of the host,
// places and numbers are given a second time, and the cursor means nothing.
func (b *ship) begin() {
	safe := files.ReadCursor(b.cursor)
	if end, ok := b.reader.End(); ok && safe.Offset > end {
		safe = logs.Place{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.safe = safe
}

// stream sends from the cursor on. It returns nil when all is sent up to the
// container's end.
func (b *ship) stream(ctx context.Context, ended <-chan struct{}) (*track, error) {
	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan parcel, queued)
	read := make(chan error, 1)
	go func() {
		defer close(ch)
		read <- b.read(ctx, ended, ch)
	}()
	t := &track{b: b, at: b.sent()}
	err := b.forward(ctx, ch, t)
	cancel()
	for range ch {
	}
	return t, errors.Join(err, <-read)
}

// read gives the log's entries to ch, from the cursor on.
func (b *ship) read(ctx context.Context, ended <-chan struct{}, ch chan<- parcel) error {
	from := b.sent()
	next := from.Number
	var dropped uint64
	var parts parts
	late := lateness{b: b}
	o := logs.ReadOptions{Tail: -1, From: from, Follow: true, Ended: ended}
	for e, err := range b.reader.Entries(ctx, o) {
		if err != nil {
			return err
		}
		if e.At.Number <= from.Number {
			continue // the cursor's place was not found
		}
		if n := e.At.Number - 1; n > next {
			dropped += n - next
		}
		next = e.At.Number
		if late.tooOld(e.At) {
			dropped++
			continue
		}
		if dropped > 0 {
			b.log.Warn("entries of a container's log were dropped before they could be sent", "entries", dropped)
			b.dropped(dropped)
			dropped = 0
		}
		p := parcel{at: e.At}
		p.Stream, p.Time, p.Partial = e.Stream, e.Time, parts.next(&e)
		p.Line = bytes.Clone(bytes.TrimSuffix(e.Line, []byte{'\n'}))
		select {
		case ch <- p:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// lateness finds what is too old to be sent, where the user bounds how much may
// wait.
type lateness struct {
	b      *ship
	looked time.Time
	before int64
}

func (l *lateness) tooOld(at logs.Place) bool {
	if l.b.maxBehind <= 0 {
		return false
	}
	if time.Since(l.looked) > 10*time.Millisecond {
		l.looked = time.Now()
		if end, ok := l.b.reader.End(); ok {
			l.before = end - l.b.maxBehind
		}
	}
	return at.Offset <= l.before
}

// forward sends what comes, as many entries at once as there are.
func (b *ship) forward(ctx context.Context, ch <-chan parcel, t *track) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		t.settle(b.to.Doubt())
		var wake <-chan time.Time
		if d, ok := t.due(b.to.Doubt()); ok {
			timer.Reset(d)
			wake = timer.C
		}
		select {
		case p, ok := <-ch:
			if !ok {
				return nil
			}
			batch, last := fill(p, ch)
			if err := b.to.Send(ctx, batch); err != nil {
				t.settle(b.to.Doubt())
				t.save()
				return err
			}
			t.sent(last)
		case <-wake:
		}
	}
}

// fill adds to a first message what is there besides.
func fill(first parcel, ch <-chan parcel) ([]driver.Message, logs.Place) {
	batch, last, size := []driver.Message{first.Message}, first.at, len(first.Line)
	for len(batch) < batchEntries && size < batchBytes {
		select {
		case p, ok := <-ch:
			if !ok {
				return batch, last
			}
			batch, last = append(batch, p.Message), p.at
			size += len(p.Line)
		default:
			return batch, last
		}
	}
	return batch, last
}

// A track knows what was sent when, and moves the cursor when that is beyond doubt.
type track struct {
	b     *ship
	at    logs.Place // sent as far as anybody knows
	marks []mark     // oldest first
	saved time.Time
	dirty bool
}

type mark struct {
	at   logs.Place
	when time.Time
}

// spacing keeps marks few.
const spacing = 20 * time.Millisecond

func (t *track) sent(at logs.Place) {
	t.at = at
	now := time.Now()
	if n := len(t.marks); n > 1 && now.Sub(t.marks[n-2].when) < spacing {
		t.marks[n-1] = mark{at, now}
		return
	}
	t.marks = append(t.marks, mark{at, now})
}

// settle moves the cursor over what was sent longer than doubt ago.
func (t *track) settle(doubt time.Duration) {
	n := 0
	for n < len(t.marks) && time.Since(t.marks[n].when) >= doubt {
		n++
	}
	if n > 0 {
		t.move(t.marks[n-1].at)
		t.marks = append(t.marks[:0], t.marks[n:]...)
	}
	if t.dirty && time.Since(t.saved) >= saveEvery {
		t.save()
	}
}

// due returns when settle has something to do.
func (t *track) due(doubt time.Duration) (time.Duration, bool) {
	switch {
	case t.dirty:
		return max(saveEvery-time.Since(t.saved), 0), true
	case len(t.marks) > 0:
		return max(doubt-time.Since(t.marks[0].when), time.Millisecond), true
	}
	return 0, false
}

func (t *track) move(to logs.Place) {
	t.b.mu.Lock()
	t.b.safe = to
	t.b.mu.Unlock()
	t.dirty = true
}

func (t *track) save() {
	if !t.dirty {
		return
	}
	t.dirty, t.saved = false, time.Now()
	if err := files.WriteCursor(t.b.cursor, t.b.sent()); err != nil {
		t.b.log.Warn("can't note how far a container's log was sent", "error", err)
	}
}

// finish moves the cursor to the end of what was sent.
func (t *track) finish() {
	t.move(t.at)
	t.save()
}

// parts numbers the parts of long lines.
type parts struct {
	open map[string]*driver.Partial // by stream: the last part
}

func (p *parts) next(e *logs.Entry) *driver.Partial {
	last := p.open[e.Stream]
	if last == nil && !e.Partial {
		return nil
	}
	if p.open == nil {
		p.open = map[string]*driver.Partial{}
	}
	part := &driver.Partial{ID: fmt.Sprintf("%016x", e.At.Number), Ordinal: 1, Last: !e.Partial}
	if last != nil {
		part.ID, part.Ordinal = last.ID, last.Ordinal+1
	}
	p.open[e.Stream] = part
	if part.Last {
		delete(p.open, e.Stream)
	}
	return part
}
