package build

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	blobstore "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"gantry/internal/content"
)

// What an export writes stays out of the stores until it is settled, is seen by the
// export alone, and is kept by its lease then. Layers are stored at once.
func TestDraft(t *testing.T) {
	s := openStores(t, t.TempDir())
	plain := content.Namespaced(t.Context())
	b := blobs{Store: s.Blobs(), layerNames: layerNames{s}}
	if _, err := s.Ledger.Create(plain, leases.WithID("export")); err != nil {
		t.Fatal(err)
	}
	ctx := drafting(leases.WithLease(plain, "export"))
	write := func(ref, kind, text string) ocispec.Descriptor {
		t.Helper()
		d := ocispec.Descriptor{MediaType: kind, Digest: digest.FromString(text), Size: int64(len(text))}
		if ref == "" {
			ref = d.Digest.String()
		}
		w, err := b.Writer(ctx, blobstore.WithRef(ref), blobstore.WithDescriptor(d))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(ctx, d.Size, d.Digest, blobstore.WithLabels(map[string]string{"key": text})); err != nil {
			t.Fatal(err)
		}
		return d
	}
	manifest, statement := write("", "", "manifest"), write("", "application/vnd.in-toto+json", "statement")
	for _, d := range []ocispec.Descriptor{write("", ocispec.MediaTypeImageLayerGzip, "layer"), write("layer-x", "", "pulled")} {
		if _, err := s.Blobs().Info(plain, d.Digest); err != nil {
			t.Errorf("not stored at once: %v", err)
		}
	}
	for _, d := range []ocispec.Descriptor{manifest, statement} {
		if _, err := b.Info(plain, d.Digest); !errdefs.IsNotFound(err) {
			t.Errorf("seen by others: %v", err)
		}
		if i, err := b.Info(ctx, d.Digest); err != nil || i.Size != d.Size || i.Labels["key"] == "" {
			t.Errorf("not seen by the export: %+v, %v", i, err)
		}
		if data, err := drafted(ctx, s, d, 100); err != nil || digest.FromBytes(data) != d.Digest {
			t.Errorf("reads %q, %v", data, err)
		}
		if _, err := b.Writer(ctx, blobstore.WithRef("again"), blobstore.WithDescriptor(d)); !errdefs.IsAlreadyExists(err) {
			t.Errorf("written again: %v", err)
		}
	}
	for range 2 {
		if err := settle(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Collect(plain); err != nil {
		t.Fatal(err)
	}
	for text, d := range map[string]ocispec.Descriptor{"manifest": manifest, "statement": statement} {
		if i, err := s.Blobs().Info(plain, d.Digest); err != nil || i.Labels["key"] != text {
			t.Errorf("%s: %+v, %v", text, i, err)
		}
	}
}

// The history is read at once, and written some time later, its blobs first. What a
// killed daemon has not written leaves no lease.
func TestLater(t *testing.T) {
	root := t.TempDir()
	s := openStores(t, root)
	ctx := namespaces.WithNamespace(t.Context(), historyNamespace)
	start := func() *later {
		t.Helper()
		l, err := openLater(t.Context(), filepath.Join(root, "history.db"), s, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	record := func(l *later, ref string) digest.Digest {
		t.Helper()
		text := "log of " + ref
		d := digest.FromString(text)
		if err := l.Update(func(tx *bolt.Tx) error {
			if _, err := s.Ledger.Create(ctx, leases.WithID(historyLease+ref)); err != nil {
				return err
			}
			b := blobs{Store: s.Blobs(), layerNames: layerNames{s}, later: l}
			under := leases.WithLease(ctx, historyLease+ref)
			if err := blobstore.WriteBlob(under, b, "history-"+ref, strings.NewReader(text), ocispec.Descriptor{Digest: d, Size: int64(len(text))}); err != nil {
				return err
			}
			if data, err := blobstore.ReadBlob(ctx, b, ocispec.Descriptor{Digest: d, Size: int64(len(text))}); err != nil || string(data) != text {
				t.Errorf("reads %q, %v", data, err)
			}
			bucket, err := tx.CreateBucketIfNotExists([]byte(historyRecords))
			if err != nil {
				return err
			}
			return bucket.Put([]byte(ref), []byte("record"))
		}); err != nil {
			t.Fatal(err)
		}
		return d
	}
	has := func(l *later, ref string) (ok bool) {
		t.Helper()
		if err := l.View(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte(historyRecords))
			ok = b != nil && b.Get([]byte(ref)) != nil
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return ok
	}
	l := start()
	kept := record(l, "kept")
	if !has(l, "kept") {
		t.Error("not read at once")
	}
	if _, err := s.Blobs().Info(ctx, kept); !errdefs.IsNotFound(err) {
		t.Errorf("stored already: %v", err)
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blobs().Info(ctx, kept); err != nil || l.shelf.bytes() != 0 {
		t.Errorf("not stored: %v", err)
	}
	record(l, "lost")
	if err := l.Drop(); err != nil { // as if it were killed
		t.Fatal(err)
	}
	l = start()
	if !has(l, "kept") || has(l, "lost") {
		t.Errorf("after a kill: kept %v, lost %v", has(l, "kept"), has(l, "lost"))
	}
	if !s.Ledger.Has(ctx, historyLease+"kept") || s.Ledger.Has(ctx, historyLease+"lost") {
		t.Error("the leases are not those of the records")
	}
	last := record(l, "last")
	var all sync.WaitGroup
	for range 4 { // and a request for more beside them
		all.Go(func() {
			if err := l.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	record(l, "more")
	all.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = start()
	defer l.Close()
	if _, err := s.Blobs().Info(ctx, last); err != nil || !has(l, "last") {
		t.Errorf("not written at the end: %v", err)
	}
}
