package server

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"gantry/internal/logs/files"
	"gantry/internal/logs/record"
	"gantry/internal/shim/protocol"
)

// openLog opens the container's log, or returns nil if it has none.
func openLog(s *server, c protocol.LogConfig) (*files.Writer, error) {
	if c.Driver == "none" || c.Driver == "" {
		return nil, nil
	}
	o := files.Options{MaxSize: c.MaxSize, MaxFile: c.MaxFile, Compress: c.Compress, Attrs: c.Attrs}
	if c.Cursor != "" {
		o.Hold = func(base int64) bool { return hold(s, c.Cursor, base) }
	}
	return record.Create(c.Driver, c.Path, o)
}

const (
	// holdPoll is how often the cursor is looked at while the log is full.
	holdPoll = 10 * time.Millisecond
	// holdAlone is how long a full log waits when there is no daemon: the
	// container outlives it, so then the oldest entries go.
	holdAlone = 10 * time.Second
)

// hold waits until the log has been sent up to base, and with it the container's
// output. When the container has ended nothing waits any more, and the log may
// grow by what the pipes still hold.
func hold(s *server, cursor string, base int64) bool {
	var alone time.Time
	tick := time.NewTicker(holdPoll)
	defer tick.Stop()
	for files.ReadCursor(cursor).Offset < base {
		s.mu.Lock()
		attended := len(s.ctls) > 0
		s.mu.Unlock()
		switch {
		case attended:
			alone = time.Time{}
		case alone.IsZero():
			alone = time.Now()
		case time.Since(alone) > holdAlone:
			return true
		}
		select {
		case <-s.dying:
			return false
		case <-tick.C:
		}
	}
	return true
}

// logTrouble is what a full disk has cost.
type logTrouble struct {
	mu   sync.Mutex
	lost int    // entries
	why  string // "" while the log can be written
}

// note takes in how a write to the log went. It returns the fact that the daemon
// is to be told, "" if it is nothing new: when trouble begins and when it ends.
// The container goes on: the next write is tried again.
func (t *logTrouble) note(err error) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.why
	var lost *files.LostError
	switch {
	case err == nil:
		t.why = ""
	case errors.As(err, &lost):
		t.lost += lost.Entries
		t.why = lost.Err.Error()
	default:
		t.why = err.Error()
	}
	if (was == "") == (t.why == "") {
		return ""
	}
	return t.fact()
}

func (t *logTrouble) fact() string {
	n := strconv.Itoa(t.lost)
	if t.why == "" {
		return "log-back " + n
	}
	return "log-lost " + n + ": " + t.why
}

// now returns what a client that comes later has to know; "" for nothing.
func (t *logTrouble) now() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why == "" {
		return ""
	}
	return t.fact()
}
