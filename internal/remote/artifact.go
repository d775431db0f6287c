package remote

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/image"
	apiwire "gantry/internal/wire"
)

// ArtifactOptions says what to fetch that is distributed like an image and is
// none: a plugin.
type ArtifactOptions struct {
	Name       reference.Named
	ConfigType string // media type that its configuration must have
	Auth       apiwire.RegistryAuth
}

// An Artifact is one whose manifest and configuration are in the store.
type Artifact struct {
	Target ocispec.Descriptor // its manifest
	Config []byte
	Layers []ocispec.Descriptor
	Blobs  []digest.Digest // all that it consists of, the manifest first
}

// Describe brings an artifact's manifest and configuration into the store. ctx
// must be one of the store's Hold. errs.Invalid if it is something else.
func (c *Client) Describe(ctx context.Context, o ArtifactOptions) (*Artifact, error) {
	s, err := c.open(o.Name, o.Auth)
	if err != nil {
		return nil, err
	}
	defer s.close()
	p := &pull{session: s, o: PullOptions{Name: o.Name}, bars: map[digest.Digest]*bar{}}
	target, err := s.resolve(ctx)
	if err != nil {
		return nil, err
	}
	manifest, body, err := p.manifest(ctx, target, 0)
	if err != nil {
		return nil, err
	}
	if body.Config == nil || body.Config.MediaType != o.ConfigType {
		kind := "nothing"
		if body.Config != nil {
			kind = body.Config.MediaType
		}
		return nil, errs.New(errs.Invalid, "%s is something else: its configuration is %.100q, not %s", o.Name.String(), kind, o.ConfigType)
	}
	a := &Artifact{Target: manifest, Blobs: []digest.Digest{manifest.Digest, body.Config.Digest}}
	for _, l := range body.Layers {
		if err := validDigest(l.Digest); err != nil {
			return nil, err
		}
		a.Layers = append(a.Layers, plain(l))
		a.Blobs = append(a.Blobs, l.Digest)
	}
	if err := c.intake.Reserve(ctx, a.Blobs...); err != nil {
		return nil, err
	}
	if a.Config, err = p.small(ctx, *body.Config, image.MaxConfig); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", o.Name.String(), err)
	}
	return a, nil
}

// Fetch brings the layers of an artifact into the store, packed. tell gets
// Docker's messages of the way there. ctx must be that of Describe.
func (c *Client) Fetch(ctx context.Context, o ArtifactOptions, a *Artifact, tell func(apiwire.Progress)) error {
	t := newTeller(tell)
	defer t.close()
	s, err := c.open(o.Name, o.Auth)
	if err != nil {
		return err
	}
	defer s.close()
	p := &pull{session: s, o: PullOptions{Name: o.Name}, t: t, bars: map[digest.Digest]*bar{}}
	t.say(tagOrDigest(o.Name), "Pulling from "+reference.Path(o.Name))
	for _, l := range a.Layers {
		p.bars[l.Digest] = &bar{id: short(l.Digest), d: l}
	}
	defer every(ctx, tick, p.tellBars)()
	for _, l := range a.Layers {
		if err := p.blob(ctx, l); err != nil {
			if content.Full(err) {
				return fmt.Errorf("the disk of the images is full: %w", err)
			}
			return err
		}
		b := p.bars[l.Digest]
		b.set(barDone)
		t.step(b.id, "Download complete", apiwire.ProgressDetail{HideCounts: true})
		if err := p.source(ctx, l.Digest); err != nil {
			return err
		}
	}
	if err := c.intake.Forget(context.WithoutCancel(ctx), a.Blobs...); err != nil {
		c.Log.Warn("parts of a pull were not forgotten", "name", o.Name.String(), "err", err)
	}
	t.say("", "Digest: "+a.Target.Digest.String())
	return nil
}
