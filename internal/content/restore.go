package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
)

// restorePrefix begins the names of files that will take a damaged blob's place.
// They lie beside the directory of blobs; Open removes what a crash has left.
const restorePrefix = "restore-"

// Restore puts what r gives in the place of the blob d, which is damaged or
// missing: errs.Invalid, and nothing has changed, if it has another digest. Labels
// of the blob, and what they keep, stay; news tells that it had none. ctx must be
// one of Hold.
func (v *Verifier) Restore(ctx context.Context, d digest.Digest, r io.Reader) (news bool, err error) {
	if _, err := v.s.Info(ctx, d); errs.Is(err, errs.NotFound) {
		_, err = v.s.Write(ctx, r, d)
		return true, err
	} else if err != nil {
		return false, err
	}
	dir := filepath.Dir(v.s.ingests)
	f, err := os.CreateTemp(dir, restorePrefix+d.Encoded()+"-")
	if err != nil {
		return false, fmt.Errorf("restore blob %s: %w", d, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	sum := d.Algorithm().Hash()
	_, err = io.CopyBuffer(io.MultiWriter(f, sum), r, make([]byte, 256<<10))
	if err == nil && digest.NewDigest(d.Algorithm(), sum) != d {
		err = errs.New(errs.Invalid, "what came for blob %s has the digest %s", d, digest.NewDigest(d.Algorithm(), sum))
	}
	if err == nil {
		err = f.Chmod(0o444)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("restore blob %s: %w", d, err)
	}
	to := filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
	if err := os.Rename(f.Name(), to); err != nil {
		return false, fmt.Errorf("restore blob %s: %w", d, err)
	}
	return false, Flush(filepath.Dir(to))
}

// Forget removes a damaged blob that keeps nothing else, so that it can come again
// by a pull or load.
func (v *Verifier) Forget(ctx context.Context, d digest.Digest) error {
	err := v.s.Blobs().Delete(Namespaced(ctx), d)
	if err != nil && !errdefs.IsNotFound(err) {
		return kind(err)
	}
	// The store would take what lies there for what comes.
	err = os.Remove(filepath.Join(filepath.Dir(v.s.ingests), "blobs", d.Algorithm().String(), d.Encoded()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob %s: %w", d, err)
	}
	return nil
}

// maxChecked is how large a blob may be, in bytes, to be looked at when it comes
// again. Manifests are smaller, layers need not be.
const maxChecked = 1 << 20

// again is Store.Write of a blob that is here. If it is a small one that is damaged, as
// manifests may be, which can't be forgotten without what they keep, it is restored.
func (v *Verifier) again(ctx context.Context, r io.Reader, d digest.Digest) (ocispec.Descriptor, error) {
	i, err := v.s.Info(ctx, d)
	if err != nil || i.Size > maxChecked {
		return i, err
	}
	if err := v.Blob(ctx, d); errs.Is(err, errs.Corrupt) || errs.Is(err, errs.NotFound) {
		_, err = v.Restore(ctx, d, r)
		return i, err
	}
	return i, nil
}

// dropRestores removes what a crash has left of Restore and Put in the directory of
// blobs.
func dropRestores(dir string) (err error) {
	for _, prefix := range []string{restorePrefix, putPrefix} {
		list, bad := filepath.Glob(filepath.Join(dir, prefix+"*"))
		err = errors.Join(err, bad)
		for _, name := range list {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}
