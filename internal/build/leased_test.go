package build

import (
	"context"
	"maps"
	"testing"

	blobstore "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
)

func TestUnleased(t *testing.T) {
	type key struct{}
	ctx := leases.WithLease(context.WithValue(t.Context(), key{}, "value"), "one")
	if _, ok := leases.FromContext(ctx); !ok {
		t.Fatal("no lease to begin with")
	}
	if id, ok := leases.FromContext(unleased{ctx}); ok {
		t.Errorf("still under %q", id)
	}
	if v := (unleased{ctx}).Value(key{}); v != "value" {
		t.Errorf("another value is %v", v)
	}
}

func TestLabelled(t *testing.T) {
	have := map[string]string{"a": "1", "b": "2"}
	for _, tt := range []struct {
		name   string
		change map[string]string
		fields []string
		want   map[string]string
	}{
		{"same", map[string]string{"a": "1"}, []string{"labels.a"}, have},
		{"other", map[string]string{"a": "3"}, []string{"labels.a"}, map[string]string{"a": "3", "b": "2"}},
		{"gone", map[string]string{}, []string{"labels.b"}, map[string]string{"a": "1"}},
		{"new", map[string]string{"c": "3"}, []string{"labels.c"}, map[string]string{"a": "1", "b": "2", "c": "3"}},
		{"not named", map[string]string{"c": "3"}, []string{"labels.a"}, map[string]string{"b": "2"}},
	} {
		if got, ok := labelled(have, tt.change, tt.fields); !ok || !maps.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if _, ok := labelled(have, have, []string{"labels"}); ok {
		t.Error("all labels are taken for one")
	}
}

// A layer is stored with the labels that BuildKit gives it, all else with its own.
func TestOfLayer(t *testing.T) {
	const diff = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	d := digest.FromString("blob")
	labelsOf := func(opts []blobstore.Opt) map[string]string {
		var info blobstore.Info
		for _, opt := range opts {
			if err := opt(&info); err != nil {
				t.Fatal(err)
			}
		}
		return info.Labels
	}
	of := func(key, value string) []blobstore.Opt {
		return []blobstore.Opt{blobstore.WithLabels(map[string]string{key: value})}
	}
	own := of("containerd.io/uncompressed", diff)
	got := labelsOf(ofLayer(ocispec.MediaTypeImageLayerGzip, d, own))
	want := map[string]string{
		"containerd.io/uncompressed": diff, "buildkit.io/blob/mediatype": ocispec.MediaTypeImageLayerGzip,
		"buildkit.io/blob/annotation.containerd.io/uncompressed": diff, "containerd.io/gc.ref.content.blob-" + d.String(): d.String(),
	}
	if !maps.Equal(got, want) {
		t.Errorf("layer: %v, want %v", got, want)
	}
	if now := labelsOf(own); len(now) != 1 {
		t.Errorf("what was asked for has become %v", now)
	}
	if got := labelsOf(ofLayer(ocispec.MediaTypeImageManifest, d, own)); len(got) != 1 {
		t.Errorf("manifest: %v", got)
	}
	if got := labelsOf(ofLayer(ocispec.MediaTypeImageLayerGzip, d, of("key", "value"))); len(got) != 1 {
		t.Errorf("layer without the digest of what is in it: %v", got)
	}
}

func TestABlobOfAHoldIsKeptByIt(t *testing.T) {
	s := openStores(t, t.TempDir())
	b := blobs{Store: s.Blobs(), layerNames: layerNames{s}}
	if _, err := s.Ledger.Create(content.Namespaced(t.Context()), leases.WithID("other")); err != nil {
		t.Fatal(err) // from now on the ledger knows what is its own
	}
	held, release, err := s.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromString("text")
	for range 2 { // the second time it is there
		w := open(t, held, b, ocispec.Descriptor{})
		if _, err := w.Write([]byte("text")); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(held, 4, d); err != nil && !errdefs.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		if err := s.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Info(content.Namespaced(t.Context()), d); err != nil {
			t.Fatal(err)
		}
	}
	release()
	if _, err := b.Info(content.Namespaced(t.Context()), d); !errdefs.IsNotFound(err) {
		t.Errorf("kept without the hold: %v", err)
	}
}
