package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
)

// Save writes the images that names mean to w: a tar of an OCI image layout with
// the manifest.json of docker archives beside it, so that every tool can read
// it. Of images for several platforms it takes those in `only`, or all that are
// here. An unknown name is found before anything is written.
func (s *Images) Save(ctx context.Context, w io.Writer, names []string, only []ocispec.Platform) error {
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	out := &saver{s.catalog}
	b := &bundle{blobs: map[digest.Digest]int64{}}
	for _, n := range names {
		if err := out.gather(held, b, n, only); err != nil {
			return err
		}
	}
	if err := out.writeBundle(held, w, b); err != nil {
		return err
	}
	for _, d := range b.saved {
		s.publish("save", d, d.String())
	}
	return nil
}

// saver writes archives of images.
type saver struct{ *catalog }

// bundle is what an archive shall hold.
type bundle struct {
	blobs   map[digest.Digest]int64 // with their sizes
	index   []ocispec.Descriptor
	docker  []dockerEntry
	targets []digest.Digest // of the entries of docker
	saved   []digest.Digest
}

// gather adds the image that ref means to a bundle.
func (s *saver) gather(ctx context.Context, b *bundle, ref string, only []ocispec.Platform) error {
	q, err := parseQuery(ref)
	if err != nil {
		return err
	}
	g, record, err := s.lookup(ctx, q)
	if err != nil {
		return err
	}
	if err := s.store.Keep(ctx, g.target.Digest); err != nil {
		return err
	}
	all, err := s.present(ctx, g.target)
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	all = slices.DeleteFunc(all, func(c *parts) bool { return !wanted(c.platform, only) })
	if len(all) == 0 && len(only) > 0 {
		return errPlatform(q.named, only[0])
	} else if len(all) == 0 {
		return errs.New(errs.NotFound, "image %s: %w", ref, errNoManifest)
	}
	if err := s.gatherIndexes(ctx, b, g.target, 0); err != nil {
		return err
	}
	for _, c := range all {
		b.blobs[c.manifest.Digest], b.blobs[c.conf.Digest] = c.manifest.Size, c.conf.Size
		for _, l := range c.layers {
			b.blobs[l.Blob.Digest] = l.Blob.Size
		}
	}
	if err := s.gatherAttested(ctx, b, g.target); err != nil {
		return err
	}
	b.addName(g, record, all)
	b.saved = append(b.saved, g.target.Digest)
	return nil
}

// gatherIndexes adds the indexes of an image, and what in them is no image.
func (s *saver) gatherIndexes(ctx context.Context, b *bundle, d ocispec.Descriptor, depth int) error {
	if !isIndex(d.MediaType) || depth > maxDepth {
		return nil
	}
	data, err := s.store.Read(ctx, d, maxManifest)
	if errs.Is(err, errs.NotFound) && depth > 0 {
		return nil
	} else if err != nil {
		return err
	}
	b.blobs[d.Digest] = int64(len(data))
	parsed, err := parseBody(data, d.MediaType)
	if err != nil {
		return err
	}
	for _, c := range parsed.Manifests {
		if err := s.gatherIndexes(ctx, b, c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// addName adds an image's entries of index.json and manifest.json. An image
// that was asked for by its id has no name there.
func (b *bundle) addName(g group, record string, all []*parts) {
	d := ocispec.Descriptor{MediaType: g.target.MediaType, Digest: g.target.Digest, Size: g.target.Size}
	var tags []string
	if record != "" {
		name := familiar(record)
		tags = []string{name}
		d.Annotations = map[string]string{nameAnnotation: record, refAnnotation: name[strings.LastIndexByte(name, ':')+1:]}
	}
	b.index = append(b.index, d)
	best := all[0]
	for _, c := range all {
		if matches(host(), c.platform) {
			best = c
			break
		}
	}
	if i := slices.Index(b.targets, d.Digest); i >= 0 {
		b.docker[i].RepoTags = append(b.docker[i].RepoTags, tags...)
		return
	}
	e := dockerEntry{Config: blobPath(best.conf.Digest), RepoTags: tags, Layers: []string{}}
	for _, l := range best.layers {
		e.Layers = append(e.Layers, blobPath(l.Blob.Digest))
	}
	b.targets, b.docker = append(b.targets, d.Digest), append(b.docker, e)
}

func blobPath(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// writeBundle writes a bundle, in the order of Docker's archives.
func (s *saver) writeBundle(ctx context.Context, w io.Writer, b *bundle) error {
	tw := tar.NewWriter(w)
	folders := map[string]bool{}
	for _, d := range slices.SortedFunc(maps.Keys(b.blobs), func(x, y digest.Digest) int { return strings.Compare(blobPath(x), blobPath(y)) }) {
		for _, dir := range []string{"blobs/", "blobs/" + d.Algorithm().String() + "/"} {
			if !folders[dir] {
				folders[dir] = true
				if err := tw.WriteHeader(member(dir, 0, 0o755)); err != nil {
					return err
				}
			}
		}
		if err := s.writeBlob(ctx, tw, d); err != nil {
			return fmt.Errorf("save %s: %w", d, err)
		}
	}
	if b.index == nil {
		b.index = []ocispec.Descriptor{}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: b.index}
	if err := writeJSON(tw, ocispec.ImageIndexFile, 0o644, index); err != nil {
		return err
	}
	if len(b.docker) > 0 {
		if err := writeJSON(tw, "manifest.json", 0o644, b.docker); err != nil {
			return err
		}
	}
	if err := writeJSON(tw, ocispec.ImageLayoutFile, 0o444, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return tw.Close()
}

// member is a header whose time is the epoch, so that the same images give the
// same archive.
func member(name string, size, mode int64) *tar.Header {
	h := &tar.Header{Name: name, Size: size, Mode: mode, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
	if strings.HasSuffix(name, "/") {
		h.Typeflag = tar.TypeDir
	}
	return h
}

func writeJSON(tw *tar.Writer, name string, mode int64, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(member(name, int64(len(data)), mode)); err != nil {
		return err
	}
	_, err = tw.Write(data)
	return err
}

func (s *saver) writeBlob(ctx context.Context, tw *tar.Writer, d digest.Digest) error {
	r, size, err := s.store.Open(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := tw.WriteHeader(member(blobPath(d), size, 0o444)); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{tw}, r, make([]byte, 256<<10))
	return err
}
