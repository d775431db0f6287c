package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
)

// group is all records of one image id.
type group struct {
	target  ocispec.Descriptor
	records []images.Image // in order of their names
}

// names returns the short names with a tag: neither the dangling record nor names
// by digest.
func (g group) names() []string {
	names := []string{}
	for _, r := range g.records {
		if !isDangling(r.Name) && !strings.Contains(r.Name, "@") {
			names = append(names, familiar(r.Name))
		}
	}
	slices.Sort(names)
	return names
}

// named reports whether the image has a name of any kind.
func (g group) named() bool {
	return slices.ContainsFunc(g.records, func(r images.Image) bool { return !isDangling(r.Name) })
}

// repositories returns the distinct short repositories, in order.
func (g group) repositories() []string {
	var repos []string
	for _, r := range g.records {
		if !isDangling(r.Name) {
			repos = append(repos, repository(r.Name))
		}
	}
	slices.Sort(repos)
	return slices.Compact(repos)
}

// groups returns all images in order of their ids.
func (s *catalog) groups(ctx context.Context) ([]group, error) {
	list, err := s.store.Images().List(content.Namespaced(ctx))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	byID := map[digest.Digest]*group{}
	for _, r := range list {
		g := byID[r.Target.Digest]
		if g == nil {
			g = &group{target: r.Target}
			byID[r.Target.Digest] = g
		}
		if len(g.target.Annotations) == 0 {
			g.target.Annotations = r.Target.Annotations
		}
		g.records = append(g.records, r)
	}
	groups := make([]group, 0, len(byID))
	for _, g := range byID {
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, func(a, b group) int { return strings.Compare(string(a.target.Digest), string(b.target.Digest)) })
	return groups, nil
}

// lookup finds the image that q means, and the record it was found by, if it
// was by a name.
func (s *catalog) lookup(ctx context.Context, q query) (g group, record string, err error) {
	if q.name != "" {
		r, err := s.store.Images().Get(content.Namespaced(ctx), q.name)
		if err == nil {
			return group{r.Target, []images.Image{r}}, q.name, nil
		}
		if !errdefs.IsNotFound(err) {
			return group{}, "", fmt.Errorf("look up image %s: %w", q.text, err)
		}
	}
	if q.prefix == "" && q.digest == "" {
		return group{}, "", noSuchImage(q.named)
	}
	groups, err := s.groups(ctx)
	if err != nil {
		return group{}, "", err
	}
	groups = slices.DeleteFunc(groups, func(g group) bool { return !q.means(g) })
	switch len(groups) {
	case 0:
		return group{}, "", noSuchImage(q.named)
	case 1:
		return groups[0], "", nil
	}
	return group{}, "", errs.New(errs.Invalid, "more than one image has an id that begins with %q", q.prefix)
}

// means reports whether q is an id of g, or a repository of it with its id.
func (q query) means(g group) bool {
	if q.digest == "" {
		return strings.HasPrefix(g.target.Digest.Encoded(), q.prefix)
	}
	if q.digest != g.target.Digest {
		return false
	}
	return q.repo == "" || slices.ContainsFunc(g.records, func(r images.Image) bool {
		return repository(r.Name) == repository(q.repo) && !isDangling(r.Name)
	})
}

// whole completes a group found by one name with its other records.
func (s *catalog) whole(ctx context.Context, g group) (group, error) {
	list, err := s.store.Images().List(content.Namespaced(ctx), "target.digest=="+g.target.Digest.String())
	if err != nil {
		return group{}, fmt.Errorf("list images: %w", err)
	}
	g.records = list
	return g, nil
}

// Find returns the id of the image that ref means; false if there is none.
func (s *Images) Find(ctx context.Context, ref string) (string, bool) {
	q, err := parseQuery(ref)
	if err != nil {
		return "", false
	}
	g, _, err := s.lookup(ctx, q)
	return g.target.Digest.String(), err == nil
}

// Resolve finds an image by what a user calls it: name[:tag], name@digest, an
// id or the beginning of one. p selects from an image for several platforms;
// nil means this machine's, and any other if there is but one.
//
// errs.NotFound: "No such image: x:latest", or that it is not there for p.
func (s *Images) Resolve(ctx context.Context, ref string, p *ocispec.Platform) (*Image, error) {
	return s.resolve(ctx, ref, p)
}

func (s *catalog) resolve(ctx context.Context, ref string, p *ocispec.Platform) (*Image, error) {
	q, err := parseQuery(ref)
	if err != nil {
		return nil, err
	}
	g, _, err := s.lookup(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.pick(ctx, g, p, q.named)
}

// pick returns the image of g for platform p. ref is how errors call it.
func (s *catalog) pick(ctx context.Context, g group, p *ocispec.Platform, ref string) (*Image, error) {
	list, err := s.manifests(ctx, g.target)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	want := host()
	if p != nil {
		want = *p
	}
	var best, other *parts
	for _, m := range list {
		c, err := s.read(ctx, m)
		switch {
		case errs.Is(err, errs.NotFound):
			continue // not loaded
		case err != nil:
			return nil, fmt.Errorf("image %s: %w", ref, err)
		case matches(want, c.platform):
			if best == nil || better(want, c.platform, best.platform) {
				best = c
			}
		case other == nil:
			other = c
		}
	}
	if best != nil {
		return g.image(best), nil
	}
	best = other
	if best == nil && len(list) > 0 && p == nil {
		return nil, errs.New(errs.NotFound, "image %s: %w", ref, errNoManifest)
	}
	if best == nil || p != nil {
		return nil, errPlatform(ref, want)
	}
	return g.image(best), nil
}

func (g group) image(c *parts) *Image {
	i := &Image{
		ID: g.target.Digest, Target: g.target, Manifest: c.manifest, Names: g.names(),
		Config: c.config, Layers: c.layers, ChainID: content.Chain(c.layers, len(c.layers)), Platform: c.platform,
	}
	for _, r := range g.records {
		if !isDangling(r.Name) && r.UpdatedAt.After(i.Updated) {
			i.Updated = r.UpdatedAt
		}
	}
	return i
}

// parts is what one manifest says.
type parts struct {
	manifest ocispec.Descriptor
	conf     ocispec.Descriptor
	config   dockerspec.DockerOCIImage
	layers   []content.Layer
	platform ocispec.Platform
}

// maxParts is how many manifests are remembered.
const maxParts = 256

// read returns what the manifest m says. errs.NotFound if it, or its
// configuration, is not here.
func (s *catalog) read(ctx context.Context, m ocispec.Descriptor) (*parts, error) {
	s.mu.Lock()
	c := s.parts[m.Digest]
	s.mu.Unlock()
	if c != nil {
		// It may have been removed since.
		_, err := s.store.Info(ctx, m.Digest)
		return c, err
	}
	c, err := s.load(ctx, m)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parts) >= maxParts {
		clear(s.parts)
	}
	s.parts[m.Digest] = c
	return c, nil
}

func (s *catalog) load(ctx context.Context, m ocispec.Descriptor) (*parts, error) {
	data, err := s.store.Read(ctx, m, maxManifest)
	if err != nil {
		return nil, err
	}
	b, err := parseBody(data, m.MediaType)
	if err != nil {
		return nil, err
	}
	if !isManifest(m.MediaType) || !isImageConfig(b.Config.MediaType) {
		return nil, errs.New(errs.Invalid, "%s is not an image that can be run (%s)", m.Digest, b.Config.MediaType)
	}
	c := &parts{manifest: m, conf: *b.Config}
	if data, err = s.store.Read(ctx, c.conf, maxConfig); err != nil {
		return nil, err
	}
	if c.config, err = parseConfig(data, len(b.Layers)); err != nil {
		return nil, err
	}
	for i, l := range b.Layers {
		c.layers = append(c.layers, content.Layer{Blob: l, DiffID: c.config.RootFS.DiffIDs[i]})
	}
	c.platform = c.config.Platform
	if p := m.Platform; p != nil && c.platform.Architecture == "" {
		c.platform = *p
	}
	if c.platform.Architecture == "" {
		c.platform = host()
	}
	return c, nil
}

// maxIndexes is how many indexes one image may lead through, and maxDepth how
// many of them may lie in each other.
const (
	maxIndexes = 32
	maxDepth   = 4
)

// manifests returns the manifests that target leads to and that may be images,
// in their order. Indexes that are not here lead nowhere.
func (s *catalog) manifests(ctx context.Context, target ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	list, err := s.everyManifest(ctx, target)
	return slices.DeleteFunc(list, isAttestation), err
}

// everyManifest is manifests, with the attestations.
func (s *catalog) everyManifest(ctx context.Context, target ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var list []ocispec.Descriptor
	indexes := 0
	var walk func(d ocispec.Descriptor, depth int) error
	walk = func(d ocispec.Descriptor, depth int) error {
		switch {
		case isManifest(d.MediaType):
			list = append(list, d)
			return nil
		case !isIndex(d.MediaType):
			return nil
		}
		if indexes++; indexes > maxIndexes || depth > maxDepth || len(list) > maxManifests {
			return errs.New(errs.Invalid, "index %s leads to too much", target.Digest)
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
		for _, c := range b.Manifests {
			if err := walk(c, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if !isManifest(target.MediaType) && !isIndex(target.MediaType) {
		return nil, errs.New(errs.Invalid, "media type %q is not that of an image", target.MediaType)
	}
	err := walk(target, 0)
	return list, err
}

// present returns what the manifests of target say that are here.
func (s *catalog) present(ctx context.Context, target ocispec.Descriptor) ([]*parts, error) {
	list, err := s.manifests(ctx, target)
	if err != nil {
		return nil, err
	}
	var out []*parts
	var bad error
	for _, m := range list {
		c, err := s.read(ctx, m)
		if errs.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, bad
	}
	return out, nil
}
