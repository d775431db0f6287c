package build

import (
	"context"
	"slices"
	"strings"
	"sync"

	blobstore "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The history of a build tells of the layers of each step. BuildKit gathers them
// from its books, for each step those of all steps below it too. The blobs of a
// result do not change once it has all of them: they are remembered.

// maxDescriptors is how many descriptors of layers are remembered.
const maxDescriptors = 4096

// remembering are the results of the cache, with their layers.
type remembering struct {
	solver.CacheResultStorage
	blobs blobstore.InfoReaderProvider

	mu    sync.Mutex
	known map[string][]ocispec.Descriptor // by the ID of a result
	size  int                             // descriptors in known
}

// LoadRemotes returns the layers of a result. Without c they are for a record of
// them.
func (r *remembering) LoadRemotes(ctx context.Context, res solver.CacheResult, c *compression.Config, g session.Group) ([]*solver.Remote, error) {
	if c != nil {
		return r.CacheResultStorage.LoadRemotes(ctx, res, c, g)
	}
	r.mu.Lock()
	known := r.known[res.ID]
	r.mu.Unlock()
	if len(known) > 0 {
		return []*solver.Remote{{Descriptors: slices.Clone(known), Provider: r.blobs}}, nil
	}
	list, err := r.CacheResultStorage.LoadRemotes(ctx, res, c, g)
	if err == nil && len(list) == 1 && !remote(list[0].Descriptors) {
		r.remember(res.ID, list[0].Descriptors)
	}
	return list, err
}

// remote tells whether a layer is still in a registry alone, which is noted at it
// until it is here. Pure.
func remote(layers []ocispec.Descriptor) bool {
	return slices.ContainsFunc(layers, func(d ocispec.Descriptor) bool {
		for k := range d.Annotations {
			if strings.HasPrefix(k, labels.LabelDistributionSource) {
				return true
			}
		}
		return false
	})
}

func (r *remembering) remember(id string, layers []ocispec.Descriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || r.size+len(layers) > maxDescriptors {
		r.known, r.size = map[string][]ocispec.Descriptor{}, 0
	}
	r.known[id] = slices.Clone(layers)
	r.size += len(layers)
}
