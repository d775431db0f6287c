// Package logs is what every form of a container's log has in common: the
// entry, what a reader may ask for, and the cutting of a byte stream into
// entries.
//
// The writers (children of this package, such as logs/jsonfile) run in the shim,
// the readers in the daemon; they share nothing but the files. This package
// writes nothing itself and must not know containers, the API or a file format.
package logs

import (
	"bytes"
	"context"
	"iter"
	"time"
)

// MaxLine is the length in bytes at which a line without an end is cut into
// partial entries (the size of Docker's log copier buffer).
const MaxLine = 16384

// The streams of a process.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// An Entry is one record of a log.
type Entry struct {
	Stream string    // Stdout or Stderr
	Time   time.Time // when the line was complete; for all parts of a cut line that of the first
	// Line holds the bytes with their newline, if there was one. The slice
	// is valid until the next entry is asked for.
	Line []byte
	// Partial says that Line has no newline: the next entry of the stream
	// continues it, or the process ended.
	Partial bool
	Attrs   map[string]string // labels and variables chosen when the log was opened
	// At is the place behind the entry, and so where one may go on later.
	// Zero where the form of the log has no places.
	At Place
}

// A Place is a position in a log, whatever files it is in.
type Place struct {
	Offset int64  // bytes of records since the log began
	Number uint64 // entries since the log began
}

// ReadOptions says which entries a reader shall give.
type ReadOptions struct {
	Since, Until time.Time // inclusive bounds; zero for none
	// Tail is the number of entries at the end of the log to begin with,
	// counted before Since and Until are looked at; -1 for all.
	Tail int
	// Follow goes on with what is written later, until Ended is closed and
	// all is read, Until is passed, or the context ends.
	Follow bool
	// From leaves out what lies before a place (Tail is not looked at then),
	// where the form of the log has places. If that has been dropped by
	// now, what is left of the log is given from its beginning.
	From Place
	// Ended is closed when the writer has written its last entry. Nil means
	// never.
	Ended <-chan struct{}
}

// A Reader gives the entries of one container's log, oldest first.
//
// Several iterations may run at once. An iteration ends after its first error;
// the end of the context is no error. What can't be parsed (a line torn by a
// crash) is left out. A log that does not exist is empty.
type Reader interface {
	Entries(ctx context.Context, o ReadOptions) iter.Seq2[Entry, error]
}

// A Splitter cuts one stream into entries. The zero value is ready.
type Splitter struct {
	pending []byte
	// began is when the first part of the current line was given out; zero
	// if none was.
	began time.Time
}

// Split cuts p, which came at time at, and calls emit for each entry. What has
// no newline yet is kept, up to MaxLine bytes. The slice given to emit is valid
// during the call.
func (s *Splitter) Split(p []byte, at time.Time, emit func(line []byte, at time.Time)) {
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		complete := n > 0
		if !complete {
			n = len(p)
		}
		if room := MaxLine - len(s.pending); n > room {
			n, complete = room, false
		}
		if !complete && len(s.pending)+n < MaxLine {
			s.pending = append(s.pending, p[:n]...)
			return
		}
		s.give(p[:n], at, complete, emit)
		p = p[n:]
	}
}

// give emits what is pending and then part, as one entry.
func (s *Splitter) give(part []byte, at time.Time, complete bool, emit func([]byte, time.Time)) {
	if !s.began.IsZero() {
		at = s.began
	}
	if complete {
		s.began = time.Time{}
	} else {
		s.began = at
	}
	if len(s.pending) == 0 {
		emit(part, at)
		return
	}
	s.pending = append(s.pending, part...)
	emit(s.pending, at)
	// The buffer is given back whenever a line is complete, so that an
	// idle process keeps nothing.
	s.pending = nil
}

// Flush emits what is left at the end of the stream, without a newline.
func (s *Splitter) Flush(at time.Time, emit func(line []byte, at time.Time)) {
	if len(s.pending) > 0 {
		s.give(nil, at, false, emit)
	}
	s.began = time.Time{}
}
