package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gantry/internal/logs"
	"gantry/internal/logs/driver"
	"gantry/internal/logs/files"
	"gantry/internal/logs/local"
)

// A remote takes messages, unless it is down, and may forget the last ones when
// it goes down, as a server does that has not read what its kernel has.
type remote struct {
	doubt time.Duration
	delay time.Duration

	mu       sync.Mutex
	down     bool
	lines    []string
	partials []driver.Partial
	sends    int
	unread   []string
}

func (r *remote) Send(_ context.Context, batch []driver.Message) error {
	time.Sleep(r.delay)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sends++
	if r.down {
		return errors.New("down")
	}
	if r.doubt > 0 {
		r.lines = append(r.lines, r.unread...)
		r.unread = nil
	}
	for _, m := range batch {
		line := string(m.Line)
		if m.Partial != nil {
			r.partials = append(r.partials, *m.Partial)
		}
		if r.doubt > 0 {
			r.unread = append(r.unread, line)
			continue
		}
		r.lines = append(r.lines, line)
	}
	return nil
}

func (r *remote) Doubt() time.Duration { return r.doubt }

func (r *remote) Finish(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return errors.New("reset")
	}
	r.lines = append(r.lines, r.unread...)
	r.unread = nil
	return nil
}

func (r *remote) set(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
	if down {
		r.unread = nil
	}
}

func (r *remote) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// rig is one log and what sends it.
type rig struct {
	t     *testing.T
	path  string
	w     *files.Writer
	ships *Ships
	to    *remote
	n     int
	// dropped counts what the engine was told of.
	dropped atomic.Uint64
}

func newRig(t *testing.T, to *remote, o files.Options) *rig {
	r := &rig{t: t, path: filepath.Join(t.TempDir(), "log"), to: to}
	r.open(o)
	r.daemon()
	return r
}

func (r *rig) open(o files.Options) {
	r.t.Helper()
	w, err := local.Create(r.path, o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.w = w
	r.t.Cleanup(func() { w.Close() })
}

// daemon begins with a new one.
func (r *rig) daemon() {
	r.ships = New(context.Background(), slog.New(slog.DiscardHandler))
	r.t.Cleanup(r.ships.Close)
}

func (r *rig) ship(max int64) *ship {
	return &ship{to: r.to, maxBehind: max, dropped: func(n uint64) { r.dropped.Add(n) }}
}

func (r *rig) begin(max int64) {
	r.ships.start("c", r.path, make(chan struct{}), r.ship(max))
}

func (r *rig) write(n int) {
	r.t.Helper()
	for range n {
		if err := r.w.Write(files.Stdout, fmt.Appendf(nil, "line %d\n", r.n), time.Now()); err != nil {
			r.t.Fatal(err)
		}
		r.n++
	}
}

func (r *rig) wait(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%s: %d lines of %d", what, len(r.to.got()), r.n)
		}
	}
}

// complete reports whether every line has arrived, and the first arrivals of
// them are in order.
func (r *rig) complete() bool {
	next := 0
	for _, l := range r.to.got() {
		if l == fmt.Sprintf("line %d", next) {
			next++
		}
	}
	return next == r.n
}

func (r *rig) exactly() {
	r.t.Helper()
	if got := r.to.got(); len(got) != r.n || !r.complete() {
		r.t.Errorf("%d lines arrived of %d, complete %v", len(got), r.n, r.complete())
	}
}

func TestEverythingArrivesOnce(t *testing.T) {
	r := newRig(t, &remote{}, files.Options{MaxSize: 4000, MaxFile: 50, Compress: true})
	r.write(300)
	r.begin(0)
	for range 10 {
		r.write(100)
		time.Sleep(2 * time.Millisecond)
	}
	r.w.Close()
	r.ships.Ended("c")
	r.wait("all", func() bool { r.ships.mu.Lock(); defer r.ships.mu.Unlock(); return len(r.ships.all) == 0 })
	r.exactly()
	if end, _ := local.NewReader(r.path).End(); files.ReadCursor(files.Cursor(r.path)) != (logs.Place{Offset: end, Number: uint64(r.n)}) {
		t.Errorf("cursor %+v, end %d", files.ReadCursor(files.Cursor(r.path)), end)
	}
}

func TestOutageLosesNothing(t *testing.T) {
	r := newRig(t, &remote{}, files.Options{})
	r.begin(0)
	r.write(100)
	r.wait("before", r.complete)
	r.to.set(true)
	r.write(100)
	time.Sleep(150 * time.Millisecond)
	r.to.set(false)
	r.write(100)
	r.wait("after", r.complete)
	r.exactly()
}

// What a remote without answers may not have read is sent again.
func TestDoubtIsResolved(t *testing.T) {
	r := newRig(t, &remote{doubt: 200 * time.Millisecond}, files.Options{})
	r.begin(0)
	for range 10 {
		r.write(20)
		time.Sleep(5 * time.Millisecond)
	}
	r.to.set(true) // and what it has not read is gone
	r.write(1)
	time.Sleep(50 * time.Millisecond)
	r.to.set(false)
	r.write(50)
	r.w.Close()
	r.ships.Ended("c")
	r.wait("all", r.complete)
	if n := len(r.to.got()); n > 3*r.n {
		t.Errorf("%d arrivals of %d lines", n, r.n)
	}
}

func TestDaemonGoesOnAtTheCursor(t *testing.T) {
	r := newRig(t, &remote{}, files.Options{})
	r.begin(0)
	r.write(100)
	r.wait("first", r.complete)
	time.Sleep(2 * saveEvery)
	r.ships.stop() // as if it died: nothing is finished
	r.write(100)
	r.daemon()
	r.begin(0)
	r.wait("second", r.complete)
	r.exactly()
	r.w.Close()
	r.ships.Ended("c")
	r.wait("end", func() bool { r.ships.mu.Lock(); defer r.ships.mu.Unlock(); return len(r.ships.all) == 0 })
	// A container that is down with something left, and then begins again.
	r.open(files.Options{})
	r.write(10)
	r.w.Close()
	r.daemon()
	ended := make(chan struct{})
	close(ended)
	r.ships.start("c", r.path, ended, r.ship(0))
	r.begin(0)
	r.open(files.Options{})
	r.write(10)
	r.wait("third", r.complete)
	r.exactly()
}

func TestForgetIsBounded(t *testing.T) {
	r := newRig(t, &remote{down: true}, files.Options{})
	r.begin(0)
	r.write(10)
	r.w.Close()
	began := time.Now()
	r.ships.Forget(t.Context(), "c")
	if d := time.Since(began); d < drainProgress || d > drainProgress+2*time.Second {
		t.Errorf("gave up after %v", d)
	}
	r.ships.Forget(t.Context(), "c") // there is none
	q := newRig(t, &remote{delay: 20 * time.Millisecond}, files.Options{})
	q.begin(0)
	q.write(5000)
	q.w.Close()
	q.ships.Forget(t.Context(), "c")
	q.exactly()
}

// A slow remote in both modes: with a bound the oldest are dropped and counted,
// without one the record is held.
func TestSlowRemote(t *testing.T) {
	var log strings.Builder
	r := newRig(t, &remote{delay: 5 * time.Millisecond}, files.Options{})
	r.ships.log = slog.New(slog.NewTextHandler(&log, nil))
	r.to.set(true)
	r.begin(2000)
	r.write(5000)
	r.to.set(false)
	r.wait("newest", func() bool { g := r.to.got(); return len(g) > 0 && g[len(g)-1] == "line 4999" })
	if n := len(r.to.got()); n > 1500 {
		t.Errorf("%d lines arrived", n)
	}
	r.ships.Close()
	if !strings.Contains(log.String(), "dropped before they could be sent") {
		t.Error(log.String())
	}
	if n := int(r.dropped.Load()); n == 0 || n+len(r.to.got()) < 5000 {
		t.Errorf("%d entries were dropped, %d arrived", n, len(r.to.got()))
	}
	held := 0
	cursor := ""
	q := newRig(t, &remote{delay: time.Millisecond}, files.Options{MaxSize: 20000, MaxFile: 2, Hold: func(base int64) bool {
		for files.ReadCursor(cursor).Offset < base {
			held++
			time.Sleep(5 * time.Millisecond)
		}
		return true
	}})
	cursor = files.Cursor(q.path)
	q.begin(0)
	q.write(5000)
	q.wait("all", q.complete)
	q.exactly()
	if held == 0 {
		t.Error("the writer was never held up")
	}
}

func TestPartsOfLines(t *testing.T) {
	r := newRig(t, &remote{}, files.Options{})
	r.begin(0)
	if err := r.w.Write(files.Stdout, []byte(strings.Repeat("x", 2*logs.MaxLine+5)+"\nwhole\n"), time.Now()); err != nil {
		t.Fatal(err)
	}
	r.wait("parts", func() bool { return len(r.to.got()) == 4 })
	p := r.to.partials
	if len(p) != 3 || p[0].Ordinal != 1 || p[2].Ordinal != 3 || p[1].Last || !p[2].Last || p[0].ID != p[2].ID {
		t.Errorf("%+v", p)
	}
}
