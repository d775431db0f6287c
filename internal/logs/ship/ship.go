// Package ship sends containers' logs to where a remote driver wants them. It
// runs in the daemon, reads the record that the container's shim writes, and
// keeps beside it a cursor: how far the remote has it for certain. So neither
// the end of the daemon nor that of the remote loses anything that the record
// still holds; what may have arrived or not is sent again.
//
// The engine tells it when a container begins and ends. It writes cursors only,
// and must not know protocols (logs/driver) or containers.
package ship

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/docker/go-units"

	"gantry/internal/logs"
	"gantry/internal/logs/driver"
	"gantry/internal/logs/files"
	"gantry/internal/logs/local"
	"gantry/internal/plan"
)

// Ships sends the logs of all containers.
type Ships struct {
	log  *slog.Logger
	ctx  context.Context
	stop context.CancelFunc

	mu  sync.Mutex
	all map[string]*ship
}

// New returns what sends logs until ctx ends or Close.
func New(ctx context.Context, log *slog.Logger) *Ships {
	ctx, stop := context.WithCancel(ctx)
	return &Ships{log: log, ctx: ctx, stop: stop, all: map[string]*ship{}}
}

// Check reports what is wrong with the options of a driver, as far as that can
// be told without its remote.
func (s *Ships) Check(info plan.LogInfo) error {
	_, err := driver.New(info)
	return err
}

// Begin sends the log of a container that has begun, from the cursor on. path is
// the current file of its record. dropped is told how many entries were dropped
// before they could be sent, each time that some were.
func (s *Ships) Begin(info plan.LogInfo, path string, dropped func(entries uint64)) error {
	return s.begin(info, path, make(chan struct{}), dropped)
}

// Resume sends what is left of the log of a container that does not run.
func (s *Ships) Resume(info plan.LogInfo, path string, dropped func(entries uint64)) error {
	if end, ok := local.NewReader(path).End(); !ok || end == files.ReadCursor(files.Cursor(path)).Offset {
		return nil
	}
	ended := make(chan struct{})
	close(ended)
	return s.begin(info, path, ended, dropped)
}

func (s *Ships) begin(info plan.LogInfo, path string, ended chan struct{}, dropped func(uint64)) error {
	to, err := driver.New(info)
	if err != nil {
		return err
	}
	s.start(info.ContainerID, path, ended, &ship{to: to, maxBehind: maxBehind(info.Options), dropped: dropped})
	return nil
}

// start runs b, which has what is particular to the container's driver.
func (s *Ships) start(id, path string, ended chan struct{}, b *ship) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	if old := s.all[id]; old != nil && old.again(ended) {
		return // it still sends what was before
	}
	ctx, stop := context.WithCancel(s.ctx)
	b.reader, b.cursor = local.NewReader(path), files.Cursor(path)
	b.log, b.ended, b.stop, b.done = s.log.With("id", id), ended, stop, make(chan struct{})
	s.all[id] = b
	go func() {
		b.run(ctx)
		s.mu.Lock()
		if s.all[id] == b {
			delete(s.all, id)
		}
		s.mu.Unlock()
		stop()
		close(b.done)
	}()
}

// Ended says that the container's log is complete. What is left of it is sent.
func (s *Ships) Ended(id string) {
	s.mu.Lock()
	b := s.all[id]
	s.mu.Unlock()
	if b != nil {
		b.end()
	}
}

// Bounds of how long a removal waits for the rest of a log: while it gets
// shorter, and while it does not.
const (
	drainWithin   = 30 * time.Second
	drainProgress = 3 * time.Second
)

// Forget waits a limited time until the log of a container that is about to be
// removed has been sent, and gives up what is left.
func (s *Ships) Forget(ctx context.Context, id string) {
	s.mu.Lock()
	b := s.all[id]
	s.mu.Unlock()
	if b == nil {
		return
	}
	b.end()
	began := time.Now()
	at, moved := b.sent(), began
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-b.done:
			return
		case <-ctx.Done():
		case <-tick.C:
		}
		if now := b.sent(); now != at {
			at, moved = now, time.Now()
		}
		if time.Since(moved) > drainProgress || time.Since(began) > drainWithin {
			break
		}
	}
	b.stop()
	<-b.done
	if end, ok := b.reader.End(); ok && end > b.sent().Offset {
		b.log.Warn("the rest of a removed container's log was not sent", "bytes", end-b.sent().Offset)
	}
}

// Close ends all sending; the cursors stay.
func (s *Ships) Close() {
	s.mu.Lock()
	s.stop()
	var all []*ship
	for _, b := range s.all {
		all = append(all, b)
	}
	s.mu.Unlock()
	for _, b := range all {
		<-b.done
	}
}

// maxBehind is the bound that the user sets in mode=non-blocking.
func maxBehind(opts map[string]string) int64 {
	n, err := units.RAMInBytes(opts["max-buffer-size"])
	if err != nil || opts["mode"] != "non-blocking" {
		return 0
	}
	return n
}

// A ship sends one container's log.
type ship struct {
	to     driver.Sender
	reader interface {
		logs.Reader
		End() (int64, bool)
	}
	cursor string
	// maxBehind is how many bytes of the record may wait; older entries are
	// dropped. 0: as many as the record holds.
	maxBehind int64
	dropped   func(entries uint64)
	log       *slog.Logger
	stop      context.CancelFunc
	done      chan struct{}

	mu    sync.Mutex
	ended chan struct{}
	over  bool // run is about to return
	safe  logs.Place
}

// end says that nothing more will be written for now.
func (b *ship) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.ended:
	default:
		close(b.ended)
	}
}

// again takes a new end after an old one. False: it is too late for that.
func (b *ship) again(ended chan struct{}) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	b.ended = ended
	return true
}

// current returns what is closed at the end.
func (b *ship) current() chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended
}

// finished notes that all was sent until ended was closed, and reports whether
// nothing has begun since.
func (b *ship) finished(ended chan struct{}) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = b.ended == ended
	return b.over
}

// sent returns how far the remote has the log.
func (b *ship) sent() logs.Place {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.safe
}
