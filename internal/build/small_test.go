package build

import (
	"bytes"
	"context"
	"strings"
	"testing"

	blobstore "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
)

// Blobs of every size are what was written, kept by the lease they were written
// under and by nothing else.
func TestBlobs(t *testing.T) {
	s := openStores(t, t.TempDir())
	plain := content.Namespaced(t.Context())
	b := blobs{Store: s.Blobs(), layerNames: layerNames{s}}
	if _, err := s.Ledger.Create(plain, leases.WithID("one")); err != nil {
		t.Fatal(err)
	}
	ctx := leases.WithLease(plain, "one")
	collect := func() {
		t.Helper()
		if err := s.Collect(plain); err != nil {
			t.Fatal(err)
		}
	}
	var all []digest.Digest
	for _, size := range []int{0, 1, maxSmall, maxSmall + 1, 3 * maxSmall} {
		data := bytes.Repeat([]byte{byte(size + 1)}, size)
		d := digest.FromBytes(data)
		all = append(all, d)
		w := open(t, ctx, b, ocispec.Descriptor{})
		for part := data; len(part) > 0; part = part[min(len(part), 100_000):] {
			if _, err := w.Write(part[:min(len(part), 100_000)]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(ctx, int64(size), d, blobstore.WithLabels(map[string]string{"key": "value"})); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		collect()
		info, err := b.Info(plain, d)
		if err != nil || info.Size != int64(size) || info.Labels["key"] != "value" {
			t.Errorf("%d bytes: %+v, %v", size, info, err)
		}
		got, err := blobstore.ReadBlob(plain, s.Blobs(), ocispec.Descriptor{Digest: d, Size: int64(size)})
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes are %d (%v)", size, len(got), err)
		}
		if _, err := b.Writer(ctx, blobstore.WithRef("again"), blobstore.WithDescriptor(ocispec.Descriptor{Digest: d})); !errdefs.IsAlreadyExists(err) {
			t.Errorf("%d bytes are written again: %v", size, err)
		}
		w = open(t, ctx, b, ocispec.Descriptor{})
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(ctx, 0, ""); !errdefs.IsAlreadyExists(err) {
			t.Errorf("%d bytes are stored twice: %v", size, err)
		}
	}
	if err := s.Ledger.Delete(plain, leases.Lease{ID: "one"}); err != nil {
		t.Fatal(err)
	}
	collect()
	for _, d := range all {
		if _, err := b.Info(plain, d); !errdefs.IsNotFound(err) {
			t.Errorf("kept without a lease: %v", err)
		}
	}
}

func openStores(t *testing.T, root string) *content.Store {
	t.Helper()
	s, err := content.Open(t.Context(), content.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func open(t *testing.T, ctx context.Context, b blobs, d ocispec.Descriptor) blobstore.Writer {
	t.Helper()
	w, err := b.Writer(ctx, blobstore.WithRef("ref"), blobstore.WithDescriptor(d))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// What is not what it shall be is refused.
func TestBlobRefused(t *testing.T) {
	s := openStores(t, t.TempDir())
	ctx := content.Namespaced(t.Context())
	b := blobs{Store: s.Blobs(), layerNames: layerNames{s}}
	for _, tt := range []struct {
		name string
		size int64
		d    digest.Digest
	}{{"size", 5, ""}, {"digest", 4, digest.FromString("other")}} {
		w := open(t, ctx, b, ocispec.Descriptor{})
		if _, err := w.Write([]byte("text")); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(ctx, tt.size, tt.d); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("wrong %s: %v", tt.name, err)
		}
		if err := w.Commit(ctx, 4, digest.FromString("text")); err == nil {
			t.Errorf("wrong %s: committed after it was closed", tt.name)
		}
	}
	w := open(t, ctx, b, ocispec.Descriptor{})
	if _, err := w.Write([]byte(strings.Repeat("x", 10))); err != nil {
		t.Fatal(err)
	}
	if err := w.Truncate(4); err != nil {
		t.Fatal(err)
	}
	if st, err := w.Status(); err != nil || st.Offset != 4 || w.Digest() != digest.FromString("xxxx") {
		t.Errorf("after cutting: %+v, %v, %v", st, w.Digest(), err)
	}
}
