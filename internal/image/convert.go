package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/layer"
	"gantry/internal/wire"
)

// ConvertOptions say what to convert.
type ConvertOptions struct {
	From string
	To   string // name of the new image, with or without a tag
	// Platforms are what of the image is converted, each as os/arch, or "all" for
	// everything that is here. None: this machine's, or any.
	Platforms []string
	// Done reports whether a layer is in the form, and Pack packs a plain tar with
	// gzip so that it is: it returns the digest of the new layer unpacked, and its
	// annotations.
	Done func(l ocispec.Descriptor) bool
	Pack func(w io.Writer, tar io.Reader) (diffID digest.Digest, annotations map[string]string, err error)
}

// allPlatforms means what is here of an image.
const allPlatforms = "all"

// A conversion is one run of Convert.
type conversion struct {
	*maker
	o    ConvertOptions
	tell func(wire.Progress)
	made map[digest.Digest]content.Layer // by the blob that it is made of
	done wire.ImageConverted
}

// Convert makes an image of the same files whose layers are in another form. Those
// that are already stay. It is an index if several platforms are asked for and here,
// and has no attestations: what they tell of are other manifests. tell gets how far it
// is, in Docker's messages. The end of ctx leaves nothing.
func (s *Tools) Convert(ctx context.Context, o ConvertOptions, tell func(wire.Progress)) (wire.ImageConverted, error) {
	var none wire.ImageConverted
	name, err := newName(o.To, "")
	if err != nil {
		return none, err
	}
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return none, err
	}
	defer release()
	list, err := s.toConvert(held, o)
	if err != nil {
		return none, err
	}
	c := &conversion{maker: s.maker, o: o, tell: tell, made: map[digest.Digest]content.Layer{}}
	target, err := c.convert(held, list)
	if err != nil {
		return none, noRoom(err)
	}
	if err := s.setName(held, name, target); err != nil {
		return none, err
	}
	s.publish("create", target.Digest, target.Digest.String())
	s.publish("tag", target.Digest, familiar(name))
	c.done.ID, c.done.Name = target.Digest.String(), familiar(name)
	return c.done, nil
}

// toConvert returns what of an image is converted. It stays as long as the hold.
func (s *Tools) toConvert(ctx context.Context, o ConvertOptions) ([]*parts, error) {
	q, err := parseQuery(o.From)
	if err != nil {
		return nil, err
	}
	g, _, err := s.lookup(ctx, q)
	if err != nil {
		return nil, err
	}
	var list []*parts
	if slices.Contains(o.Platforms, allPlatforms) {
		if list, err = s.present(ctx, g.target); err != nil {
			return nil, err
		}
	}
	var want []*ocispec.Platform
	for _, text := range o.Platforms {
		if text == allPlatforms {
			continue
		}
		p, err := ParsePlatform(text)
		if err != nil {
			return nil, err
		}
		want = append(want, p)
	}
	if len(o.Platforms) == 0 {
		want = append(want, nil)
	}
	for _, p := range want {
		i, err := s.pick(ctx, g, p, q.named)
		if err != nil {
			return nil, err
		}
		c, err := s.read(ctx, i.Manifest)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(list, func(l *parts) bool { return l.manifest.Digest == c.manifest.Digest }) {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil, errs.New(errs.NotFound, "image %s: %w", q.named, errNoManifest)
	}
	for _, c := range list {
		if err := s.store.Keep(ctx, c.manifest.Digest); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// convert makes manifests of the same files, and an index if there are several.
func (c *conversion) convert(ctx context.Context, list []*parts) (ocispec.Descriptor, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, p := range list {
		layers := make([]content.Layer, len(p.layers))
		for n, l := range p.layers {
			var err error
			if layers[n], err = c.layer(ctx, l); err != nil {
				return ocispec.Descriptor{}, fmt.Errorf("convert layer %d of %s for %s: %w", n, c.o.From, platforms.Format(p.platform), err)
			}
		}
		m, err := c.describe(ctx, p.config, layers)
		if err != nil {
			return m, err
		}
		m.Platform = &p.platform
		index.Manifests = append(index.Manifests, m)
		c.done.Platforms = append(c.done.Platforms, platforms.Format(p.platform))
	}
	target := index.Manifests[0]
	target.Platform = nil
	if len(list) > 1 {
		data, err := json.Marshal(index)
		if err != nil {
			return target, err
		}
		if target, err = c.store.Write(ctx, bytes.NewReader(data), ""); err != nil {
			return target, err
		}
		target.MediaType = index.MediaType
	}
	return target, c.complete(ctx, target, nil)
}

// layer returns a layer in the form of the conversion, made if need be.
func (c *conversion) layer(ctx context.Context, l content.Layer) (content.Layer, error) {
	if made, ok := c.made[l.Blob.Digest]; ok {
		return made, nil
	}
	made := l
	id, status := short(l.Blob.Digest), "Has the form"
	if !c.o.Done(l.Blob) {
		var err error
		if made, err = c.repack(ctx, l, c.o, c.meter(id, l.Blob.Size)); err != nil {
			return l, err
		}
		c.done.Converted++
		status = "Converted"
	}
	c.tell(wire.Progress{ID: id, Status: status})
	c.made[l.Blob.Digest] = made
	c.done.Layers++
	c.done.Size += made.Blob.Size
	return made, nil
}

// meterPause is how often it is told how far a layer is.
const meterPause = 200 * time.Millisecond

// meter tells how much of a layer has been read.
func (c *conversion) meter(id string, total int64) func(n int) {
	var last time.Time
	read := int64(0)
	return func(n int) {
		read += int64(n)
		if time.Since(last) >= meterPause {
			last = time.Now()
			c.tell(wire.Progress{ID: id, Status: "Converting", Progress: &wire.ProgressDetail{Current: read, Total: total}})
		}
	}
}

// metered tells how much is read.
type metered struct {
	io.Reader
	count func(n int)
}

func (m metered) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.count(n)
	return n, err
}

// repack stores a layer in the form of o. count is told how much is read of it.
func (s *maker) repack(ctx context.Context, l content.Layer, o ConvertOptions, count func(n int)) (content.Layer, error) {
	r, _, err := s.store.Open(ctx, l.Blob.Digest)
	if err != nil {
		return l, err
	}
	defer r.Close()
	tar, _, err := layer.Decompress(metered{r, count}, s.store.Limits())
	if err != nil {
		return l, err
	}
	defer tar.Close()
	pr, pw := io.Pipe()
	done := make(chan content.Layer, 1)
	go func() {
		var made content.Layer
		var err error
		made.DiffID, made.Blob.Annotations, err = o.Pack(pw, tar)
		pw.CloseWithError(err)
		done <- made
	}()
	stop := context.AfterFunc(ctx, func() { pw.CloseWithError(context.Cause(ctx)) })
	defer stop()
	blob, err := s.store.Write(ctx, pr, "")
	pr.CloseWithError(errs.New(errs.Unknown, "stored layer is incomplete"))
	made := <-done
	if err != nil {
		return l, err
	}
	blob.MediaType, blob.Annotations = layerType(string(layer.Gzip)), made.Blob.Annotations
	return content.Layer{Blob: blob, DiffID: made.DiffID}, nil
}
