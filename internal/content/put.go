package content

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"gantry/internal/durable"
	"gantry/internal/errs"
)

// A Small is a blob that is in memory. End is what a writer of it would be
// committed with.
type Small struct {
	Data   []byte
	Digest digest.Digest
	End    []blobs.Opt
}

// Put stores blobs. Written bit by bit each takes two transactions; these share
// one, also with those that others put at the same time. All blobs are on disk
// before they are recorded. An error of containerd's kind AlreadyExists says that
// one of them was there; the others are stored.
func (l *Ledger) Put(ctx context.Context, list ...Small) error {
	for {
		err := l.put(ctx, list)
		if !madeRoom(ctx, l.s, err) {
			return err
		}
	}
}

// Atomic is Store.Atomic for changes of snapshots, and of labels of blobs: the
// collector, which waits for who makes them while they wait for the transaction, is
// kept away.
func (l *Ledger) Atomic(ctx context.Context, fn func(ctx context.Context) error) error {
	l.gate.RLock()
	defer l.gate.RUnlock()
	return l.s.Atomic(ctx, fn)
}

func (l *Ledger) put(ctx context.Context, list []Small) error {
	// The collector would wait for who reads or writes blobs, and they for the
	// transaction: it is kept away.
	l.gate.RLock()
	defer l.gate.RUnlock()
	// The disk has one wait for those that are flushed at the same time.
	var wg sync.WaitGroup
	all := make([]error, len(list))
	for i, b := range list {
		wg.Go(func() { all[i] = land(filepath.Dir(l.s.ingests), b) })
	}
	wg.Wait()
	if err := errors.Join(all...); err != nil {
		return err
	}
	var there error
	err := l.together.do(ctx, func(ctx context.Context) error {
		there = nil
		for _, b := range list {
			w, err := l.s.Blobs().Writer(context.WithValue(ctx, landedKey{}, b), blobs.WithRef("put-"+b.Digest.String()))
			if err != nil {
				return err
			}
			err = w.Commit(ctx, int64(len(b.Data)), b.Digest, b.End...)
			if errdefs.IsAlreadyExists(err) {
				there, err = err, nil
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return there
}

// land writes the file of a blob below root, to disk. It is none of the store's yet,
// and removed by a later collection if it does not become one.
func land(root string, b Small) (err error) {
	if err := b.Digest.Validate(); err != nil {
		return errs.New(errs.Invalid, "digest %q: %w", b.Digest, err)
	}
	if is := b.Digest.Algorithm().FromBytes(b.Data); is != b.Digest {
		return errs.New(errs.Invalid, "blob %s is not %s", is, b.Digest)
	}
	f, err := os.CreateTemp(root, putPrefix+b.Digest.Encoded()+"-")
	if err != nil {
		return fmt.Errorf("put blob %s: %w", b.Digest, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("put blob %s: %w", b.Digest, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	_, err = f.Write(b.Data)
	if err == nil {
		err = f.Chmod(0o444)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	dir := filepath.Join(root, "blobs", b.Digest.Algorithm().String())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, b.Digest.Encoded())); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// putPrefix begins the names of files that will be blobs. They lie beside the
// directory of blobs; Open removes what a crash has left.
const putPrefix = "put-"

// files are the blobs below the records of the stores. A blob whose file has landed
// is not written once more.
type files struct{ blobs.Store }

// landedKey is the key of the Small that has landed.
type landedKey struct{}

// Writer begins to write a blob.
func (f files) Writer(ctx context.Context, opts ...blobs.WriterOpt) (blobs.Writer, error) {
	if b, ok := ctx.Value(landedKey{}).(Small); ok {
		return landed{b, time.Now()}, nil
	}
	return f.Store.Writer(ctx, opts...)
}

// WalkStatusRefs names what is being written; the collector asks for it.
func (f files) WalkStatusRefs(ctx context.Context, fn func(string) error) error {
	if w, ok := f.Store.(interface {
		WalkStatusRefs(context.Context, func(string) error) error
	}); ok {
		return w.WalkStatusRefs(ctx, fn)
	}
	list, err := f.ListStatuses(ctx)
	for _, st := range list {
		if err == nil {
			err = fn(st.Ref)
		}
	}
	return err
}

// landed is the writer of a blob that is written.
type landed struct {
	b     Small
	began time.Time
}

// Write can't be called: all is written.
func (l landed) Write([]byte) (int, error) { return 0, errdefs.ErrFailedPrecondition }

// Truncate can't be called either.
func (l landed) Truncate(int64) error { return errdefs.ErrFailedPrecondition }

// Close does nothing.
func (l landed) Close() error { return nil }

// Digest is the blob's.
func (l landed) Digest() digest.Digest { return l.b.Digest }

// Status tells that all is written.
func (l landed) Status() (blobs.Status, error) {
	n := int64(len(l.b.Data))
	return blobs.Status{Offset: n, Total: n, Expected: l.b.Digest, StartedAt: l.began, UpdatedAt: l.began}, nil
}

// Commit checks what was expected.
func (l landed) Commit(_ context.Context, size int64, expected digest.Digest, _ ...blobs.Opt) error {
	if size > 0 && size != int64(len(l.b.Data)) || expected != "" && expected != l.b.Digest {
		return fmt.Errorf("blob %s is not %s of %d bytes: %w", l.b.Digest, expected, size, errdefs.ErrFailedPrecondition)
	}
	return nil
}
