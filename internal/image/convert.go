package image

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/layer"
	"gantry/internal/wire"
)

// ConvertOptions say what to convert.
type ConvertOptions struct {
	From     string
	To       string            // name of the new image, with or without a tag
	Platform *ocispec.Platform // nil for this machine's, or any
	// Done reports whether a layer is in the form, and Pack packs a plain tar with
	// gzip so that it is: it returns the digest of the new layer unpacked, and its
	// annotations.
	Done func(l ocispec.Descriptor) bool
	Pack func(w io.Writer, tar io.Reader) (diffID digest.Digest, annotations map[string]string, err error)
}

// Convert makes an image of the same files whose layers are in another form. Those
// that are already stay. It is for one platform, and has no attestations: what they
// tell of is another manifest.
func (s *Tools) Convert(ctx context.Context, o ConvertOptions) (wire.ImageConverted, error) {
	var done wire.ImageConverted
	name, err := newName(o.To, "")
	if err != nil {
		return done, err
	}
	i, err := s.Resolve(ctx, o.From, o.Platform)
	if err != nil {
		return done, err
	}
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return done, err
	}
	defer release()
	if err := s.store.Keep(held, i.Manifest.Digest); err != nil {
		return done, err
	}
	c, err := s.read(held, i.Manifest)
	if err != nil {
		return done, err
	}
	layers := slices.Clone(c.layers)
	for n, l := range layers {
		if o.Done(l.Blob) {
			continue
		}
		if layers[n], err = s.repack(held, l, o); err != nil {
			return done, noRoom(fmt.Errorf("convert layer %d of %s: %w", n, o.From, err))
		}
		done.Converted++
	}
	target, err := s.assemble(held, c.config, layers)
	if err != nil {
		return done, noRoom(err)
	}
	if err := s.setName(held, name, target); err != nil {
		return done, err
	}
	s.publish("create", target.Digest, target.Digest.String())
	s.publish("tag", target.Digest, familiar(name))
	done.ID, done.Name, done.Layers = target.Digest.String(), familiar(name), len(layers)
	for _, l := range layers {
		done.Size += l.Blob.Size
	}
	return done, nil
}

// repack stores a layer in the form of o.
func (s *maker) repack(ctx context.Context, l content.Layer, o ConvertOptions) (content.Layer, error) {
	r, _, err := s.store.Open(ctx, l.Blob.Digest)
	if err != nil {
		return l, err
	}
	defer r.Close()
	tar, _, err := layer.Decompress(r, s.store.Limits())
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
