package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/image"
	apiwire "gantry/internal/wire"
)

// PullOptions says what to pull.
type PullOptions struct {
	Name     reference.Named
	All      bool              // every tag of the repository
	Platform *ocispec.Platform // nil: this machine's
	Auth     apiwire.RegistryAuth
}

// Pull fetches an image and records it under its name. tell gets Docker's
// messages of the way there. What has arrived before an error or the end of ctx
// is kept for a day, and another Pull goes on from there.
func (c *Client) Pull(ctx context.Context, o PullOptions, tell func(apiwire.Progress)) error {
	t := newTeller(tell)
	defer t.close()
	if !o.All {
		o.Name = reference.TagNameOnly(o.Name)
		return c.pullOne(ctx, o, t)
	}
	s, err := c.open(o.Name, o.Auth)
	if err != nil {
		return err
	}
	tags, err := s.tags(ctx)
	s.close()
	if err != nil {
		return err
	}
	for _, tag := range tags {
		n, err := reference.WithTag(reference.TrimNamed(o.Name), tag)
		if err != nil {
			return errs.With(errs.Invalid, err)
		}
		o.Name = n
		if err := c.pullOne(ctx, o, t); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) pullOne(ctx context.Context, o PullOptions, t *teller) error {
	s, err := c.open(o.Name, o.Auth)
	if err != nil {
		return err
	}
	defer s.close()
	target, err := s.resolve(ctx)
	if err != nil {
		return err
	}
	t.say(tagOrDigest(o.Name), "Pulling from "+reference.Path(o.Name))
	held, release, err := c.Content.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	p := &pull{session: s, o: o, t: t, bars: map[digest.Digest]*bar{}}
	if err := p.run(held, target); err != nil {
		if content.Full(err) {
			// To keep what has arrived would keep the disk full.
			err = errors.Join(fmt.Errorf("the disk of the images is full, and nothing of %s is kept: %w", reference.FamiliarString(o.Name), err), c.intake.Forget(context.WithoutCancel(ctx), p.fetched...))
		}
		return err
	}
	news, err := c.record(held, o.Name, target)
	if err != nil {
		return err
	}
	p.finish(held, target)
	status := "Image is up to date for "
	if news {
		status = "Downloaded newer image for "
	}
	t.say("", "Digest: "+target.Digest.String())
	t.say("", "Status: "+status+reference.FamiliarString(o.Name))
	c.Names.Moved("pull", o.Name.String())
	return nil
}

// finish notes where an image that is recorded came from, and lets go of what fetches
// keep.
func (p *pull) finish(ctx context.Context, target ocispec.Descriptor) {
	if err := p.c.intake.AddOrigin(ctx, target.Digest, originOf(p.name), p.fetched...); err != nil {
		p.c.Log.Warn("where an image came from was not noted", "image", p.name.String(), "err", err)
	}
	if err := p.c.intake.Forget(context.WithoutCancel(ctx), p.fetched...); err != nil {
		p.c.Log.Warn("parts of a pull were not forgotten", "image", p.name.String(), "err", err)
	}
}

func originOf(name reference.Named) content.Origin {
	return content.Origin{Name: name.Name(), Host: hostName(reference.Domain(name)), Path: reference.Path(name)}
}

// record gives the image its name. One that was asked for by its digest has only
// that: what its tag means, nobody was asked.
func (c *Client) record(ctx context.Context, name reference.Named, target ocispec.Descriptor) (bool, error) {
	if d, ok := name.(reference.Digested); ok {
		n, err := withDigest(reference.TrimNamed(name), d.Digest())
		if err != nil {
			return false, err
		}
		name = n
	}
	return c.Names.Receive(ctx, name.String(), target)
}

func tagOrDigest(name reference.Named) string {
	if d, ok := name.(reference.Digested); ok {
		return d.Digest().String()
	}
	if t, ok := name.(reference.Tagged); ok {
		return t.Tag()
	}
	return name.String()
}

// A pull is one image on its way.
type pull struct {
	*session
	o       PullOptions
	t       *teller
	fetched []digest.Digest // that fetches keep until the image is recorded
	indexes int
	told    []ocispec.Descriptor // attestations of the manifest
	bars    map[digest.Digest]*bar
}

// run brings everything that the image needs into the store, unpacked.
func (p *pull) run(ctx context.Context, target ocispec.Descriptor) error {
	manifest, body, err := p.manifest(ctx, target, 0)
	if err != nil {
		return err
	}
	if !image.IsImageConfig(body.Config.MediaType) {
		return errs.New(errs.Invalid, "%s is not an image that can be run: its configuration is %.100q", p.name.String(), body.Config.MediaType)
	}
	if err := p.c.intake.Reserve(ctx, manifest.Digest, body.Config.Digest); err != nil {
		return err
	}
	config, err := p.small(ctx, *body.Config, image.MaxConfig)
	if err != nil {
		return fmt.Errorf("configuration of %s: %w", p.name.String(), err)
	}
	ids, platform, err := image.ReadConfig(config, len(body.Layers))
	if err != nil {
		return err
	}
	if p.o.Platform != nil && platform.Architecture != "" && !image.Suits(p.o.Platform, platform) {
		return errs.New(errs.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", reference.FamiliarString(p.name), image.FormatPlatform(p.o.Platform))
	}
	layers := make([]content.Layer, len(ids))
	for i, l := range body.Layers {
		if err := validDigest(l.Digest); err != nil {
			return err
		}
		layers[i] = content.Layer{Blob: ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}, DiffID: ids[i]}
	}
	if err := p.layers(ctx, layers); err != nil {
		return err
	}
	return p.attestations(ctx)
}

// manifest fetches target, and if it is an index what suits the platform, into
// the store. It returns the manifest and what it says.
func (p *pull) manifest(ctx context.Context, d ocispec.Descriptor, depth int) (ocispec.Descriptor, image.Contents, error) {
	var none image.Contents
	if err := p.c.intake.Reserve(ctx, d.Digest); err != nil {
		return d, none, err
	}
	data, err := p.small(ctx, d, image.MaxManifest)
	if err != nil {
		return d, none, fmt.Errorf("manifest of %s: %w", p.name.String(), err)
	}
	body, err := image.ReadContents(data, d.MediaType)
	if err != nil {
		return d, none, err
	}
	if !image.IsIndex(d.MediaType) {
		return d, body, nil
	}
	if p.indexes++; depth >= image.MaxDepth || p.indexes > image.MaxIndexes {
		return d, none, errs.New(errs.Invalid, "%s: indexes lead to indexes more than %d times", p.name.String(), image.MaxDepth)
	}
	i, ok := image.Best(body.Manifests, p.o.Platform)
	if !ok {
		return d, none, errs.New(errs.NotFound, "no matching manifest for %s in the manifest list entries: no match for platform in manifest: not found", image.FormatPlatform(p.o.Platform))
	}
	m := body.Manifests[i]
	p.told = attestationsOf(body.Manifests, m)
	return p.manifest(ctx, ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}, depth+1)
}

// small returns a manifest or configuration: from the store, or else from a
// registry into the store.
func (p *pull) small(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := validDigest(d.Digest); err != nil {
		return nil, err
	}
	data, err := p.c.Content.Read(ctx, d, limit)
	if !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Corrupt) {
		return data, err
	}
	if data, err = p.text(ctx, d, limit); err != nil {
		return nil, translate(err)
	}
	_, err = p.c.Content.Write(ctx, bytes.NewReader(data), d.Digest)
	return data, err
}

// layers fetches layers beside each other, unpacks each as soon as it is there,
// and puts it in place when those below it are.
func (p *pull) layers(ctx context.Context, layers []content.Layer) error {
	var list []digest.Digest
	for _, l := range layers {
		list = append(list, l.Blob.Digest)
	}
	if err := p.c.intake.Reserve(ctx, list...); err != nil {
		return err
	}
	todo := p.present(ctx, layers)
	if err := p.c.intake.Expect(ctx, list[todo:]...); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := every(ctx, tick, p.tellBars)
	var wg sync.WaitGroup
	defer func() { cancel(nil); wg.Wait(); stop() }()
	ready := map[digest.Digest]chan struct{}{}
	for i := todo; i < len(layers); i++ {
		d := layers[i].Blob
		if ready[d.Digest] != nil {
			continue
		}
		done := make(chan struct{})
		ready[d.Digest] = done
		p.fetched = append(p.fetched, d.Digest)
		wg.Go(func() {
			if err := p.blob(ctx, d); err != nil {
				cancel(err)
				return
			}
			p.bars[d.Digest].set(barFetched)
			p.tellBars()
			p.bars[d.Digest].set(barUnpacking)
			if err := p.c.Content.Stage(ctx, layers[:i+1]); err != nil {
				cancel(err)
				return
			}
			close(done)
		})
	}
	for i := todo; i < len(layers); i++ {
		select {
		case <-ready[layers[i].Blob.Digest]:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := p.unpack(ctx, layers[:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// present tells of all layers, and returns how many of the lowest are unpacked
// already, with their blobs.
func (p *pull) present(ctx context.Context, layers []content.Layer) int {
	todo := 0
	for i, l := range layers {
		_, err := p.c.Content.Dirs(ctx, content.Chain(layers, i+1))
		have, herr := p.have(ctx, l.Blob)
		if err != nil || !have || herr != nil {
			break
		}
		todo = i + 1
	}
	for i, l := range layers {
		if p.bars[l.Blob.Digest] != nil {
			continue
		}
		b := &bar{id: short(l.Blob.Digest), d: l.Blob}
		p.bars[l.Blob.Digest] = b
		if i < todo {
			b.set(barDone)
			p.t.step(b.id, "Already exists", apiwire.ProgressDetail{})
			continue
		}
		p.t.step(b.id, "Pulling fs layer", apiwire.ProgressDetail{})
	}
	return todo
}

// source notes where a blob came from.
func (p *pull) source(ctx context.Context, d digest.Digest) error {
	return p.c.intake.AddSource(ctx, d, hostName(reference.Domain(p.name)), reference.Path(p.name))
}

// unpack puts the last of layers in place, over those below it.
func (p *pull) unpack(ctx context.Context, layers []content.Layer) error {
	b := p.bars[layers[len(layers)-1].Blob.Digest]
	if err := p.c.Content.Unpack(ctx, layers); err != nil {
		if c := context.Cause(ctx); c != nil && errors.Is(err, context.Canceled) {
			return c
		}
		return err
	}
	b.set(barDone)
	p.t.step(b.id, "Pull complete", apiwire.ProgressDetail{})
	return nil
}

// A bar is what is told of a layer.
type bar struct {
	id string
	d  ocispec.Descriptor

	mu    sync.Mutex
	phase int
	since time.Time // of the phase
}

// Phases of a bar.
const (
	barFetching = iota
	barFetched
	barUnpacking
	barDone
)

func (b *bar) set(phase int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.phase, b.since = max(phase, b.phase), time.Now()
}

// tellBars tells how far the layers are.
func (p *pull) tellBars() {
	for _, b := range p.bars {
		b.mu.Lock()
		phase, since := b.phase, b.since
		b.mu.Unlock()
		switch phase {
		case barFetched:
			p.t.step(b.id, "Download complete", apiwire.ProgressDetail{HideCounts: true})
		case barUnpacking:
			p.t.step(b.id, "Extracting", apiwire.ProgressDetail{Current: int64(time.Since(since).Seconds()) + 1, Units: "s"})
		case barFetching:
			p.tellFetch(b)
		}
	}
}

func (p *pull) tellFetch(b *bar) {
	f := p.c.board.peek(b.d.Digest)
	if f == nil {
		return
	}
	switch f.state.Load() {
	case phaseWaiting:
		p.t.step(b.id, "Waiting", apiwire.ProgressDetail{})
	case phaseFetching:
		p.t.step(b.id, "Downloading", apiwire.ProgressDetail{Current: f.done.Load(), Total: b.d.Size})
	case phaseVerifying:
		p.t.step(b.id, "Verifying Checksum", apiwire.ProgressDetail{})
	}
}
