package image

import (
	"context"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// What the exchange of images with registries needs: to read manifests before
// the image is here, to record it when it is, and to find what a name means.

// Limits that a registry is told of by a refusal.
const (
	MaxManifest = maxManifest // bytes of an index or manifest
	MaxConfig   = maxConfig   // bytes of a configuration
	MaxDepth    = maxDepth    // of indexes in indexes
	MaxIndexes  = maxIndexes  // of indexes that one image leads through

	MaxStatement = maxStatement // bytes of a part of an attestation
)

// Contents is what an index (Manifests) or a manifest (Config, Layers) names.
type Contents struct {
	Config    *ocispec.Descriptor
	Layers    []ocispec.Descriptor
	Manifests []ocispec.Descriptor
}

// ReadContents reads an index or manifest whose descriptor says mediaType.
// errs.Invalid if it is not that, could be read in two ways, or names too much.
func ReadContents(data []byte, mediaType string) (Contents, error) {
	b, err := parseBody(data, mediaType)
	if err != nil {
		return Contents{}, err
	}
	return Contents{b.Config, b.Layers, b.Manifests}, nil
}

// ReadConfig reads the configuration of an image with so many layers: their
// digests when unpacked, and the platform it is for.
func ReadConfig(data []byte, layers int) ([]digest.Digest, ocispec.Platform, error) {
	c, err := parseConfig(data, layers)
	return c.RootFS.DiffIDs, c.Platform, err
}

// IsIndex reports whether a media type is that of an index.
func IsIndex(mediaType string) bool { return isIndex(mediaType) }

// IsManifest reports whether a media type is that of a manifest.
func IsManifest(mediaType string) bool { return isManifest(mediaType) }

// IsImageConfig reports whether a configuration of this media type is that of an
// image, not of something else that is distributed like one.
func IsImageConfig(mediaType string) bool { return isImageConfig(mediaType) }

// IsAttestation reports whether a manifest in an index tells of another one
// instead of being an image.
func IsAttestation(d ocispec.Descriptor) bool { return isAttestation(d) }

// AttestedOf returns the manifest that an attestation in an index tells of; empty
// for other manifests.
func AttestedOf(d ocispec.Descriptor) digest.Digest {
	if !isAttestation(d) {
		return ""
	}
	return digest.Digest(d.Annotations[attestedAnnotation])
}

// Best returns the index in list of the manifest that suits platform want best;
// nil is this machine's. Those that do not say what they are for come last.
// False if none does.
func Best(list []ocispec.Descriptor, want *ocispec.Platform) (int, bool) {
	if want == nil {
		h := host()
		want = &h
	}
	m := platforms.Only(*want)
	best := -1
	for i, d := range list {
		if isAttestation(d) || !isManifest(d.MediaType) && !isIndex(d.MediaType) {
			continue
		}
		switch {
		case d.Platform == nil:
			if best < 0 {
				best = i
			}
		case m.Match(platforms.Normalize(*d.Platform)):
			if best < 0 || list[best].Platform == nil || m.Less(platforms.Normalize(*d.Platform), platforms.Normalize(*list[best].Platform)) {
				best = i
			}
		}
	}
	return best, best >= 0
}

// Suits reports whether an image for have runs where want is wanted; nil is this
// machine.
func Suits(want *ocispec.Platform, have ocispec.Platform) bool {
	if want == nil {
		h := host()
		want = &h
	}
	return matches(*want, have)
}

// FormatPlatform is how texts call a platform; nil is this machine's.
func FormatPlatform(p *ocispec.Platform) string {
	if p == nil {
		h := host()
		p = &h
	}
	return platforms.Format(*p)
}

// Receive records an image that was fetched, under its full name: with a tag or
// a digest. What it needs is noted, so that it stays, as far as it is here; at
// least one manifest must be. It tells whether the name meant another image
// before, or none. ctx must be one of the store's Hold.
func (s *Images) Receive(ctx context.Context, name string, target ocispec.Descriptor) (news bool, err error) {
	err = s.store.Ledger.Atomic(ctx, func(ctx context.Context) error { return s.note(ctx, target) })
	if err != nil {
		return false, err
	}
	old, err := s.store.Images().Get(content.Namespaced(ctx), name)
	news = err != nil || old.Target.Digest != target.Digest
	if err := s.setName(ctx, name, target); err != nil {
		return news, err
	}
	return news, nil
}

// note notes what an image needs, as far as it is here; at least one manifest must
// be.
func (s *maker) note(ctx context.Context, target ocispec.Descriptor) error {
	if err := s.referIndexes(ctx, target, 0); err != nil {
		return err
	}
	if err := s.referAttested(ctx, target); err != nil {
		return err
	}
	list, err := s.manifests(ctx, target)
	if err != nil {
		return err
	}
	n := 0
	for _, m := range list {
		c, err := s.read(ctx, m)
		if errs.Is(err, errs.NotFound) {
			continue
		} else if err != nil {
			return err
		}
		if err := s.referManifest(ctx, c); err != nil {
			// Of another platform, by an earlier pull that was not completed.
			if len(list) > 1 && errs.Is(err, errs.Invalid) {
				continue
			}
			return err
		}
		n++
	}
	if n == 0 {
		return errs.New(errs.Corrupt, "image %s is not here", target.Digest)
	}
	return nil
}

// Moved tells that an image was pulled or pushed. name is its full name.
func (s *Images) Moved(action, name string) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return
	}
	s.events.Publish(wire.Event{
		Type: "image", Action: wire.EventAction(action),
		Actor: wire.EventActor{ID: reference.FamiliarString(ref), Attributes: map[string]string{"name": reference.FamiliarName(ref)}},
	})
}

// Tags returns what the tags of a repository mean, by tag; repository is a full
// name without one. Names by digest are not among them.
func (s *Images) Tags(ctx context.Context, repository string) (map[string]ocispec.Descriptor, error) {
	groups, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]ocispec.Descriptor{}
	for _, g := range groups {
		for _, r := range g.records {
			tag, ok := strings.CutPrefix(r.Name, repository+":")
			if ok && !strings.ContainsAny(tag, "/:@") {
				out[tag] = r.Target
			}
		}
	}
	return out, nil
}

// Builds add what was built to the images.
type Builds struct{ *Images }

// Built records an image that a build has made, as Receive does; without a name
// it is a dangling one. ctx must be one that keeps what it consists of.
func (s Builds) Built(ctx context.Context, name string, target ocispec.Descriptor) error {
	target = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	news, err := s.Receive(ctx, name, target)
	if err != nil || !news {
		return err
	}
	s.publish("create", target.Digest, target.Digest.String())
	if name != "" {
		s.publish("tag", target.Digest, familiar(name))
	}
	return nil
}
