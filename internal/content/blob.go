package content

import (
	"context"
	"errors"
	"fmt"
	"io"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/id"
)

// Write stores what r gives as a blob and returns its digest and size. If
// expect is not empty the content must have that digest, else errs.Invalid; if
// such a blob is there already, r is not read, unless it is a small one that is
// damaged. When Write returns, the blob is
// on disk. The context must be one of Hold, or the blob may be collected before
// anything names it.
func (s *Store) Write(ctx context.Context, r io.Reader, expect digest.Digest) (ocispec.Descriptor, error) {
	ctx = Namespaced(ctx)
	if expect != "" {
		if err := expect.Validate(); err != nil {
			return ocispec.Descriptor{}, errs.New(errs.Invalid, "digest %q: %w", expect, err)
		}
	}
	w, err := s.Blobs().Writer(ctx, blobs.WithRef("write-"+id.New()), blobs.WithDescriptor(ocispec.Descriptor{Digest: expect}))
	if errdefs.IsAlreadyExists(err) {
		return NewVerifier(s).again(ctx, r, expect)
	}
	if err != nil {
		return ocispec.Descriptor{}, kind(err)
	}
	defer w.Close()
	n, err := io.CopyBuffer(patient{w, s, ctx}, r, make([]byte, 256<<10))
	if err != nil {
		st, _ := w.Status()
		return ocispec.Descriptor{}, errors.Join(err, kind(s.Blobs().Abort(ctx, st.Ref)))
	}
	d := w.Digest()
	if err := w.Commit(ctx, n, expect); err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, kind(err)
	}
	return ocispec.Descriptor{Digest: d, Size: n}, nil
}

// Info returns digest and size of a stored blob, or errs.NotFound.
func (s *Store) Info(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	i, err := s.Blobs().Info(Namespaced(ctx), d)
	if err != nil {
		return ocispec.Descriptor{}, kind(err)
	}
	return ocispec.Descriptor{Digest: i.Digest, Size: i.Size}, nil
}

// Read returns a blob of at most limit bytes, checked against its digest:
// errs.NotFound if it is not there, errs.Invalid if it is larger or not of the
// size that d says, errs.Corrupt if the disk has changed it.
func (s *Store) Read(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, errs.New(errs.Invalid, "digest %q: %w", d.Digest, err)
	}
	// Only the digest: a descriptor can carry data of its own, which is not
	// what the digest names.
	ra, err := s.Blobs().ReaderAt(Namespaced(ctx), ocispec.Descriptor{Digest: d.Digest})
	if err != nil {
		return nil, kind(err)
	}
	defer ra.Close()
	switch size := ra.Size(); {
	case size > limit:
		return nil, errs.New(errs.Invalid, "%s has %d bytes, more than %d", d.Digest, size, limit)
	case d.Size > 0 && size != d.Size:
		return nil, errs.New(errs.Invalid, "%s has %d bytes, not %d", d.Digest, size, d.Size)
	}
	data := make([]byte, ra.Size())
	if _, err := ra.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if d.Digest.Algorithm().FromBytes(data) != d.Digest {
		return nil, errs.New(errs.Corrupt, "%s: its content has another digest", d.Digest)
	}
	return data, nil
}

// Open opens a blob of any size for reading, or returns errs.NotFound. Its
// content is not checked.
func (s *Store) Open(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error) {
	ra, err := s.Blobs().ReaderAt(Namespaced(ctx), ocispec.Descriptor{Digest: d})
	if err != nil {
		return nil, 0, kind(err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(ra, 0, ra.Size()), ra}, ra.Size(), nil
}

// Refer notes that the blob of digest d needs the children, and, if chain is
// not empty, the unpacked layers of that chain ID: they stay as long as it.
// Children need not be there.
func (s *Store) Refer(ctx context.Context, d digest.Digest, chain digest.Digest, children ...ocispec.Descriptor) error {
	info := blobs.Info{Digest: d, Labels: map[string]string{}}
	count := map[string]int{}
	for _, c := range children {
		for _, key := range images.ChildGCLabels(c) {
			n := count[key]
			count[key]++
			if n > 0 || key[len(key)-1] == '.' {
				key = fmt.Sprintf("%s%d", key, n)
			}
			info.Labels[key] = c.Digest.String()
		}
	}
	if chain != "" {
		info.Labels["containerd.io/gc.ref.snapshot."+s.driver.name] = s.SnapshotOf(ctx, chain)
	}
	fields := make([]string, 0, len(info.Labels))
	for key := range info.Labels {
		fields = append(fields, "labels."+key)
	}
	if len(fields) == 0 {
		return nil
	}
	if was, err := s.Blobs().Info(Namespaced(ctx), d); err == nil && contains(was.Labels, info.Labels) {
		return nil // a transaction, which waits for the disk, would change nothing
	}
	_, err := s.Blobs().Update(Namespaced(ctx), info, fields...)
	return kind(err)
}

// contains tells whether all of part is in labels. Pure.
func contains(labels, part map[string]string) bool {
	for k, v := range part {
		if is, ok := labels[k]; !ok || is != v {
			return false
		}
	}
	return true
}
