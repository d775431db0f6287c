package files

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/logs"
)

// A Reader reads the log whose current file is at path.
type Reader struct {
	path string
	form Form
}

// NewReader returns a reader of the log at path. It opens nothing yet.
func NewReader(path string, form Form) *Reader { return &Reader{path, form} }

var _ logs.Reader = (*Reader)(nil)

// pollEvery is how often a follower looks at the file by itself when the kernel
// can't tell it: no inotify instance is left, or there is no directory yet.
const pollEvery = 50 * time.Millisecond

// Entries implements logs.Reader.
func (r *Reader) Entries(ctx context.Context, o logs.ReadOptions) iter.Seq2[logs.Entry, error] {
	return func(yield func(logs.Entry, error) bool) {
		it := iteration{path: r.path, form: &r.form, o: o, yield: yield}
		if err := it.run(ctx); err != nil {
			yield(logs.Entry{}, err)
		}
	}
}

type iteration struct {
	path  string
	form  *Form
	o     logs.ReadOptions
	yield func(logs.Entry, error) bool
	line  []byte
	// done says that the caller or Until wants no more.
	done bool
}

func (it *iteration) run(ctx context.Context) error {
	var wake <-chan struct{}
	if it.o.Follow {
		// Watch before the first look, or what comes in between is missed.
		w := watch(filepath.Dir(it.path))
		defer w.Close()
		wake = w.wake
	}
	files, err := openAll(it.path, it.form)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	switch {
	case it.o.From != (logs.Place{}):
		if files, err = skip(files, it.o.From.Offset); err != nil {
			return err
		}
	case it.o.Tail >= 0:
		if files, err = tail(files, it.o.Tail); err != nil {
			return err
		}
	}
	for len(files) > 0 {
		if err := it.drain(ctx, files[0]); err != nil || it.done || ctx.Err() != nil {
			return err
		}
		if len(files) == 1 && it.o.Follow {
			break
		}
		files[0].Close()
		files = files[1:]
	}
	if !it.o.Follow {
		return nil
	}
	var current *file
	if len(files) > 0 {
		current, files = files[0], nil
	}
	return it.follow(ctx, current, wake)
}

// follow goes on after the end of current, which may be nil.
func (it *iteration) follow(ctx context.Context, current *file, wake <-chan struct{}) error {
	defer func() { current.Close() }()
	var until <-chan time.Time
	if !it.o.Until.IsZero() {
		t := time.NewTimer(time.Until(it.o.Until))
		defer t.Stop()
		until = t.C
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		// Whether the writer has ended, and whether it has gone on to
		// another file, is asked before the file is read to its end:
		// after the answer nothing more can come into it.
		ended := closed(it.o.Ended)
		next, err := successor(it.path, current, it.form)
		if err != nil {
			return err
		}
		if current != nil {
			if err := it.drain(ctx, current); err != nil || it.done {
				next.Close()
				return err
			}
		}
		if next != nil {
			current.Close()
			current = next
			continue
		}
		if ended || ctx.Err() != nil {
			return nil
		}
		tick := poll.C
		if wake != nil {
			tick = nil
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-tick:
		case <-it.o.Ended:
		case <-until:
			return nil
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// drain gives the complete lines that f has now.
func (it *iteration) drain(ctx context.Context, f *file) error {
	for ctx.Err() == nil {
		record, err := f.records.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var e logs.Entry
		if it.line, err = it.form.Decode(&f.head, record, it.line[:0], &e); err != nil {
			continue
		}
		if e.At.Number > 0 {
			e.At.Offset = f.place()
		}
		if !it.o.Since.IsZero() && e.Time.Before(it.o.Since) {
			continue
		}
		if !it.o.Until.IsZero() && e.Time.After(it.o.Until) {
			it.done = true
			return nil
		}
		if !it.yield(e, nil) {
			it.done = true
			return nil
		}
	}
	return nil
}

// A watcher says when something in a directory may have changed. Without an
// inotify instance it says so never; then wake is nil and one has to poll.
type watcher struct {
	f    *os.File
	wake chan struct{}
	done chan struct{}
}

func watch(dir string) *watcher {
	w := &watcher{}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return w
	}
	if _, err = unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE); err != nil {
		unix.Close(fd)
		return w
	}
	w.f = os.NewFile(uintptr(fd), "inotify")
	w.wake, w.done = make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(w.done)
		// Large enough that one event always fits; which it was is of
		// no interest.
		var buf [4096]byte
		for {
			if _, err := w.f.Read(buf[:]); err != nil {
				return
			}
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

// Close ends the watcher's goroutine.
func (w *watcher) Close() {
	if w.f != nil {
		w.f.Close()
		<-w.done
	}
}
