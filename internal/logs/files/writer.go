package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/logs"
)

// flushAt is how many rendered bytes are collected before they are written.
const flushAt = 32 << 10

// A Writer appends to a log. Its methods may be called at once from several
// goroutines.
type Writer struct {
	path string
	form Form
	o    Options

	mu   sync.Mutex
	f    *os.File
	head Head // of the current file
	size int64
	next uint64 // number of the next entry
	out  []byte // rendered, not yet written
	// dropping: out will be given back soon.
	dropping  bool
	count     int    // entries in out
	rest      []byte // of a record that a full disk has cut
	notBefore int64  // size below which a held rotation is not tried again
	split     [2]logs.Splitter
	squeeze   sync.WaitGroup // the compression under way
}

// A LostError says that entries could not be written.
type LostError struct {
	Entries int
	Err     error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("write log: %d entries lost: %v", e.Entries, e.Err)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// Create opens the log at path for appending, with mode 0640, and creates it if
// there is none. A record that a crash has torn is taken off.
func Create(path string, form Form, o Options) (*Writer, error) {
	o.MaxFile = max(o.MaxFile, 1)
	w := &Writer{path: path, form: form, o: o}
	unlock := lockNames(path, unix.LOCK_EX)
	err := w.open()
	if err == nil {
		err = w.resume()
	}
	unlock()
	if err != nil && w.f != nil {
		w.f.Close()
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// open opens or makes the current file.
func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
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

// resume finds out where in the log the current file ends.
func (w *Writer) resume() error {
	if w.size == 0 {
		return w.begin()
	}
	r := &file{f: w.f, records: recordReader{r: io.NewSectionReader(w.f, 0, w.size), form: &w.form}}
	if err := r.readHead(); err != nil {
		// It was torn while it was made: there is no record in it.
		if err := w.f.Truncate(0); err != nil {
			return err
		}
		w.size = 0
		return w.begin()
	}
	w.head, w.next = r.head, r.head.First
	at := int64(r.head.Len)
	last, err := lastRecord(w.f, &w.form, at, w.size)
	if err != nil {
		return err
	}
	switch {
	case last == nil && w.size > at && w.form.Heal != nil:
		w.rest = w.form.Heal
	case last == nil && w.size > at:
		// Torn by a crash. The whole records before it stay.
		for {
			rec, err := r.records.next()
			if err != nil {
				break
			}
			at, last = r.records.at, append(last[:0], rec...)
		}
		if err := w.f.Truncate(at); err != nil {
			return err
		}
		w.size = at
	}
	var e logs.Entry
	if len(last) > 0 {
		if _, err := w.form.Decode(&w.head, last, nil, &e); err == nil {
			w.next = e.At.Number
		}
	}
	if w.form.Head != nil && !sameAttrs(w.head.Attrs, w.o.Attrs) {
		return w.turn()
	}
	return nil
}

func sameAttrs(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// begin writes the head of an empty file.
func (w *Writer) begin() error {
	if w.form.NewHead == nil {
		return nil
	}
	w.head.First, w.head.Attrs = w.next, w.o.Attrs
	b := w.form.NewHead(nil, w.head)
	w.head.Len = len(b)
	n, err := w.f.Write(b)
	w.size = int64(n)
	if err != nil {
		_ = w.f.Truncate(0)
		w.size = 0
	}
	return err
}

// Write appends what has been read from stream s at time at. When it returns,
// all complete lines have been given to the kernel. A *LostError means that
// entries have been lost (the disk is full); the next Write tries again.
func (w *Writer) Write(s Stream, p []byte, at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lost *LostError
	w.split[s].Split(p, at, func(line []byte, at time.Time) { lost = sum(lost, w.add(s, line, at)) })
	return sum(lost, w.flush()).orNil()
}

// End writes the unterminated last line of a stream, if there is one.
func (w *Writer) End(s Stream, at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lost *LostError
	w.split[s].Flush(at, func(line []byte, at time.Time) { lost = sum(lost, w.add(s, line, at)) })
	return sum(lost, w.flush()).orNil()
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

func (e *LostError) orNil() error {
	if e == nil {
		return nil
	}
	return e
}

func sum(a, b *LostError) *LostError {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return &LostError{a.Entries + b.Entries, a.Err}
}

// add renders one entry and writes or rotates when it is time to. An error of a
// rotation alone loses nothing: the current file grows on.
func (w *Writer) add(s Stream, line []byte, at time.Time) (lost *LostError) {
	if w.o.MaxSize > 0 && w.size > int64(w.head.Len) && w.size+int64(len(w.out)) >= max(w.o.MaxSize, w.notBefore) {
		lost = w.flush()
		if err := w.rotate(); err != nil {
			lost = sum(lost, &LostError{0, err})
		}
	}
	if w.out == nil && len(line) > 2<<10 || len(w.out) > 2<<10 && cap(w.out) < flushAt {
		w.out = append(make([]byte, 0, flushAt+(16<<10)), w.out...)
	}
	w.out = w.form.Encode(w.out, Record{s, line, at, w.next})
	w.next++
	w.count++
	if len(w.out) >= flushAt {
		lost = sum(lost, w.flush())
	}
	return lost
}

// flush writes what is rendered. Where a full disk cuts a record its rest is
// kept, and goes first the next time, so that no file ever holds half a record.
func (w *Writer) flush() *LostError {
	if len(w.out) == 0 && len(w.rest) == 0 {
		return nil
	}
	entries := w.count
	w.count = 0
	out := w.out
	w.out = w.out[:0]
	w.dropLater()
	if len(w.rest) > 0 {
		n, err := w.f.Write(w.rest)
		w.size += int64(n)
		if w.rest = w.rest[n:]; err != nil {
			return &LostError{entries, err}
		}
		w.rest = nil
	}
	if len(out) == 0 {
		return nil
	}
	if len(out) > 0 && w.size == 0 && w.form.NewHead != nil {
		if err := w.begin(); err != nil { // at its making the disk was full
			return &LostError{entries, err}
		}
	}
	n, err := w.f.Write(out)
	w.size += int64(n)
	if err == nil {
		return nil
	}
	for at := 0; at < n; entries-- {
		size := w.form.Frame(out[at:], 0)
		if size <= 0 {
			break
		}
		if at += size; at > n {
			w.rest = append([]byte(nil), out[n:at]...)
		}
	}
	return &LostError{entries, err}
}

// keepBuffer is how long the buffer is kept for what comes next: an idle process
// keeps nothing, a busy one does not make it again for every line.
const keepBuffer = time.Second

func (w *Writer) dropLater() {
	if w.dropping || cap(w.out) <= 4<<10 {
		return
	}
	w.dropping = true
	time.AfterFunc(keepBuffer, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dropping, w.out = false, nil
	})
}

// rotate makes a new current file, unless what would have to go for it is still
// needed.
func (w *Writer) rotate() error {
	if len(w.rest) > 0 {
		return nil // half a record must not be left in a file
	}
	w.squeeze.Wait() // it works on path.1
	if w.o.Hold != nil {
		if base, drops := w.wouldBegin(); drops && !w.o.Hold(base) {
			w.notBefore = w.size + w.o.MaxSize/16 // not at every line
			return nil
		}
	}
	unlock := lockNames(w.path, unix.LOCK_EX)
	defer unlock()
	return w.turn()
}

// wouldBegin returns where the log would begin after a rotation, and whether that
// drops anything.
func (w *Writer) wouldBegin() (base int64, drops bool) {
	if w.o.MaxFile == 1 {
		return w.end(), true
	}
	oldest, err := openNumbered(w.path, w.o.MaxFile-1, &w.form)
	if err != nil {
		return 0, false
	}
	oldest.Close()
	for i := w.o.MaxFile - 2; i > 0; i-- {
		if f, err := openNumbered(w.path, i, &w.form); err == nil {
			f.Close()
			return f.head.Base, true
		}
	}
	return w.head.Base, true
}

// end is the place behind the last record.
func (w *Writer) end() int64 { return w.head.Base + w.size - int64(w.head.Len) }

// turn renames every file to the next number, forgets the last, and begins a new
// current file. The names are locked.
func (w *Writer) turn() error {
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
	old, head, size := w.f, w.head, w.size
	w.notBefore = 0
	err := w.open()
	if err == nil {
		w.head = Head{Base: head.Base + size - int64(head.Len)}
		if err = w.begin(); err != nil {
			w.f.Close()
			_ = os.Remove(w.path)
		}
	}
	if err != nil {
		// Go on in the old file rather than lose entries.
		w.f, w.head, w.size = old, head, size
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
