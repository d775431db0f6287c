// Package files keeps a container's log in files that are rotated by size: path
// is the current one, path.1 the one before it (path.1.gz if compressed), and so
// on. What an entry looks like in a file is a Form, which logs/jsonfile and
// logs/local have.
//
// A Writer lives in the shim and is the only one to write a log's files; Readers
// live in the daemon and share nothing with it but the files. The package must
// not know containers, the API or a form.
//
// # Rotation and readers
//
// Files are renamed under a lock on their directory, which readers share while
// they look which files there are. A file is never truncated or changed once it
// has been renamed, and a compressed file carries the identity (inode and birth)
// of its original in the gzip header. So a reader that holds a file open can
// always find which file comes next, how many rotations it may have slept
// through, without help from the writer.
package files

import (
	"time"

	"gantry/internal/logs"
)

// Stream is the number of a stream in a Writer.
type Stream uint8

// The streams.
const (
	Stdout Stream = iota
	Stderr
)

// Name returns the stream as an entry names it.
func (s Stream) Name() string {
	if s == Stderr {
		return logs.Stderr
	}
	return logs.Stdout
}

// A Record is an entry that is about to be written.
type Record struct {
	Stream Stream
	Line   []byte // with its newline, if there was one
	Time   time.Time
	Number uint64 // of entries before it, in forms that count
}

// A Head is what a file begins with, in forms that have one.
type Head struct {
	Len   int   // bytes of the head itself
	Base  int64 // bytes of records in all files before this one
	First uint64
	Attrs map[string]string
}

// A Form is how entries stand in files. Its functions are pure and never panic,
// whatever bytes they get.
type Form struct {
	// Head takes apart what a file begins with. False: there is not (yet)
	// a head. Nil in forms without heads.
	Head func(b []byte) (Head, bool)
	// NewHead appends the head of a new file. Nil in forms without heads.
	NewHead func(b []byte, h Head) []byte
	// Frame returns the length of the record that b begins with: 0 if it
	// is not all there, negative if b begins with no record. The first
	// seen bytes are known to hold no end of one.
	Frame func(b []byte, seen int) int
	// Last returns the length of the record that b ends with: 0 if that
	// begins before b, negative if b ends with no record.
	Last func(b []byte) int
	// Heal ends a torn record so that it spoils no later one. Nil: it has
	// to be taken off.
	Heal []byte
	// Encode appends a record.
	Encode func(b []byte, r Record) []byte
	// Decode parses a record into e and appends the line to buf, which it
	// returns. An error means that it is to be left out.
	Decode func(h *Head, record, buf []byte, e *logs.Entry) ([]byte, error)
}

// Options says how a log is written.
type Options struct {
	MaxSize  int64 // bytes at which a file is rotated; none if not positive
	MaxFile  int   // files kept, with the current one; less than 1 means 1
	Compress bool  // gzip what has been rotated
	Attrs    map[string]string
	// Hold, if not nil, is asked before the oldest file is dropped: base
	// is where the log will begin then. It may block; false means that the
	// file must stay, and the current one grows on.
	Hold func(base int64) bool
}
