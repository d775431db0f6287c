package container

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/launch"
)

// maxCopies is how many look-ups and copies of one container's files may be
// under way. Those that hang, on a file system that does not answer, count.
const maxCopies = 64

// An access is who works on a container's files from outside.
//
//	down   the root is assembled from its layers; one writer at a time, and no
//	       start meanwhile: two mounts must not write to one upper directory
//	up     a copy of the container's own mounts; when it ends writers are told
//	       to stop, and the next start waits for them a little
type access struct {
	mu      sync.Mutex
	copies  int
	next    int
	writers map[int]context.CancelCauseFunc
	disk    chan struct{} // holds one token while the layers are in use
}

// begin counts a copy.
func (x *access) begin() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.copies >= maxCopies {
		return errs.New(errs.Unavailable, "%d copies of this container's files are under way already, or don't end", x.copies)
	}
	x.copies++
	return nil
}

func (x *access) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.copies--
}

// lock waits until nobody has the layers in use.
func (x *access) lock(ctx context.Context) (unlock func(), err error) {
	x.mu.Lock()
	if x.disk == nil {
		x.disk = make(chan struct{}, 1)
	}
	disk := x.disk
	x.mu.Unlock()
	select {
	case disk <- struct{}{}:
		return sync.OnceFunc(func() { <-disk }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// write notes a writer, if cancel is not nil.
func (x *access) write(cancel context.CancelCauseFunc) (done func()) {
	if cancel == nil {
		return func() {}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.writers == nil {
		x.writers = map[int]context.CancelCauseFunc{}
	}
	x.next++
	n := x.next
	x.writers[n] = cancel
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.writers, n)
	}
}

// ended tells the writers that the container has ended, or is to go.
func (x *access) ended(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, cancel := range x.writers {
		cancel(cause)
	}
}

// writerWait is how long a start or a removal waits for those who were told to
// stop.
const writerWait = 3 * time.Second

// claim waits until nobody writes: a start may take the layers then, and they
// may be removed.
func (x *access) claim(ctx context.Context) (unlock func(), err error) {
	unlock, err = x.lock(ctx)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(writerWait); time.Now().Before(end); {
		x.mu.Lock()
		n := len(x.writers)
		x.mu.Unlock()
		if n == 0 || !sleep(ctx, 5*time.Millisecond) {
			break
		}
	}
	return unlock, nil
}

// aside runs fn in a goroutine of its own and waits for it, but no longer than
// ctx, and the engine, go on: fn may hang in a file system that somebody in the
// container serves. Then it ends when that ends, and is nobody's concern.
func (c *core) aside(ctx context.Context, a *actor, fn func(context.Context) error) error {
	if err := a.files.begin(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.ctx, func() { cancel(errs.New(errs.Unavailable, "the daemon is ending")) })()
	done := make(chan error, 1)
	go func() {
		defer a.files.end()
		done <- fn(ctx)
	}()
	select {
	case err := <-done:
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if s := a.view(); s.state.Phase == Removing || s.state.Phase == Removed {
			return refuse(GoneAlready, s)
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// phasePause is how often a container on its way from one state to the next is
// looked at.
const phasePause = 5 * time.Millisecond

// tree opens a container's files, whatever it is doing. done must be called,
// when nothing is read or written any more.
//
// Who writes gives stop, which is called when he must end.
func (c *Files) tree(ctx context.Context, a *actor, o launch.FilesOptions, stop context.CancelCauseFunc) (t *launch.FileTree, done func(), err error) {
	o.Write = stop != nil
	for {
		s := a.view()
		in := c.plainInput(s.rec)
		in.Lower = s.rec.Image.Lower
		switch p := s.state.Phase; {
		case p.live():
			o.Pid = s.pid
			if t, err = c.o.Launcher.Files(ctx, in, o); err == nil {
				gone := a.files.write(stop)
				if now := a.view(); stop == nil || now.pid == s.pid && now.state.Phase.live() {
					return t, func() { _ = t.Close(); gone() }, nil
				}
				gone() // ended before it could be told to stop
				_ = t.Close()
				continue
			}
			if now := a.view(); now.pid == s.pid && now.state.Phase.live() && !errs.Is(err, errs.Conflict) {
				return nil, nil, err
			}
		case p == Removing, p == Removed, p == Dead:
			return nil, nil, refuse(GoneAlready, s)
		case p == Starting, p == Ending:
		default:
			o.Pid = 0
			t, done, err := c.downTree(ctx, a, in, o, stop)
			if t != nil || err != nil {
				return t, done, err
			}
		}
		if !sleep(ctx, phasePause) {
			return nil, nil, context.Cause(ctx)
		}
	}
}

// downTree opens the files of a container that does not run; nil if it does
// after all.
func (c *Files) downTree(ctx context.Context, a *actor, in launch.Input, o launch.FilesOptions, stop context.CancelCauseFunc) (*launch.FileTree, func(), error) {
	unlock, err := a.files.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	if p := a.view().state.Phase; p != Created && p != Exited && p != Restarting {
		unlock()
		return nil, nil, nil
	}
	t, err := c.o.Launcher.Files(ctx, in, o)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	if !o.Write {
		unlock() // what is read may be mounted by others too
	}
	gone := a.files.write(stop)
	return t, func() { _ = t.Close(); gone(); unlock() }, nil
}
