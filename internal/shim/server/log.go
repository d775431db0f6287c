package server

import (
	"errors"
	"strconv"
	"time"

	"gantry/internal/logs/files"
	"gantry/internal/logs/record"
	"gantry/internal/shim/protocol"
)

// openLog opens the container's log, or returns nil if it has none.
func (s *server) openLog(c protocol.LogConfig) (*files.Writer, error) {
	if c.Driver == "none" || c.Driver == "" {
		return nil, nil
	}
	o := files.Options{MaxSize: c.MaxSize, MaxFile: c.MaxFile, Compress: c.Compress, Attrs: c.Attrs}
	if c.Cursor != "" {
		o.Hold = func(base int64) bool { return s.hold(c.Cursor, base) }
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
func (s *server) hold(cursor string, base int64) bool {
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
	lost int    // entries
	why  string // "" while the log can be written
}

func (t *logTrouble) fact() string {
	n := strconv.Itoa(t.lost)
	if t.why == "" {
		return "log-back " + n
	}
	return "log-lost " + n + ": " + t.why
}

// logged notes how a write to the log went. It must not stop the container: the
// next one is tried again. The daemon is told when that begins and when it ends.
func (s *server) logged(err error) {
	var lost *files.LostError
	s.mu.Lock()
	was := s.trouble.why
	switch {
	case err == nil && was == "":
		s.mu.Unlock()
		return
	case err == nil:
		s.trouble.why = ""
	case errors.As(err, &lost):
		s.trouble.lost += lost.Entries
		s.trouble.why = lost.Err.Error()
	default:
		s.trouble.why = err.Error()
	}
	tell := (was == "") != (s.trouble.why == "")
	fact := s.trouble.fact()
	s.mu.Unlock()
	if tell {
		s.fact(fact)
	}
}

// logFact is what a client that comes later has to know of the log; "" for nothing.
func (s *server) logFact() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble.why == "" {
		return ""
	}
	return s.trouble.fact()
}
