// Package local is the compact form of a container's log: that of the driver
// "local", and of the record that is kept beside every remote driver. Unlike
// json-file it keeps every byte as it was, and every entry has a place, so that
// reading can go on where it ended. The files are those of logs/files; the shim
// writes them, the daemon reads them. The package writes nothing itself and must
// not know containers or the API.
//
// All numbers are big endian. A file begins with a head:
//
//	"GNTLOG1\n"
//	u32 bytes that follow of the head
//	u64 bytes of records in the files before it
//	u64 entries in the files before it
//	attributes: (u32 length, key, u32 length, value)…
//
// and goes on with records:
//
//	u32 n
//	u8  1: standard error; 2: the line has no newline, it is a part
//	i64 time in nanoseconds since 1970
//	u64 number of the entry in the log
//	the line, n-17 bytes without its newline
//	u32 n again, to read backwards
package local

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"gantry/internal/logs"
	"gantry/internal/logs/files"
)

const (
	magic = "GNTLOG1\n"
	// fixed is what a record has besides lengths and line.
	fixed = 17
	// longest bounds n; lines are cut at logs.MaxLine.
	longest = fixed + logs.MaxLine
	// longestHead bounds the attributes.
	longestHead = 1 << 20

	flagStderr  = 1
	flagPartial = 2
)

var be = binary.BigEndian

// Create opens the log at path for appending, or makes it.
func Create(path string, o files.Options) (*files.Writer, error) {
	return files.Create(path, form(), o)
}

// NewReader returns a reader of the log at path. It opens nothing yet.
func NewReader(path string) *files.Reader { return files.NewReader(path, form()) }

func form() files.Form {
	return files.Form{Head: head, NewHead: newHead, Frame: frame, Last: last, Encode: encode, Decode: decode}
}

func newHead(b []byte, h files.Head) []byte {
	b = append(b, magic...)
	at := len(b)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint64(b, uint64(h.Base))
	b = be.AppendUint64(b, h.First)
	for _, k := range slices.Sorted(maps.Keys(h.Attrs)) {
		for _, s := range [...]string{k, h.Attrs[k]} {
			b = append(be.AppendUint32(b, uint32(len(s))), s...)
		}
	}
	be.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

func head(b []byte) (files.Head, bool) {
	const first = len(magic) + 4 + 16
	if len(b) < first || string(b[:len(magic)]) != magic {
		return files.Head{}, false
	}
	n := be.Uint32(b[len(magic):])
	if n < 16 || n > longestHead || uint32(len(b)-len(magic)-4) < n {
		return files.Head{}, false
	}
	h := files.Head{Len: len(magic) + 4 + int(n), Base: int64(be.Uint64(b[len(magic)+4:])), First: be.Uint64(b[len(magic)+12:])}
	rest := b[first:h.Len]
	text := func() (string, bool) {
		if len(rest) < 4 || uint64(be.Uint32(rest)) > uint64(len(rest)-4) {
			return "", false
		}
		n := be.Uint32(rest)
		s := string(rest[4 : 4+n])
		rest = rest[4+n:]
		return s, true
	}
	for len(rest) > 0 {
		k, ok := text()
		v, ok2 := text()
		if !ok || !ok2 {
			return files.Head{}, false
		}
		if h.Attrs == nil {
			h.Attrs = map[string]string{}
		}
		h.Attrs[k] = v
	}
	return h, h.Base >= 0
}

func frame(b []byte, _ int) int {
	if len(b) < 4 {
		return 0
	}
	n := be.Uint32(b)
	switch {
	case n < fixed || n > longest:
		return -1
	case uint32(len(b)-4) < n+4:
		return 0
	case be.Uint32(b[4+n:]) != n:
		return -1
	}
	return int(n) + 8
}

func last(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	n := be.Uint32(b[len(b)-4:])
	switch {
	case n < fixed || n > longest:
		return -1
	case uint32(len(b)) < n+8:
		return 0
	case be.Uint32(b[len(b)-int(n)-8:]) != n:
		return -1
	}
	return int(n) + 8
}

func encode(b []byte, r files.Record) []byte {
	line, flags := r.Line, byte(flagPartial)
	if k := len(line) - 1; k >= 0 && line[k] == '\n' {
		line, flags = line[:k], 0
	}
	if r.Stream == files.Stderr {
		flags |= flagStderr
	}
	n := uint32(fixed + len(line))
	b = append(be.AppendUint32(b, n), flags)
	b = be.AppendUint64(b, uint64(r.Time.UnixNano()))
	b = be.AppendUint64(b, r.Number)
	b = append(b, line...)
	return be.AppendUint32(b, n)
}

var errRecord = errors.New("not a log record")

func decode(h *files.Head, record, buf []byte, e *logs.Entry) ([]byte, error) {
	if len(record) < fixed+8 {
		return buf, errRecord
	}
	from := len(buf)
	buf = append(buf, record[21:len(record)-4]...)
	flags := record[4]
	if flags&flagPartial == 0 {
		buf = append(buf, '\n')
	}
	*e = logs.Entry{
		Stream: files.Stream(flags & flagStderr).Name(), Time: time.Unix(0, int64(be.Uint64(record[5:]))).UTC(),
		Line: buf[from:], Partial: flags&flagPartial != 0, Attrs: h.Attrs,
		At: logs.Place{Number: be.Uint64(record[13:]) + 1},
	}
	return buf, nil
}
