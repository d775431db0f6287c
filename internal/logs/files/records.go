package files

import (
	"compress/gzip"
	"errors"
	"io"
)

// maxRecord bounds the memory for one record: a full entry whose every byte is
// escaped, with generous attributes. Longer ones are no entries.
const maxRecord = 1 << 20

// A recordReader gives whole records. At the end of its input it keeps what it
// has of one, so that it can be asked again when there is more.
type recordReader struct {
	r    io.Reader
	form *Form
	buf  []byte
	from int   // the next record begins here
	seen int   // behind from, this many bytes hold no end of a record
	at   int64 // where in the file from is
	skip bool
	bad  bool // what follows can't be read
}

// next returns a record, valid until the next call, or io.EOF.
func (l *recordReader) next() ([]byte, error) {
	for {
		if b := l.buf[l.from:]; len(b) > 0 && !l.bad {
			n := l.form.Frame(b, l.seen)
			if n > 0 {
				l.from += n
				l.at += int64(n)
				l.seen = 0
				if l.skip {
					l.skip = false
					continue
				}
				return b[:n], nil
			}
			l.seen = len(b)
			if l.bad = n < 0; !l.bad && l.seen > maxRecord {
				l.skip = true
				l.from += l.seen
				l.at += int64(l.seen)
				l.seen = 0
			}
		}
		if l.bad {
			return nil, io.EOF
		}
		if err := l.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more, or returns io.EOF.
func (l *recordReader) fill() error {
	if l.from > 0 {
		n := copy(l.buf, l.buf[l.from:])
		l.buf, l.from = l.buf[:n], 0
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
		return err
	}
	return nil
}

// skip leaves out what lies before an offset in the log; the files it drops are
// closed.
func skip(list []*file, offset int64) ([]*file, error) {
	for len(list) > 1 && list[1].head.Base <= offset {
		list[0].Close()
		list = list[1:]
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list, list[0].skipTo(offset)
}

// End returns where the log ends now; false if it has no places or no files.
func (r *Reader) End() (int64, bool) {
	f, err := openNumbered(r.path, 0, &r.form)
	if err != nil || r.form.Head == nil {
		return 0, false
	}
	defer f.Close()
	st, err := f.f.Stat()
	if err != nil {
		return 0, false
	}
	return f.head.Base + st.Size() - int64(f.head.Len), true
}

// tail drops and forwards files so that n records are left to read; the files it
// drops are closed.
func tail(list []*file, n int) ([]*file, error) {
	for i := len(list) - 1; i >= 0; i-- {
		f := list[i]
		found, ok := 0, false
		var err error
		if !f.gz {
			found, ok, err = f.tailBackwards(n)
		}
		if err == nil && !ok {
			found, err = f.tailForwards(n)
		}
		if err != nil {
			return list, err
		}
		if n -= found; n <= 0 {
			for _, old := range list[:i] {
				old.Close()
			}
			return list[i:], nil
		}
	}
	return list, nil
}

// A backReader gives records from the last to the first.
type backReader struct {
	f     io.ReaderAt
	form  *Form
	begin int64  // of the first record
	at    int64  // where buf begins
	buf   []byte // what is not yet given
}

// prev returns the record before the one it gave last, nil at the beginning.
// False: what is there does not end with a record.
func (b *backReader) prev() ([]byte, bool, error) {
	for {
		n := 0
		if len(b.buf) > 0 {
			n = b.form.Last(b.buf)
		}
		if n == 0 && b.at == b.begin {
			n = len(b.buf) // nothing before it: so it is one, or none
			if n > 0 && b.form.Frame(b.buf, 0) != n {
				n = -1
			}
		}
		switch {
		case n < 0 || len(b.buf) > maxRecord:
			return nil, false, nil
		case n > 0:
			rec := b.buf[len(b.buf)-n:]
			b.buf = b.buf[:len(b.buf)-n]
			return rec, true, nil
		case b.at == b.begin:
			return nil, true, nil
		}
		size := min(b.at-b.begin, 32<<10)
		buf := make([]byte, int(size)+len(b.buf))
		if _, err := b.f.ReadAt(buf[:size], b.at-size); err != nil {
			return nil, false, err
		}
		copy(buf[size:], b.buf)
		b.at -= size
		b.buf = buf
	}
}

// place is where the record that prev gave last begins.
func (b *backReader) place() int64 { return b.at + int64(len(b.buf)) }

// lastRecord returns the last record of a file whose records lie between two
// offsets, nil if it ends with none.
func lastRecord(f io.ReaderAt, form *Form, begin, end int64) ([]byte, error) {
	rec, _, err := (&backReader{f: f, form: form, begin: begin, at: end}).prev()
	return rec, err
}

// tailBackwards sets f to its last n records by reading backwards, and says how
// many there were. False: that was not possible.
func (f *file) tailBackwards(n int) (int, bool, error) {
	end, err := f.f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, false, err
	}
	b := backReader{f: f.f, form: f.records.form, begin: int64(f.head.Len), at: end}
	found := 0
	for found < n {
		rec, ok, err := b.prev()
		if err != nil || !ok {
			return 0, false, err
		}
		if rec == nil {
			break
		}
		found++
	}
	_, err = f.f.Seek(b.place(), io.SeekStart)
	f.records = recordReader{r: f.f, form: f.records.form, at: b.place()}
	return found, true, err
}

// tailForwards is tailBackwards for a file that can only be read forwards: once
// to count, once more to get to the place.
func (f *file) tailForwards(n int) (int, error) {
	if err := f.rewind(); err != nil {
		return 0, err
	}
	count := 0
	for {
		if _, err := f.records.next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, err
		}
		count++
	}
	if err := f.rewind(); err != nil {
		return 0, err
	}
	for range count - n {
		if _, err := f.records.next(); err != nil {
			return 0, err
		}
	}
	return min(count, n), nil
}

// rewind begins again with the first record.
func (f *file) rewind() error {
	if _, err := f.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var r io.Reader = f.f
	if f.gz {
		z, err := gzip.NewReader(f.f)
		if err != nil {
			return err
		}
		r = z
	}
	f.records = recordReader{r: r, form: f.records.form}
	return f.readHead()
}
