package image

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Attestations are manifests in an index that tell of another one there: how it
// was built, what is in it. Their layers are in-toto statements. (Form: BuildKit,
// docs/attestations/attestation-storage.md.)
const (
	attestedAnnotation  = "vnd.docker.reference.digest"
	predicateAnnotation = "in-toto.io/predicate-type"
	statementType       = "application/vnd.in-toto+json"
)

// maxStatement is how large a statement may be, in bytes.
const maxStatement = 64 << 20

// attestation is what one says that is here.
type attestation struct {
	manifest ocispec.Descriptor
	of       digest.Digest // the manifest that it tells of
	conf     ocispec.Descriptor
	layers   []ocispec.Descriptor
}

// blobs are what it consists of.
func (a attestation) blobs() []ocispec.Descriptor {
	return append([]ocispec.Descriptor{a.conf}, a.layers...)
}

// attested returns the attestations of an image that are here. One that can't be
// read is left out: the image is whole without it.
func (s *catalog) attested(ctx context.Context, target ocispec.Descriptor) ([]attestation, error) {
	all, err := s.everyManifest(ctx, target)
	if err != nil {
		return nil, err
	}
	var list []attestation
	for _, m := range all {
		if !isAttestation(m) {
			continue
		}
		data, err := s.store.Read(ctx, m, maxManifest)
		if err != nil {
			continue
		}
		b, err := parseBody(data, m.MediaType)
		if err != nil {
			continue
		}
		list = append(list, attestation{m, digest.Digest(m.Annotations[attestedAnnotation]), *b.Config, b.Layers})
	}
	return list, nil
}

// referAttested notes what the attestations of an image need, as far as it is here.
func (s *maker) referAttested(ctx context.Context, target ocispec.Descriptor) error {
	list, err := s.attested(ctx, target)
	if err != nil {
		return err
	}
	for _, a := range list {
		if err := s.store.Refer(ctx, a.manifest.Digest, "", a.blobs()...); err != nil {
			return err
		}
	}
	return nil
}

// gatherAttested adds to a bundle what is attested of images in it.
func (s *saver) gatherAttested(ctx context.Context, b *bundle, target ocispec.Descriptor) error {
	list, err := s.attested(ctx, target)
	if err != nil {
		return err
	}
	for _, a := range list {
		if _, in := b.blobs[a.of]; !in && a.of != "" {
			continue
		}
		b.blobs[a.manifest.Digest] = a.manifest.Size
		for _, d := range a.blobs() {
			if _, err := s.store.Info(ctx, d.Digest); err == nil {
				b.blobs[d.Digest] = d.Size
			}
		}
	}
	return nil
}

// otherManifests completes what is told of an image's manifests, by the images
// that are here: with its attestations, and with what is not here, in the order
// of its index.
func (s *catalog) otherManifests(ctx context.Context, target ocispec.Descriptor, z *sizes) error {
	all, err := s.everyManifest(ctx, target)
	if err != nil || len(all) == len(z.manifests) {
		return err
	}
	told, err := s.attested(ctx, target)
	if err != nil {
		return err
	}
	here := z.manifests
	z.manifests = nil
	for _, d := range all {
		m := wire.ImageManifest{ID: d.Digest.String(), Descriptor: d, Kind: wire.UnknownManifestKind}
		if i := slices.IndexFunc(here, func(h wire.ImageManifest) bool { return h.ID == m.ID }); i >= 0 {
			m = here[i]
		} else if isAttestation(d) {
			m.Kind, m.AttestationData = wire.AttestationManifestKind, &wire.AttestationProperties{For: digest.Digest(d.Annotations[attestedAnnotation])}
			if i := slices.IndexFunc(told, func(a attestation) bool { return a.manifest.Digest == d.Digest }); i >= 0 {
				s.sizeAttested(ctx, told[i], z, &m)
			}
		} else if d.Platform != nil {
			m.Kind, m.ImageData = wire.ImageManifestKind, &wire.ImageProperties{Platform: *d.Platform}
		}
		z.manifests = append(z.manifests, m)
	}
	return nil
}

// sizeAttested measures what of an attestation is here.
func (s *catalog) sizeAttested(ctx context.Context, a attestation, z *sizes, m *wire.ImageManifest) {
	m.Available = true
	m.Size.Content = a.manifest.Size
	for _, d := range a.blobs() {
		i, err := s.store.Info(ctx, d.Digest)
		if err != nil {
			m.Available = false
			continue
		}
		m.Size.Content += i.Size
	}
	m.Size.Total = m.Size.Content
	z.pieces["attested "+a.manifest.Digest.String()] = m.Size.Content
}

// AttestationOptions says which attestations of an image to return.
type AttestationOptions struct {
	Platform  *ocispec.Platform // of the image that they tell of; nil for this machine's
	Types     []string          // of predicates; empty for all
	Statement bool              // with the statements themselves
}

// Attestations returns what is attested of the image that ref means.
func (s *catalog) Attestations(ctx context.Context, ref string, o AttestationOptions) ([]wire.Attestation, error) {
	q, err := parseQuery(ref)
	if err != nil {
		return nil, err
	}
	g, _, err := s.lookup(ctx, q)
	if err != nil {
		return nil, err
	}
	i, err := s.pick(ctx, g, o.Platform, ref)
	if err != nil {
		return nil, err
	}
	told, err := s.attested(ctx, g.target)
	if err != nil {
		return nil, err
	}
	list := []wire.Attestation{}
	for _, a := range told {
		if a.of != i.Manifest.Digest {
			continue
		}
		for _, d := range a.layers {
			w := wire.Attestation{Descriptor: d, PredicateType: d.Annotations[predicateAnnotation]}
			if d.MediaType != statementType || len(o.Types) > 0 && !slices.Contains(o.Types, w.PredicateType) {
				continue
			}
			if o.Statement {
				data, err := s.store.Read(ctx, d, maxStatement)
				if err != nil {
					return nil, err
				}
				if !json.Valid(data) {
					return nil, errs.New(errs.Corrupt, "attestation %s is not JSON", d.Digest)
				}
				w.Statement = (*json.RawMessage)(&data)
			}
			list = append(list, w)
		}
	}
	return list, nil
}
