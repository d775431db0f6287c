package build

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
)

// A build that changes nothing makes the image that is there already, but for
// what its provenance says of when it ran: that would be another index for each
// build, and the one before would be left without a name. So an image that
// differs from one that is here in nothing else is that one.

// A kept is the image that stands for the one that was built; ok says so.
type kept struct {
	asked, ok bool
	target    ocispec.Descriptor
}

type keptKey struct{}

// instead returns what to record for target under a name: an image that is here, if
// there is one that is the same, that of the name before others. All names of a
// build get what the first one gets.
func instead(ctx context.Context, here imageStore, name string, target ocispec.Descriptor) ocispec.Descriptor {
	k, ok := ctx.Value(keptKey{}).(*kept)
	if !ok || !images.IsIndexType(target.MediaType) {
		return target
	}
	find := func(list ...images.Image) {
		for _, i := range list {
			if !k.ok && i.Target.Digest != target.Digest && images.IsIndexType(i.Target.MediaType) && same(ctx, here.stores, i.Target, target) {
				k.ok, k.target = true, i.Target
			}
		}
	}
	if !k.asked {
		k.asked = true
		if was, err := here.Get(ctx, name); err == nil {
			find(was)
		}
		if all, err := here.List(ctx); err == nil && !k.ok { // else recording it will say why
			find(all...)
		}
	}
	if k.ok {
		return k.target
	}
	return target
}

// answer corrects what an export answers.
func (k *kept) answer(resp map[string]string) {
	if !k.ok {
		return
	}
	desc, err := json.Marshal(ocispec.Descriptor{MediaType: k.target.MediaType, Digest: k.target.Digest, Size: k.target.Size})
	if err != nil {
		return
	}
	resp[exptypes.ExporterImageDigestKey] = k.target.Digest.String()
	resp[exptypes.ExporterImageDescriptorKey] = base64.StdEncoding.EncodeToString(desc)
	if strings.HasPrefix(resp[exptypes.ExporterImageNameKey], danglingPrefix+"@") {
		resp[exptypes.ExporterImageNameKey] = danglingPrefix + "@" + k.target.Digest.String()
	}
}

// keptReference is what the history of builds knows a kept image by.
type keptReference struct {
	exporter.DescriptorReference
	target ocispec.Descriptor
}

// Descriptor is that of the image.
func (r keptReference) Descriptor() ocispec.Descriptor { return r.target }

// Bounds of what is read to compare images, in bytes.
const (
	maxIndex     = 4 << 20
	maxStatement = 16 << 20
)

// same says whether two indexes have the same images, of which the same is
// attested at another time.
func same(ctx context.Context, s *content.Store, a, b ocispec.Descriptor) bool {
	var ia, ib ocispec.Index
	if !read(ctx, s, a, maxIndex, &ia) || !read(ctx, s, b, maxIndex, &ib) || len(ia.Manifests) != len(ib.Manifests) || len(ia.Manifests) == 0 {
		return false
	}
	for n, ma := range ia.Manifests {
		mb := ib.Manifests[n]
		switch {
		case !reflect.DeepEqual(ma.Platform, mb.Platform):
			return false
		case ma.Digest == mb.Digest:
		case ma.Annotations[attestationType] != attestation || mb.Annotations[attestationType] != attestation || !sameAttested(ctx, s, ma, mb):
			return false
		}
	}
	return true
}

// How an index marks a manifest that tells of another one. Source: BuildKit,
// docs/attestations/attestation-storage.md.
const (
	attestationType = "vnd.docker.reference.type"
	attestation     = "attestation-manifest"
	predicateType   = "in-toto.io/predicate-type"
	sbomPrefix      = "https://spdx.dev/"
)

// sameAttested compares attestations.
func sameAttested(ctx context.Context, s *content.Store, a, b ocispec.Descriptor) bool {
	var ma, mb ocispec.Manifest
	if !read(ctx, s, a, maxIndex, &ma) || !read(ctx, s, b, maxIndex, &mb) || len(ma.Layers) != len(mb.Layers) {
		return false
	}
	for n, la := range ma.Layers {
		lb := mb.Layers[n]
		kind := la.Annotations[predicateType]
		if kind != lb.Annotations[predicateType] {
			return false
		}
		// What is in an image that is the same is the same.
		if la.Digest == lb.Digest || strings.HasPrefix(kind, sbomPrefix) {
			continue
		}
		var sa, sb any
		if !read(ctx, s, la, maxStatement, &sa) || !read(ctx, s, lb, maxStatement, &sb) || !reflect.DeepEqual(timeless(sa), timeless(sb)) {
			return false
		}
	}
	return true
}

// timeless takes out of a statement what names one run of a build; the mapped
// digests are those of operations, which name the session. Source: SLSA provenance
// 0.2 and 1, with BuildKit's additions.
func timeless(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range []string{"buildInvocationID", "buildInvocationId", "buildStartedOn", "buildFinishedOn", "invocationId", "invocationID", "startedOn", "finishedOn", "digestMapping"} {
			delete(v, key)
		}
		for k, e := range v {
			v[k] = timeless(e)
		}
	case []any:
		for i, e := range v {
			v[i] = timeless(e)
		}
	}
	return v
}

// read reads a document. What can't be read is like nothing.
func read(ctx context.Context, s *content.Store, d ocispec.Descriptor, limit int64, into any) bool {
	data, err := drafted(ctx, s, d, limit)
	return err == nil && json.Unmarshal(data, into) == nil
}
