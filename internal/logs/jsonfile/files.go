package jsonfile

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// maxRecord bounds the memory for one line of a file: a full entry whose every
// byte is escaped, with generous attributes. Longer ones are no entries.
const maxRecord = 1 << 20

// A file is one of a log's files, open for reading.
type file struct {
	f     *os.File
	gz    bool
	id    string // identify of it, or of its original
	lines lineReader
}

// Close may be called on nil and twice.
func (f *file) Close() {
	if f != nil && f.f != nil {
		f.f.Close()
		f.f = nil
	}
}

// openNumbered opens file i of the log, in whichever form it is there. The
// plain form goes first: if both are there, the compressed one may be a left-over.
func openNumbered(path string, i int) (*file, error) {
	f, err := os.Open(numbered(path, i))
	if err == nil {
		id, err := identify(f)
		if err != nil {
			f.Close()
			return nil, err
		}
		return &file{f: f, id: id, lines: lineReader{r: f}}, nil
	}
	if i == 0 || !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if f, err = os.Open(numbered(path, i) + ".gz"); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s.gz: %w", numbered(path, i), err)
	}
	return &file{f: f, gz: true, id: z.Comment, lines: lineReader{r: z}}, nil
}

// numbers returns which files the log has, lowest first. A crash in the midst
// of a rotation may have left a gap, so the directory is read.
func numbers(path string) ([]int, error) {
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var found []int
	for _, n := range names {
		name := filepath.Join(filepath.Dir(path), n.Name())
		if name == filepath.Clean(path) {
			found = append(found, 0)
		} else if i, ok := fileNumber(filepath.Clean(path), name); ok && filepath.Ext(name) != ".tmp" {
			found = append(found, i)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// openAll opens the log's files, oldest first.
func openAll(path string) ([]*file, error) {
	unlock := lockNames(path, unix.LOCK_SH)
	defer unlock()
	found, err := numbers(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []*file
	for _, i := range slices.Backward(found) {
		f, err := openNumbered(path, i)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed by others
		}
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// idOf returns the identity of the file at path, or "" if there is none.
func idOf(path string) string {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &st) != nil {
		return ""
	}
	return statxID(&st)
}

// successor opens the file that comes after current, or the oldest if current
// is nil or has been deleted. It returns nil if there is none yet.
func successor(path string, current *file) (*file, error) {
	if current != nil && idOf(path) == current.id {
		return nil, nil
	}
	unlock := lockNames(path, unix.LOCK_SH)
	defer unlock()
	found, err := numbers(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(found) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for at, i := range found {
		f, err := openNumbered(path, i)
		if err != nil {
			continue
		}
		known := current != nil && f.id == current.id
		if !known && at == len(found)-1 {
			return f, nil
		}
		f.Close()
		if known {
			if at == 0 {
				return nil, nil
			}
			return openNumbered(path, found[at-1])
		}
	}
	return nil, nil
}

// lockNames keeps the writer from renaming files while a reader looks which
// there are, by flock(2) on their directory. It gives up after a second: a
// stopped reader must not stop a container, and the worst that can come of it
// is a log read with a gap.
func lockNames(path string, how int) (unlock func()) {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return func() {}
	}
	for range 1000 {
		if unix.Flock(int(d.Fd()), how|unix.LOCK_NB) == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return func() { d.Close() }
}

// A lineReader gives complete lines. At the end of its input it keeps what it
// has of a line, so that it can be asked again when there is more.
type lineReader struct {
	r    io.Reader
	buf  []byte
	from int // the next line begins here
	seen int // no newline before here
	skip bool
}

// next returns a line with its newline, valid until the next call, or io.EOF.
func (l *lineReader) next() ([]byte, error) {
	for {
		if n := bytes.IndexByte(l.buf[l.seen:], '\n'); n >= 0 {
			line := l.buf[l.from : l.seen+n+1]
			l.from = l.seen + n + 1
			l.seen = l.from
			if l.skip {
				l.skip = false
				continue
			}
			return line, nil
		}
		if l.seen = len(l.buf); l.seen-l.from > maxRecord {
			l.skip = true
			l.from = l.seen
		}
		if l.from > 0 {
			n := copy(l.buf, l.buf[l.from:])
			l.buf, l.seen, l.from = l.buf[:n], n, 0
		}
		if cap(l.buf)-len(l.buf) < 16<<10 {
			l.buf = append(make([]byte, 0, 2*cap(l.buf)+(32<<10)), l.buf...)
		}
		n, err := l.r.Read(l.buf[len(l.buf):cap(l.buf)])
		l.buf = l.buf[:len(l.buf)+n]
		if n == 0 && err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF // a compressed file cut short
			}
			return nil, err
		}
	}
}

// tail drops and forwards files so that n lines are left to read; the files it
// drops are closed.
func tail(files []*file, n int) ([]*file, error) {
	for i := len(files) - 1; i >= 0; i-- {
		f := files[i]
		var found int
		var err error
		if f.gz {
			found, err = f.tailCompressed(n)
		} else {
			found, err = f.tailPlain(n)
		}
		if err != nil {
			return files, err
		}
		if n -= found; n <= 0 {
			for _, old := range files[:i] {
				old.Close()
			}
			return files[i:], nil
		}
	}
	return files, nil
}

// tailPlain sets f to the last n lines by reading backwards, and says how many
// there were.
func (f *file) tailPlain(n int) (int, error) {
	end, err := f.f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	var block [32 << 10]byte
	newlines, start := 0, int64(0)
	for at := end; at > 0; {
		size := min(at, int64(len(block)))
		at -= size
		if _, err := f.f.ReadAt(block[:size], at); err != nil {
			return 0, err
		}
		b := block[:size]
		for {
			i := bytes.LastIndexByte(b, '\n')
			if i < 0 {
				break
			}
			if newlines++; newlines > n {
				start, at = at+int64(i)+1, 0
				newlines--
				break
			}
			b = b[:i]
		}
	}
	_, err = f.f.Seek(start, io.SeekStart)
	return newlines, err
}

// tailCompressed is tailPlain for a file that can only be read forwards: once
// to count, once more to get to the place.
func (f *file) tailCompressed(n int) (int, error) {
	count := 0
	for {
		if _, err := f.lines.next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, err
		}
		count++
	}
	if _, err := f.f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	z, err := gzip.NewReader(f.f)
	if err != nil {
		return 0, err
	}
	f.lines = lineReader{r: z}
	for range count - n {
		if _, err := f.lines.next(); err != nil {
			return 0, err
		}
	}
	return min(count, n), nil
}
