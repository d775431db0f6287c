package remote

import (
	"context"
	"errors"
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
	p.finish(ctx, target)
	return nil
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

// Open returns n bytes of a blob from off on, of the first endpoint that has them.
// They are not checked. An endpoint that ends before is not asked again if there is
// another one.
func (b *Blobs) Open(ctx context.Context, d ocispec.Descriptor, off, n int64) (r io.ReadCloser, err error) {
	for host, w := range b.s.wires {
		if w.bad.Load() && host < len(b.s.wires)-1 {
			continue
		}
		if r, _, err = b.s.openAt(ctx, host, d, off, off+n-1); err == nil {
			return &kept{r, w}, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return nil, translate(err)
}

// kept is an answer whose endpoint is remembered if it does not come to its end.
type kept struct {
	io.ReadCloser
	w *wire
}

func (k *kept) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		k.w.bad.Store(true)
	}
	return n, err
}
