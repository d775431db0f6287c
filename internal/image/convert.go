package image

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/layer"
	"gantry/internal/wire"
)

// estargzChunk is into how large parts files are divided, in bytes: what a read
// fetches at least.
const estargzChunk = 1 << 20

// ConvertOptions say what to convert.
type ConvertOptions struct {
	From     string
	To       string            // name of the new image, with or without a tag
	Platform *ocispec.Platform // nil for this machine's, or any
}

// Convert makes an image of the same files whose layers are in eStargz form, so
// that it can be started lazily. Layers that are so already stay. It is for one
// platform, and has no attestations: what they tell of is another manifest. Form:
// stargz-snapshotter, docs/estargz.md.
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
		if isEstargz(l.Blob) {
			continue
		}
		if layers[n], err = s.estargzLayer(held, l); err != nil {
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

// isEstargz reports whether a manifest says that a layer is in eStargz form.
func isEstargz(d ocispec.Descriptor) bool {
	toc := digest.Digest(d.Annotations[estargz.TOCJSONDigestAnnotation])
	return toc.Validate() == nil && strings.HasSuffix(d.MediaType, "gzip")
}

// estargzLayer stores a layer in eStargz form.
func (s *maker) estargzLayer(ctx context.Context, l content.Layer) (content.Layer, error) {
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
	type result struct {
		toc    digest.Digest
		diffID string
		err    error
	}
	pr, pw := io.Pipe()
	done := make(chan result, 1)
	go func() {
		var made result
		made.toc, made.diffID, made.err = writeEstargz(pw, tar)
		pw.CloseWithError(made.err)
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
	blob.MediaType = layerType(string(layer.Gzip))
	blob.Annotations = map[string]string{estargz.TOCJSONDigestAnnotation: made.toc.String()}
	return content.Layer{Blob: blob, DiffID: digest.Digest(made.diffID)}, nil
}

// writeEstargz packs a plain tar so that its files can be read apart. It returns
// the digests of the table of contents and of the unpacked whole.
func writeEstargz(w io.Writer, tar io.Reader) (toc digest.Digest, diffID string, err error) {
	in := bufio.NewReaderSize(tar, 64<<10)
	// A first file of such a name would be taken for a packed tar.
	if head, err := in.Peek(2); err == nil && bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return "", "", errs.New(errs.Invalid, "it is packed twice")
	}
	z := estargz.NewWriterLevel(w, gzip.DefaultCompression)
	z.ChunkSize = estargzChunk
	if err := z.AppendTar(in); err != nil {
		return "", "", err
	}
	// What comes behind the end of the tar counts for its limits alone.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return "", "", err
	}
	if toc, err = z.Close(); err != nil {
		return "", "", err
	}
	return toc, z.DiffID(), nil
}
