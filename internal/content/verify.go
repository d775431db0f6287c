package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"gantry/internal/archive"
	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/layer"
)

// A Verifier compares what is on the disk with what it shall be.
type Verifier struct{ s *Store }

// NewVerifier returns the verifier of a store.
func NewVerifier(s *Store) *Verifier { return &Verifier{s} }

// Blob reads a blob to its end: errs.Corrupt if it does not have its digest, or
// can't be read, errs.NotFound if it is not there.
func (v *Verifier) Blob(ctx context.Context, d digest.Digest) error {
	r, _, err := v.s.Open(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	sum := d.Algorithm().Hash()
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		sum.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errs.New(errs.Corrupt, "blob %s can't be read: %w", d, err)
		}
	}
	if got := digest.NewDigest(d.Algorithm(), sum); got != d {
		return errs.New(errs.Corrupt, "blob %s has the digest %s", d, got)
	}
	return nil
}

// Mend says what Layer does about a layer that differs.
type Mend uint8

// The ways.
const (
	Leave   Mend = iota
	Replace      // by a fresh one; containers that run keep the old
)

// Layer unpacks the last of layers once more, aside, and compares it with the
// unpacked one. It returns the paths that differ, or are only in one of both;
// none if it is not unpacked. With Replace the fresh one takes its place.
func (v *Verifier) Layer(ctx context.Context, layers []Layer, m Mend) (paths []string, err error) {
	chain, parent := Chain(layers, len(layers)), Chain(layers, len(layers)-1)
	dirs, err := v.s.Dirs(ctx, chain)
	if errs.Is(err, errs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ctx = Namespaced(ctx)
	l, sn, key := layers[len(layers)-1], v.s.Snapshots(), "verify-"+id.New()
	mounts, err := sn.Prepare(ctx, key, v.s.SnapshotOf(ctx, parent))
	if err != nil {
		return nil, kind(err)
	}
	defer func() { err = errors.Join(err, kind(sn.Remove(context.WithoutCancel(ctx), key))) }()
	fresh, err := directory(mounts)
	if err != nil {
		return nil, err
	}
	o := layer.Options{Limits: v.s.limits, Whole: v.s.driver.whole}
	if parent != "" && !o.Whole {
		if o.Parents, err = v.s.Dirs(ctx, parent); err != nil {
			return nil, err
		}
	}
	r, _, err := v.s.Open(ctx, l.Blob.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if _, _, err := layer.Unpack(ctx, fresh, r, l.DiffID, o); err != nil {
		return nil, err
	}
	p := archive.Exactly
	if v.s.SnapshotOf(ctx, chain) != chain.String() {
		p = archive.Packed // it was never unpacked
	}
	list, err := archive.Compare(ctx, fresh, dirs[0], p)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && m == Leave:
		// The fresh one was read when it was written: it is the other.
		return nil, errs.New(errs.Corrupt, "the unpacked layer can't be read: %w", err)
	case err != nil:
		paths = []string{"/"}
	}
	for _, c := range list {
		paths = append(paths, c.Path)
	}
	if m == Leave || len(paths) == 0 {
		return paths, nil
	}
	return paths, v.replace(ctx, fresh, dirs[0])
}

// replace exchanges an unpacked layer for a fresh one, which is on disk then.
func (v *Verifier) replace(ctx context.Context, fresh, old string) error {
	if remake := v.s.driver.remake; remake != nil {
		return remake(ctx, filepath.Dir(fresh), filepath.Dir(old))
	}
	if err := Flush(fresh); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, old, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) { // there is nothing to exchange it for
		err = os.Rename(fresh, old)
	}
	if err != nil {
		return fmt.Errorf("replace layer %s: %w", old, err)
	}
	return Flush(filepath.Dir(old))
}
