package content

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a blob needs is noted once, and again when it is something else.
func TestRefer(t *testing.T) {
	s, err := Open(t.Context(), Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	ctx := Namespaced(t.Context())
	d, err := s.Write(ctx, strings.NewReader("manifest"), "")
	if err != nil {
		t.Fatal(err)
	}
	layer := func(text string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(text)}
	}
	chain := digest.FromString("chain")
	var changes int
	last, err := s.Blobs().Info(ctx, d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		chain    digest.Digest
		children []ocispec.Descriptor
		changes  int
	}{
		{"", []ocispec.Descriptor{layer("a")}, 1},
		{"", []ocispec.Descriptor{layer("a")}, 1},
		{"", []ocispec.Descriptor{layer("b")}, 2},
		{"", []ocispec.Descriptor{layer("b"), layer("a")}, 3},
		{chain, []ocispec.Descriptor{layer("b")}, 4},
		{chain, []ocispec.Descriptor{layer("b"), layer("a")}, 4},
	} {
		if err := s.Refer(ctx, d.Digest, tt.chain, tt.children...); err != nil {
			t.Fatal(err)
		}
		i, err := s.Blobs().Info(ctx, d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if !i.UpdatedAt.Equal(last.UpdatedAt) {
			changes++
		}
		if last = i; changes != tt.changes {
			t.Errorf("%d changes after %v, want %d", changes, tt.children, tt.changes)
		}
		for n, c := range tt.children {
			if !strings.Contains(strings.Join(values(i.Labels), " "), c.Digest.String()) {
				t.Errorf("child %d is not noted in %v", n, i.Labels)
			}
		}
	}
	if err := s.Refer(ctx, digest.FromString("absent"), "", layer("a")); err == nil {
		t.Error("noted at what is not there")
	}
}

func values(m map[string]string) (list []string) {
	for _, v := range m {
		list = append(list, v)
	}
	return list
}
