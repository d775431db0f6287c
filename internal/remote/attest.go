package remote

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/image"
)

// maxAttestations is how many attestations of one manifest are fetched.
const maxAttestations = 16

// attestationsOf returns what in an index is attested of one of its manifests. Pure.
func attestationsOf(list []ocispec.Descriptor, of ocispec.Descriptor) []ocispec.Descriptor {
	var told []ocispec.Descriptor
	for _, d := range list {
		if image.AttestedOf(d) == of.Digest && image.IsManifest(d.MediaType) && len(told) < maxAttestations {
			told = append(told, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
		}
	}
	return told
}

// attestations brings what is attested of the image into the store. What the
// registry does not have, or is not what it shall be, is left out: the image is
// whole without it.
func (p *pull) attestations(ctx context.Context) error {
	for _, d := range p.told {
		err := p.attestation(ctx, d)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !content.Full(err) && (errs.Is(err, errs.NotFound) || errs.Is(err, errs.Invalid)):
			p.c.Log.Warn("an attestation is left out", "image", p.name.String(), "digest", d.Digest.String(), "err", err)
		default:
			return fmt.Errorf("attestation of %s: %w", p.name.String(), err)
		}
	}
	return nil
}

func (p *pull) attestation(ctx context.Context, d ocispec.Descriptor) error {
	if err := p.c.intake.Reserve(ctx, d.Digest); err != nil {
		return err
	}
	data, err := p.small(ctx, d, image.MaxManifest)
	if err != nil {
		return err
	}
	body, err := image.ReadContents(data, d.MediaType)
	if err != nil {
		return err
	}
	for _, l := range append(body.Layers, *body.Config) {
		if err := validDigest(l.Digest); err != nil {
			return err
		}
		if l.Size > image.MaxStatement {
			return errs.New(errs.Invalid, "%s has %d bytes, more than %d", l.Digest, l.Size, int64(image.MaxStatement))
		}
		if err := p.c.intake.Reserve(ctx, l.Digest); err != nil {
			return err
		}
		p.fetched = append(p.fetched, l.Digest)
		if err := p.blob(ctx, plain(l)); err != nil {
			return err
		}
	}
	return nil
}
