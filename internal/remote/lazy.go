package remote

import (
	"context"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/image"
	apiwire "gantry/internal/wire"
)

// A Plan is an image whose manifest and configuration are here.
type Plan struct {
	Target   ocispec.Descriptor // of the name
	Manifest ocispec.Descriptor // that suits the platform
	Config   ocispec.Descriptor
	Layers   []ocispec.Descriptor // lowest first, with their annotations
}

// Plan brings an image's manifest and configuration into the store, and tells what
// else there is to fetch. ctx must be one of the store's Hold.
func (c *Client) Plan(ctx context.Context, o PullOptions) (*Plan, error) {
	s, err := c.open(reference.TagNameOnly(o.Name), o.Auth)
	if err != nil {
		return nil, err
	}
	defer s.close()
	target, err := s.resolve(ctx)
	if err != nil {
		return nil, err
	}
	p := &pull{session: s, o: o}
	manifest, body, err := p.manifest(ctx, target, 0)
	if err != nil {
		return nil, err
	}
	if !image.IsImageConfig(body.Config.MediaType) {
		return nil, errs.New(errs.Invalid, "%s is not an image that can be run: its configuration is %.100q", s.name.String(), body.Config.MediaType)
	}
	if err := c.intake.Reserve(ctx, manifest.Digest, body.Config.Digest); err != nil {
		return nil, err
	}
	if _, err := p.small(ctx, *body.Config, image.MaxConfig); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", s.name.String(), err)
	}
	for _, l := range body.Layers {
		if err := validDigest(l.Digest); err != nil {
			return nil, err
		}
	}
	return &Plan{target, manifest, *body.Config, body.Layers}, nil
}

// Complete unpacks and records the image of a Plan, fetching what is not here yet.
// ctx must be one of the store's Hold.
func (c *Client) Complete(ctx context.Context, o PullOptions, target ocispec.Descriptor) error {
	s, err := c.open(reference.TagNameOnly(o.Name), o.Auth)
	if err != nil {
		return err
	}
	defer s.close()
	t := newTeller(func(apiwire.Progress) {})
	defer t.close()
	p := &pull{session: s, o: o, t: t, bars: map[digest.Digest]*bar{}}
	if err := p.run(ctx, target); err != nil {
		return err
	}
	if _, err := c.record(ctx, s.name, target); err != nil {
		return err
	}
	return c.intake.Forget(context.WithoutCancel(ctx), p.fetched...)
}

// Blobs reads parts of a repository's blobs. It is safe for concurrent use.
type Blobs struct{ s *session }

// Blobs opens a repository. Close must be called.
func (c *Client) Blobs(name reference.Named, a apiwire.RegistryAuth) (*Blobs, error) {
	s, err := c.open(name, a)
	if err != nil {
		return nil, err
	}
	return &Blobs{s}, nil
}

// Close ends the connections.
func (b *Blobs) Close() { b.s.close() }

// ReadAt fills p with the bytes of a blob from off on, from the first endpoint that
// has them. They are not checked.
func (b *Blobs) ReadAt(ctx context.Context, d ocispec.Descriptor, p []byte, off int64) (err error) {
	for host := range b.s.wires {
		if err = b.readFrom(ctx, host, d, p, off); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return translate(err)
}

func (b *Blobs) readFrom(ctx context.Context, host int, d ocispec.Descriptor, p []byte, off int64) error {
	r, _, err := b.s.openAt(ctx, host, d, off, off+int64(len(p))-1)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.ReadFull(r, p)
	return err
}
