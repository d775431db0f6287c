package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/gzip"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/layer"
	"gantry/internal/wire"
)

// maker makes blobs, manifests and layers of what comes in.
type maker struct{ *catalog }

// ImportOptions says what to make of a tar of a root file system.
type ImportOptions struct {
	Repo, Tag string // of the new image; empty for none
	Message   string // its comment
	Platform  string // "os/arch[/variant]"; empty for this machine's
	Changes   []string
	Created   time.Time // zero for now
}

// Import makes an image of one layer from the tar of a root file system, of any
// compression. tell gets its id. What is wrong with the options is found before
// anything is read.
func (s *Images) Import(ctx context.Context, r io.Reader, o ImportOptions, tell func(wire.Progress)) error {
	name := ""
	var err error
	if o.Repo != "" {
		if name, err = newName(o.Repo, o.Tag); err != nil {
			return err
		}
	}
	p, err := ParsePlatform(o.Platform)
	if err != nil {
		return err
	}
	if p == nil {
		h := host()
		p = &h
	}
	var config dockerspec.DockerOCIImageConfig
	if err := Change(&config, o.Changes); err != nil {
		return err
	}
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	blob, diffID, err := s.writeLayer(held, r)
	if err != nil {
		return noRoom(err)
	}
	now := s.now().UTC()
	if !o.Created.IsZero() {
		now = o.Created.UTC()
	}
	i := dockerspec.DockerOCIImage{Config: config}
	i.Created, i.Platform = &now, *p
	i.History = []ocispec.History{{Created: &now, Comment: o.Message}}
	target, err := s.assemble(held, i, []content.Layer{{Blob: blob, DiffID: diffID}})
	if err != nil {
		return noRoom(fmt.Errorf("failed to unpack image: %w", err))
	}
	if err := s.setName(held, name, target); err != nil {
		return err
	}
	imageID := target.Digest.String()
	if name != "" {
		s.publish("tag", target.Digest, familiar(name))
	}
	s.publish("import", target.Digest, imageID)
	tell(wire.Progress{Status: imageID})
	return nil
}

// noRoom says of an error that the disk is full, if it is.
func noRoom(err error) error {
	if content.Full(err) {
		return fmt.Errorf("the disk of the images is full, and nothing of it is kept: %w", err)
	}
	return err
}

// assemble writes configuration and manifest of an image of the given layers,
// and completes it. Its target may be recorded then.
func (s *maker) assemble(ctx context.Context, i dockerspec.DockerOCIImage, layers []content.Layer) (ocispec.Descriptor, error) {
	target, err := s.describe(ctx, i, layers)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return target, s.complete(ctx, target, nil)
}

// describe writes configuration and manifest of an image of the given layers.
func (s *maker) describe(ctx context.Context, i dockerspec.DockerOCIImage, layers []content.Layer) (ocispec.Descriptor, error) {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	i.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.Blob)
		i.RootFS.DiffIDs = append(i.RootFS.DiffIDs, l.DiffID)
	}
	data, err := json.Marshal(i)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if m.Config, err = s.store.Write(ctx, bytes.NewReader(data), ""); err != nil {
		return ocispec.Descriptor{}, err
	}
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	return s.writeManifest(ctx, m)
}

func chainOf(c *parts) digest.Digest { return content.Chain(c.layers, len(c.layers)) }

// writeLayer stores a layer of any compression as a blob that manifests have a
// type for, and returns the digest of the tar in it. gzip and zstd are stored as
// they are; everything else is packed with gzip, which every tool can read.
func (s *maker) writeLayer(ctx context.Context, r io.Reader) (ocispec.Descriptor, digest.Digest, error) {
	raw := &tee{r: r}
	plain, c, err := layer.Decompress(raw, s.store.Limits())
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer plain.Close()
	if c == layer.Gzip || c == layer.Zstd {
		return s.keepLayer(ctx, raw, plain, c)
	}
	if err := raw.to(io.Discard); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	return s.packLayer(ctx, plain)
}

// packLayer stores a plain tar packed.
func (s *maker) packLayer(ctx context.Context, plain io.Reader) (ocispec.Descriptor, digest.Digest, error) {
	sum := sha256.New()
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The fastest level: what is stored here is read here.
		zw, err := gzip.NewWriterLevel(pw, gzip.BestSpeed)
		if err == nil {
			if _, err = io.CopyBuffer(zw, io.TeeReader(plain, sum), make([]byte, 256<<10)); err == nil {
				err = zw.Close()
			}
		}
		pw.CloseWithError(err)
	}()
	d, err := s.store.Write(ctx, pr, "")
	pr.CloseWithError(errs.New(errs.Unknown, "stored layer is incomplete"))
	<-done
	d.MediaType = layerType(string(layer.Gzip))
	return d, digest.NewDigest(digest.SHA256, sum), err
}

// keepLayer stores a packed tar as it is read, while it is unpacked for its
// digest. raw is what plain reads from.
func (s *maker) keepLayer(ctx context.Context, raw *tee, plain io.Reader, c layer.Compression) (ocispec.Descriptor, digest.Digest, error) {
	sum := sha256.New()
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := raw.to(pw)
		if err == nil {
			_, err = io.CopyBuffer(sum, plain, make([]byte, 256<<10))
		}
		if err == nil { // what a decompressor leaves unread belongs to the blob
			_, err = io.Copy(io.Discard, raw)
		}
		pw.CloseWithError(err)
	}()
	d, err := s.store.Write(ctx, pr, "")
	pr.CloseWithError(errs.New(errs.Unknown, "stored layer is incomplete"))
	<-done
	d.MediaType = layerType(string(c))
	return d, digest.NewDigest(digest.SHA256, sum), err
}

// tee passes on what is read from r to a writer that it gets later, from the
// first byte on.
type tee struct {
	r    io.Reader
	w    io.Writer
	past bytes.Buffer
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if t.w == nil {
		t.past.Write(p[:n])
	} else if _, werr := t.w.Write(p[:n]); werr != nil {
		return n, werr
	}
	return n, err
}

// to gives t its writer.
func (t *tee) to(w io.Writer) error {
	_, err := w.Write(t.past.Bytes())
	t.past = bytes.Buffer{}
	t.w = w
	return err
}

// repackBlob stores a layer blob again, packed in a way that manifests have a
// type for.
func (s *maker) repackBlob(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	r, _, err := s.store.Open(ctx, d.Digest)
	if err != nil {
		return d, err
	}
	defer r.Close()
	d, _, err = s.writeLayer(ctx, r)
	return d, err
}
