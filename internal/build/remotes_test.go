package build

import (
	"context"
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// counted counts what it is asked for; a result has the layers of its name.
type counted struct {
	solver.CacheResultStorage
	asked  int
	layers map[string][]ocispec.Descriptor
}

func (c *counted) LoadRemotes(_ context.Context, res solver.CacheResult, _ *compression.Config, _ session.Group) ([]*solver.Remote, error) {
	c.asked++
	if l := c.layers[res.ID]; l != nil {
		return []*solver.Remote{{Descriptors: l}}, nil
	}
	return nil, nil
}

// Layers are remembered once they are whole and here, and only for records.
func TestRemembering(t *testing.T) {
	one := ocispec.Descriptor{Digest: digest.FromString("one")}
	far := ocispec.Descriptor{Digest: digest.FromString("far"), Annotations: map[string]string{labels.LabelDistributionSource + ".example": "x"}}
	c := &counted{layers: map[string][]ocispec.Descriptor{"here": {one, one}, "far": {one, far}}}
	r := &remembering{CacheResultStorage: c}
	for _, tt := range []struct {
		id    string
		c     *compression.Config
		asked int
		n     int
	}{
		{"none", nil, 1, 0}, {"none", nil, 1, 0},
		{"here", nil, 1, 2}, {"here", nil, 0, 2},
		{"here", &compression.Config{}, 1, 2},
		{"far", nil, 1, 2}, {"far", nil, 1, 2},
	} {
		before := c.asked
		list, err := r.LoadRemotes(t.Context(), solver.CacheResult{ID: tt.id}, tt.c, nil)
		n := 0
		for _, l := range list {
			n += len(l.Descriptors)
			l.Descriptors[0] = far // it is the caller's
		}
		if err != nil || n != tt.n || c.asked-before != tt.asked {
			t.Errorf("%s: %d layers, asked %d times (%v)", tt.id, n, c.asked-before, err)
		}
		c.layers["here"][0], c.layers["far"][0] = one, one
	}
	for i := range maxDescriptors {
		id := fmt.Sprint(i)
		c.layers[id] = []ocispec.Descriptor{one}
		if _, err := r.LoadRemotes(t.Context(), solver.CacheResult{ID: id}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if r.size > maxDescriptors || len(r.known) > maxDescriptors {
		t.Errorf("%d are remembered", r.size)
	}
}
