package build

import (
	"context"
	"fmt"
	"net"
	"time"

	blobstore "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"gantry/internal/content"
)

// maxSmall is how large a blob may be, in bytes, that is written at once.
const maxSmall = 1 << 20

// blobWriter writes a blob.
type blobWriter struct {
	blobstore.Writer
	layerNames
}

// Commit makes a blob of what was written.
func (w *blobWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...blobstore.Opt) error {
	if expected == "" {
		expected = w.Digest()
	}
	ctx, err := w.lease(ctx, leases.Resource{ID: expected.String(), Type: "content"})
	if err != nil {
		return err
	}
	return w.Writer.Commit(ctx, size, expected, opts...)
}

// smallWriter writes a blob that stays in memory until it is known whole, or gets
// too large for that.
type smallWriter struct {
	blobs
	ctx    context.Context // that it was opened with, without a lease
	opts   []blobstore.WriterOpt
	asked  blobstore.WriterOpts
	began  time.Time
	data   []byte
	on     func(content.Small) error // puts it elsewhere than into the stores, if set
	large  *blobWriter               // nil as long as it is small
	closed bool
}

// Write appends to the blob.
func (w *smallWriter) Write(p []byte) (int, error) {
	if w.large == nil && !w.closed && len(w.data)+len(p) <= maxSmall {
		w.data = append(w.data, p...)
		return len(p), nil
	}
	if err := w.grow(); err != nil {
		return 0, err
	}
	return w.large.Write(p)
}

// grow makes it one that is written bit by bit.
func (w *smallWriter) grow() error {
	if w.large != nil {
		return nil
	}
	if w.closed {
		return net.ErrClosed
	}
	to, err := blobstore.OpenWriter(w.ctx, w.Store, w.opts...)
	if err != nil {
		return err
	}
	w.large = &blobWriter{Writer: to, layerNames: w.layerNames}
	if err := to.Truncate(0); err != nil { // somebody has begun it before
		return err
	}
	data := w.data
	w.data = nil
	_, err = to.Write(data)
	return err
}

// Close ends writing.
func (w *smallWriter) Close() error {
	w.closed = true
	if w.large != nil {
		return w.large.Close()
	}
	return nil
}

// Digest is that of what was written.
func (w *smallWriter) Digest() digest.Digest {
	if w.large != nil {
		return w.large.Digest()
	}
	return digest.FromBytes(w.data)
}

// Status tells how much was written.
func (w *smallWriter) Status() (blobstore.Status, error) {
	if w.large != nil {
		return w.large.Status()
	}
	return blobstore.Status{
		Ref: w.asked.Ref, Offset: int64(len(w.data)), Total: w.asked.Desc.Size, Expected: w.asked.Desc.Digest, StartedAt: w.began, UpdatedAt: time.Now(),
	}, nil
}

// Truncate drops what is beyond size bytes.
func (w *smallWriter) Truncate(size int64) error {
	if w.large == nil && size >= 0 && size <= int64(len(w.data)) {
		w.data = w.data[:size]
		return nil
	}
	if err := w.grow(); err != nil {
		return err
	}
	return w.large.Truncate(size)
}

// Commit makes a blob of what was written.
func (w *smallWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...blobstore.Opt) error {
	if w.large != nil {
		return w.large.Commit(ctx, size, expected, opts...)
	}
	if w.closed {
		return fmt.Errorf("blob %s: the writer is closed: %w", w.asked.Ref, errdefs.ErrFailedPrecondition)
	}
	w.closed = true
	is := w.Digest()
	if size > 0 && size != int64(len(w.data)) {
		return fmt.Errorf("blob %s has %d bytes, not %d: %w", w.asked.Ref, len(w.data), size, errdefs.ErrFailedPrecondition)
	}
	if expected != "" && expected != is {
		return fmt.Errorf("blob %s is %s, not %s: %w", w.asked.Ref, is, expected, errdefs.ErrFailedPrecondition)
	}
	ctx, err := w.lease(ctx, leases.Resource{ID: is.String(), Type: "content"})
	if err != nil {
		return err
	}
	ctx = unleased{ctx}
	if _, err := w.Info(ctx, is); err == nil {
		return errdefs.ErrAlreadyExists.WithMessage("content " + is.String() + ": already exists")
	}
	b := content.Small{Data: w.data, Digest: is, End: ofLayer(w.asked.Desc.MediaType, is, opts)}
	if w.on != nil {
		return w.on(b)
	}
	return w.store.Ledger.Put(ctx, b)
}
