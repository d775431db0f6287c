package content

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// A trash deletes the directories of layers that the books no longer have, so
// that who removes an image waits for the books alone. There is no list of what
// is to be deleted that a crash could lose: it is the directories minus the
// books, and the next Open goes on with it.
type trash struct {
	snapshots.Snapshotter // removes from the books only
	cleaner               snapshots.Cleaner

	ctx    context.Context
	cancel context.CancelFunc
	poke   chan struct{}
	ended  chan struct{}

	mu   sync.Mutex
	idle *sync.Cond
	due  bool // something was removed since the last look began
	busy bool
	err  error // of the last look
}

// Update changes the labels of a snapshot. Those that are the names' alone, which
// the books below never get, are not worth a transaction of them.
func (t *trash) Update(ctx context.Context, info snapshots.Info, fields ...string) (snapshots.Info, error) {
	if len(fields) > 0 && !slices.ContainsFunc(fields, below) {
		return t.Stat(ctx, info.Name)
	}
	return t.Snapshotter.Update(ctx, info, fields...)
}

// below tells whether a field of a snapshot is in the books below the names. Pure.
func below(field string) bool {
	key, ok := strings.CutPrefix(field, "labels.")
	return !ok || len(snapshots.FilterInheritedLabels(map[string]string{key: ""})) > 0
}

// newTrash begins to delete what s, which removes asynchronously, leaves.
func newTrash(ctx context.Context, s snapshots.Snapshotter) *trash {
	t := &trash{Snapshotter: s, poke: make(chan struct{}, 1), ended: make(chan struct{})}
	t.cleaner, _ = s.(snapshots.Cleaner)
	t.idle = sync.NewCond(&t.mu)
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(Namespaced(ctx)))
	go t.work()
	return t
}

// Cleanup has the directories deleted soon. The collector calls it.
func (t *trash) Cleanup(context.Context) error {
	t.mu.Lock()
	t.due = true
	t.mu.Unlock()
	select {
	case t.poke <- struct{}{}:
	default:
	}
	return nil
}

func (t *trash) work() {
	defer close(t.ended)
	for {
		select {
		case <-t.poke:
		case <-t.ctx.Done():
			return
		}
		t.mu.Lock()
		t.due, t.busy = false, true
		t.mu.Unlock()
		var err error
		if t.cleaner != nil {
			err = t.cleaner.Cleanup(t.ctx)
		}
		if errdefs.IsNotFound(err) { // there has never been a snapshot
			err = nil
		}
		t.mu.Lock()
		t.busy, t.err = false, err
		t.idle.Broadcast()
		t.mu.Unlock()
	}
}

// wait returns when nothing is to be deleted, with the error of the last look,
// or when ctx ends.
func (t *trash) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.idle.Broadcast()
	})
	defer stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for (t.due || t.busy) && ctx.Err() == nil && t.ctx.Err() == nil {
		t.idle.Wait()
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return t.err
}

// Close stops deleting, after the directories of the present look, and closes
// the snapshotter.
func (t *trash) Close() error {
	t.cancel()
	<-t.ended
	t.mu.Lock()
	t.idle.Broadcast()
	t.mu.Unlock()
	return t.Snapshotter.Close()
}

// Garbage is what of the layers is to be deleted, and what ought to be.
type Garbage struct {
	trash  *trash
	layers string // directory of the layers' directories
}

// Settle returns when the files of everything that was removed are deleted.
func (s *Garbage) Settle(ctx context.Context) error { return s.trash.wait(ctx) }

// Strays returns the directories of layers that the books do not have and that
// nobody is deleting.
func (s *Garbage) Strays(ctx context.Context) ([]string, error) {
	entries, err := os.ReadDir(s.layers)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.trash.mu.Lock()
	deleting := s.trash.due || s.trash.busy
	s.trash.mu.Unlock()
	if deleting {
		return nil, nil
	}
	known := map[string]bool{}
	err = s.trash.Walk(Namespaced(ctx), func(_ context.Context, i snapshots.Info) error {
		known[filepath.Dir(i.Labels[upperLabel])] = true
		return nil
	})
	if errdefs.IsNotFound(err) {
		err = nil
	}
	var list []string
	for _, e := range entries {
		dir := filepath.Join(s.layers, e.Name())
		if _, bad := strconv.ParseUint(e.Name(), 10, 64); bad == nil && !known[dir] {
			list = append(list, dir)
		}
	}
	return list, err
}

// Sweep has what Strays returns deleted.
func (s *Garbage) Sweep(ctx context.Context) error {
	if err := s.trash.Cleanup(ctx); err != nil {
		return err
	}
	return s.Settle(ctx)
}
