package files

import (
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

// A file is one of a log's files, open for reading.
type file struct {
	f       *os.File
	gz      bool
	id      string // identify of it, or of its original
	head    Head
	records recordReader
}

// errNoHead is the error of a file without the head that its form begins with.
var errNoHead = errors.New("a log file that is not one")

// readHead reads the file's head, if its form has one.
func (f *file) readHead() error {
	r := &f.records
	if r.form.Head == nil {
		return nil
	}
	for {
		h, ok := r.form.Head(r.buf)
		if ok {
			f.head, r.from, r.at = h, h.Len, int64(h.Len)
			return nil
		}
		if len(r.buf) > maxRecord {
			return errNoHead
		}
		if err := r.fill(); err != nil {
			return errNoHead
		}
	}
}

// place is where the record that was read last ends.
func (f *file) place() int64 { return f.head.Base + f.records.at - int64(f.head.Len) }

// skipTo leaves out what lies before an offset in the log.
func (f *file) skipTo(offset int64) error {
	to := offset - f.head.Base + int64(f.head.Len)
	if to <= f.records.at {
		return nil
	}
	if !f.gz {
		if _, err := f.f.Seek(to, io.SeekStart); err != nil {
			return err
		}
		form := f.records.form
		f.records = recordReader{r: f.f, form: form, at: to}
		st, err := f.f.Stat()
		if err == nil && to == st.Size() {
			return nil
		}
		if err == nil && f.records.fill() == nil && form.Frame(f.records.buf, 0) >= 0 {
			return nil
		}
		// There is no such place: the log has lost its end in a crash of
		// the host. Rather give entries twice than none.
		return f.rewind()
	}
	for f.records.at < to {
		if _, err := f.records.next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
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
func openNumbered(path string, i int, form *Form) (*file, error) {
	f, err := openForm(path, i, form)
	if err == nil {
		if err = f.readHead(); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", numbered(path, i), err)
		}
	}
	return f, err
}

func openForm(path string, i int, form *Form) (*file, error) {
	f, err := os.Open(numbered(path, i))
	if err == nil {
		id, err := identify(f)
		if err != nil {
			f.Close()
			return nil, err
		}
		return &file{f: f, id: id, records: recordReader{r: f, form: form}}, nil
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
	return &file{f: f, gz: true, id: z.Comment, records: recordReader{r: z, form: form}}, nil
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
func openAll(path string, form *Form) ([]*file, error) {
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
		f, err := openNumbered(path, i, form)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNoHead) {
			continue // removed by others, or torn while it was made
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
func successor(path string, current *file, form *Form) (*file, error) {
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
		f, err := openNumbered(path, i, form)
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
			return openNumbered(path, found[at-1], form)
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
