// Package jsonfile writes and reads container logs in the form of Docker's
// json-file driver: one JSON object a line,
//
//	{"log":"text\n","stream":"stdout","attrs":{"k":"v"},"time":"2006-01-02T15:04:05.999999999Z"}
//
// attrs only where there are some. Files are rotated by size: path is the
// current one, path.1 the one before it (path.1.gz if compressed), and so on.
//
// A Writer lives in the shim and is the only one to write a log's files; Readers
// live in the daemon and share nothing with it but the files. The package must
// not know containers or the API.
//
// # Rotation and readers
//
// Files are renamed under a lock on their directory, which readers share while
// they look which files there are. A file is never truncated or changed once it has been renamed, and a
// compressed file carries the identity (inode and birth) of its original in the
// gzip header.
// So a reader that holds a file open can always find which file comes next, how
// many rotations it may have slept through, without help from the writer.
package jsonfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/logs"
)

// Options says how a log is written.
type Options struct {
	MaxSize  int64 // bytes at which the file is rotated; none if not positive
	MaxFile  int   // files kept, with the current one; less than 1 means 1
	Compress bool  // gzip what has been rotated
	Attrs    map[string]string
}

// flushAt is how many rendered bytes are collected before they are written.
const flushAt = 32 << 10

// A Writer appends to a log. Its methods may be called at once from several
// goroutines.
type Writer struct {
	path  string
	o     Options
	attrs string // rendered, with its comma, or ""

	mu      sync.Mutex
	f       *os.File
	size    int64
	out     []byte // rendered, not yet written
	split   [2]logs.Splitter
	squeeze sync.WaitGroup // the compression under way
}

// Create opens the log at path for appending, with mode 0640, and creates it if
// there is none. A line that a crash has torn is ended, so that it spoils no
// later one.
func Create(path string, o Options) (*Writer, error) {
	o.MaxFile = max(o.MaxFile, 1)
	w := &Writer{path: path, o: o, attrs: renderAttrs(o.Attrs)}
	if err := w.open(os.O_APPEND); err != nil {
		return nil, err
	}
	if torn(path, w.size) {
		w.out = append(w.out, '\n')
		if err := w.flush(); err != nil {
			w.f.Close()
			return nil, err
		}
	}
	return w, nil
}

func torn(path string, size int64) bool {
	if size == 0 {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var last [1]byte
	_, err = f.ReadAt(last[:], size-1)
	return err == nil && last[0] != '\n'
}

func (w *Writer) open(flag int) error {
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|flag, 0o640)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.f, w.size = f, st.Size()
	return nil
}

// A Stream is the number of a stream in a Writer.
type Stream uint8

// The streams.
const (
	Stdout Stream = iota
	Stderr
)

var streamNames = [...]string{logs.Stdout, logs.Stderr}

// Write appends what has been read from stream s at time at. When it returns,
// all complete lines have been given to the kernel. An error means that entries
// have been lost (the disk is full); the next Write tries again.
func (w *Writer) Write(s Stream, p []byte, at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var first error
	w.split[s].Split(p, at, func(line []byte, at time.Time) {
		if err := w.add(s, line, at); err != nil && first == nil {
			first = err
		}
	})
	return errors.Join(first, w.flush())
}

// End writes the unterminated last line of a stream, if there is one.
func (w *Writer) End(s Stream, at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var first error
	w.split[s].Flush(at, func(line []byte, at time.Time) { first = w.add(s, line, at) })
	return errors.Join(first, w.flush())
}

// Close ends both streams, waits for a compression under way and closes the file.
func (w *Writer) Close() error {
	now := time.Now()
	err := errors.Join(w.End(Stdout, now), w.End(Stderr, now))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.squeeze.Wait()
	return errors.Join(err, w.f.Close())
}

// add renders one entry and writes or rotates when it is time to.
func (w *Writer) add(s Stream, line []byte, at time.Time) (err error) {
	if w.o.MaxSize > 0 && w.size+int64(len(w.out)) >= w.o.MaxSize {
		err = errors.Join(w.flush(), w.rotate())
	}
	w.out = appendEntry(w.out, streamNames[s], w.attrs, line, at)
	if len(w.out) >= flushAt {
		err = errors.Join(err, w.flush())
	}
	return err
}

func (w *Writer) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	n, err := w.f.Write(w.out)
	w.size += int64(n)
	if err != nil && n > 0 && n < len(w.out) {
		// End what was written of the line, so that it stays the only
		// one lost; if that fails too, a reader sees one longer torn line.
		if m, e := w.f.Write([]byte{'\n'}); e == nil {
			w.size += int64(m)
		}
	}
	if w.out = w.out[:0]; cap(w.out) > 4<<10 {
		w.out = nil
	}
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// rotate renames every file to the next number, forgets the last, and begins a
// new current file.
func (w *Writer) rotate() error {
	w.squeeze.Wait() // it works on path.1
	unlock := lockNames(w.path, unix.LOCK_EX)
	defer unlock()
	last := w.numbered(w.o.MaxFile - 1)
	for _, name := range [...]string{last, last + ".gz"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for i := w.o.MaxFile - 1; i > 0; i-- {
		for _, form := range [...]string{"", ".gz"} {
			err := os.Rename(w.numbered(i-1)+form, w.numbered(i)+form)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	old := w.f
	if err := w.open(os.O_APPEND); err != nil {
		// Go on in the old file rather than lose entries.
		return errors.Join(err, os.Rename(w.numbered(1), w.path))
	}
	if err := old.Close(); err != nil {
		return err
	}
	if w.o.Compress && w.o.MaxFile > 1 {
		w.squeeze.Go(func() { compress(w.numbered(1)) })
	}
	return nil
}

func (w *Writer) numbered(i int) string { return numbered(w.path, i) }

func numbered(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

func renderAttrs(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	b := []byte(`"attrs":{`)
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, []byte(k))
		b = append(b, ':')
		b = appendString(b, []byte(m[k]))
	}
	return string(append(b, "},"...))
}

// Remove deletes the log's files.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	names, e := os.ReadDir(filepath.Dir(path))
	if !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	for _, n := range names {
		name := filepath.Join(filepath.Dir(path), n.Name())
		if _, ok := fileNumber(filepath.Clean(path), name); ok {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}

// fileNumber returns the number of a rotated file of the log at path.
func fileNumber(path, name string) (int, bool) {
	if len(name) <= len(path)+1 || name[:len(path)+1] != path+"." {
		return 0, false
	}
	digits := name[len(path)+1:]
	if ext := filepath.Ext(digits); ext == ".gz" || ext == ".tmp" {
		digits = digits[:len(digits)-len(ext)]
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n > 0
}

var _ io.Closer = (*Writer)(nil)
