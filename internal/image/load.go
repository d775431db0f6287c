package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/distribution/reference"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/layer"
	"gantry/internal/wire"
)

// LoadOptions says what to load of an archive.
type LoadOptions struct {
	Quiet bool               // nothing is told of the way there yet
	Only  []ocispec.Platform // of images for several; empty for all that is there
}

// Annotations that give an image of an OCI layout its name.
const (
	nameAnnotation = "io.containerd.image.name"
	refAnnotation  = ocispec.AnnotationRefName
)

// found is an image in an archive.
type found struct {
	target ocispec.Descriptor
	names  []string // full; none for an image without a name
}

// Load takes the images of an archive: an OCI image layout, or what `docker
// save` wrote at any time since version 1.10; a tar of any compression. tell
// gets "Loaded image: …" for each. An image is recorded when it is unpacked and
// on disk; those before a broken one stay.
func (s *Images) Load(ctx context.Context, r io.Reader, o LoadOptions, tell func(wire.Progress)) error {
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	err = loadHeld(held, s, r, o, tell)
	if content.Full(err) {
		err = fmt.Errorf("the disk of the images is full, and nothing of the rest is kept: %w", err)
	}
	return err
}

// loadHeld is Load. held is of Hold.
func loadHeld(held context.Context, s *Images, r io.Reader, o LoadOptions, tell func(wire.Progress)) error {
	in := loader{s.maker}
	a, err := in.readArchive(held, r)
	if err != nil {
		return err
	}
	list, err := in.imagesOf(held, a)
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := s.complete(held, f.target, o.Only); err != nil {
			return err
		}
		if err := s.loaded(held, f, tell); err != nil {
			return err
		}
	}
	return nil
}

// loaded records a loaded image and tells so.
func (s *names) loaded(ctx context.Context, f found, tell func(wire.Progress)) error {
	imageID := f.target.Digest.String()
	if len(f.names) == 0 {
		if err := s.setName(ctx, "", f.target); err != nil {
			return err
		}
		tell(wire.Progress{Stream: "Loaded image ID: " + imageID + "\n"})
	}
	for _, n := range f.names {
		if err := s.setName(ctx, n, f.target); err != nil {
			return err
		}
		tell(wire.Progress{Stream: "Loaded image: " + familiar(n) + "\n"})
	}
	s.publish("load", f.target.Digest, imageID)
	return nil
}

// imagesOf finds the images of an archive.
func (s *loader) imagesOf(ctx context.Context, a *archive) ([]found, error) {
	if data, ok := a.texts[ocispec.ImageIndexFile]; ok && a.texts[ocispec.ImageLayoutFile] != nil {
		return layoutImages(data)
	}
	if data, ok := a.texts["manifest.json"]; ok {
		return s.dockerImages(ctx, a, data)
	}
	return nil, errs.New(errs.Invalid, "unrecognized image format")
}

// layoutImages reads the index of an OCI image layout. Entries with the same
// digest are one image with several names.
func layoutImages(data []byte) ([]found, error) {
	b, err := parseBody(data, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, err
	}
	var list []found
	for _, d := range b.Manifests {
		if isAttestation(d) {
			continue
		}
		name, err := layoutName(d.Annotations)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list, func(f found) bool { return f.target.Digest == d.Digest })
		if i < 0 {
			i = len(list)
			list = append(list, found{target: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations}})
		}
		if name != "" && !slices.Contains(list[i].names, name) {
			list[i].names = append(list[i].names, name)
		}
	}
	return list, nil
}

// layoutName returns the full name that annotations give, or none. The plain
// org.opencontainers.image.ref.name is a name only if it is more than a tag.
func layoutName(annotations map[string]string) (string, error) {
	name := annotations[nameAnnotation]
	if name == "" {
		if name = annotations[refAnnotation]; !strings.ContainsAny(name, ":/") {
			return "", nil
		}
	}
	return tagged(name)
}

// tagged returns the full form of a name in an archive, with a tag.
func tagged(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", errs.New(errs.Invalid, "image name %.200q: %w", name, err)
	}
	if _, ok := named.(reference.Digested); ok {
		named = reference.TrimNamed(named)
	}
	return reference.TagNameOnly(named).String(), nil
}

// dockerEntry is an element of manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerImages makes manifests for the images of a docker archive, which has
// none.
func (s *loader) dockerImages(ctx context.Context, a *archive, data []byte) ([]found, error) {
	var entries []dockerEntry
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, errs.New(errs.Invalid, "manifest.json: %w", err)
	}
	if len(entries) > maxManifests {
		return nil, errs.New(errs.Invalid, "manifest.json names %d images, more than %d", len(entries), maxManifests)
	}
	var list []found
	for _, e := range entries {
		f, err := s.dockerImage(ctx, a, e)
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
}

func (s *loader) dockerImage(ctx context.Context, a *archive, e dockerEntry) (found, error) {
	var f found
	if len(e.Layers) > maxLayers {
		return f, errs.New(errs.Invalid, "image has %d layers, more than %d", len(e.Layers), maxLayers)
	}
	config, err := a.blob(e.Config)
	if err != nil {
		return f, err
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config.Digest, Size: config.Size}
	for _, l := range e.Layers {
		d, err := a.blob(l)
		if err != nil {
			return f, err
		}
		pack := a.packs[d.Digest]
		if pack == layer.Xz || pack == layer.Bzip2 {
			// The format of manifests has no type for these.
			if d, err = s.repackBlob(ctx, d); err != nil {
				return f, err
			}
			pack = layer.Gzip
		}
		d.MediaType = layerType(string(pack))
		m.Layers = append(m.Layers, d)
	}
	for _, n := range e.RepoTags {
		n, err := tagged(n)
		if err != nil {
			return f, err
		}
		f.names = append(f.names, n)
	}
	f.target, err = s.writeManifest(ctx, m)
	return f, err
}

// writeManifest stores a manifest.
func (s *maker) writeManifest(ctx context.Context, m ocispec.Manifest) (ocispec.Descriptor, error) {
	if m.Layers == nil {
		m.Layers = []ocispec.Descriptor{}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := s.store.Write(ctx, bytes.NewReader(data), "")
	d.MediaType = m.MediaType
	return d, err
}

// complete makes an image ready to be recorded: it notes what its parts need,
// so that they stay together, and unpacks those for this machine (for `only`,
// if it is not empty). A part that names a blob that is not here is errs.Invalid;
// a whole part that is not here is left out, if another is.
func (s *maker) complete(ctx context.Context, target ocispec.Descriptor, only []ocispec.Platform) error {
	if err := s.referIndexes(ctx, target, 0); err != nil {
		return err
	}
	list, err := s.manifests(ctx, target)
	if err != nil {
		return err
	}
	if err := s.referAttested(ctx, target); err != nil {
		return err
	}
	ready, any := 0, 0
	for _, m := range list {
		c, err := s.read(ctx, m)
		if errs.Is(err, errs.NotFound) {
			continue
		} else if err != nil {
			return err
		}
		any++
		if !wanted(c.platform, only) {
			continue
		}
		if err := s.referManifest(ctx, c); err != nil {
			return err
		}
		ready++
		if len(only) == 0 && !matches(host(), c.platform) && len(list) > 1 {
			continue
		}
		if err := s.store.Unpack(ctx, c.layers); err != nil {
			return err
		}
	}
	switch {
	case any == 0:
		return errs.New(errs.Invalid, "archive names image %s but does not have it", target.Digest)
	case ready == 0:
		return errPlatform(target.Digest.String(), only[0])
	}
	return nil
}

func wanted(p ocispec.Platform, only []ocispec.Platform) bool {
	return len(only) == 0 || slices.ContainsFunc(only, func(o ocispec.Platform) bool { return matches(o, p) })
}

// referManifest notes what a manifest and its configuration need.
func (s *maker) referManifest(ctx context.Context, c *parts) error {
	var blobs []ocispec.Descriptor
	for i, l := range c.layers {
		d, err := s.store.Info(ctx, l.Blob.Digest)
		if err != nil {
			return errs.New(errs.Invalid, "layer %d of image %s: %w", i, c.manifest.Digest, err)
		}
		if d.Size != l.Blob.Size {
			return errs.New(errs.Invalid, "layer %s has %d bytes, its manifest says %d", d.Digest, d.Size, l.Blob.Size)
		}
		blobs = append(blobs, l.Blob)
	}
	conf := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: c.conf.Digest}
	if err := s.store.Refer(ctx, c.manifest.Digest, "", append(blobs, conf)...); err != nil {
		return err
	}
	return s.store.Refer(ctx, c.conf.Digest, chainOf(c))
}

// referIndexes notes which manifests an index, and those in it, need.
func (s *maker) referIndexes(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if !isIndex(d.MediaType) || depth > maxDepth {
		return nil
	}
	data, err := s.store.Read(ctx, d, maxManifest)
	if errs.Is(err, errs.NotFound) && depth > 0 {
		return nil
	} else if err != nil {
		return err
	}
	b, err := parseBody(data, d.MediaType)
	if err != nil {
		return err
	}
	if err := s.store.Refer(ctx, d.Digest, "", b.Manifests...); err != nil {
		return err
	}
	for _, c := range b.Manifests {
		if err := s.referIndexes(ctx, c, depth+1); err != nil {
			return err
		}
	}
	return nil
}
