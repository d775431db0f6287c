package image

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

// ListOptions selects images and what to say of them.
type ListOptions struct {
	All        bool // those between a name and its base too; there are none yet
	SharedSize bool // count what each shares with others; else it is -1
	Manifests  bool
	Identity   bool        // where each came from, with its manifests
	Filters    filter.Args // before, since, dangling, label, label!, reference, until
}

// List returns the images, the newest first.
func (s *Images) List(ctx context.Context, o ListOptions) ([]wire.ImageSummary, error) {
	list, _, err := s.measured(ctx, o)
	return list, err
}

// measured is List, and returns the pieces of every image, listed or not.
func (s *catalog) measured(ctx context.Context, o ListOptions) ([]wire.ImageSummary, map[digest.Digest]map[string]int64, error) {
	sel, err := s.selector(ctx, o.Filters)
	if err != nil {
		return nil, nil, err
	}
	groups, err := s.groups(ctx)
	if err != nil {
		return nil, nil, err
	}
	list := []wire.ImageSummary{}
	pieces := map[digest.Digest]map[string]int64{}
	for _, g := range groups {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		sizes, err := s.sizes(ctx, g)
		if err != nil {
			continue // a record that can't be read hides nothing else
		}
		pieces[g.target.Digest] = sizes.pieces
		if !sel.keeps(&g, sizes.best) {
			continue
		}
		sum := s.summary(g, sizes, o)
		if o.Identity {
			identify(sum.Manifests, s.identity(ctx, g))
		}
		if sizes.best != nil {
			sum.ParentID = s.parentOf(ctx, sizes.best)
		}
		list = append(list, sum)
	}
	if o.SharedSize {
		share(list, pieces)
	}
	slices.SortStableFunc(list, func(a, b wire.ImageSummary) int { return cmp.Compare(b.Created, a.Created) })
	return list, pieces, nil
}

func (s *catalog) summary(g group, z sizes, o ListOptions) wire.ImageSummary {
	target := g.target
	sum := wire.ImageSummary{
		ID: target.Digest.String(), Descriptor: &target, Labels: map[string]string{},
		RepoTags: g.names(), RepoDigests: digests(g), SharedSize: -1, Size: z.total,
		Containers: int64(len(s.uses(target.Digest.String()))),
	}
	if z.best != nil {
		sum.Created = createdAt(z.best).Unix()
		if l := z.best.Config.Config.Labels; l != nil {
			sum.Labels = l
		}
	}
	if o.Manifests {
		sum.Manifests = z.manifests
	}
	return sum
}

// identify adds to what is told of an image's manifests where the image came from.
func identify(list []wire.ImageManifest, i *wire.ImageIdentity) {
	for n := range list {
		if d := list[n].ImageData; d != nil && list[n].Available {
			d.Identity = i
		}
	}
}

// digests returns repository@id for each repository.
func digests(g group) []string {
	list := []string{}
	for _, repo := range g.repositories() {
		list = append(list, repo+"@"+g.target.Digest.String())
	}
	return list
}

// createdAt is the time that an image says it was made; the epoch if it does
// not say.
func createdAt(i *Image) time.Time {
	if i.Config.Created == nil {
		return time.Unix(0, 0)
	}
	return *i.Config.Created
}

// sizes is what an image occupies.
type sizes struct {
	best      *Image           // for this machine, or any
	total     int64            // blobs and unpacked layers
	pieces    map[string]int64 // bytes of layers, packed and unpacked, by what they are
	manifests []wire.ImageManifest
}

// sizes measures an image, all its platforms that are here.
func (s *catalog) sizes(ctx context.Context, g group) (sizes, error) {
	z := sizes{pieces: map[string]int64{}}
	all, err := s.present(ctx, g.target)
	if err != nil {
		return z, err
	}
	if isIndex(g.target.MediaType) {
		z.total = g.target.Size
	}
	users := s.uses(g.target.Digest.String())
	for _, c := range all {
		var unpacked, blobs int64
		for n, l := range c.layers {
			blobs += l.Blob.Size
			chain := content.Chain(c.layers, n+1)
			used, err := s.store.Usage(ctx, chain)
			if err != nil && !errs.Is(err, errs.NotFound) {
				return z, err
			}
			unpacked += used
			z.pieces["unpacked "+chain.String()] = used
			z.pieces["packed "+l.Blob.Digest.String()] = l.Blob.Size
		}
		z.total += c.manifest.Size + c.conf.Size
		z.manifests = append(z.manifests, manifestSummary(c, blobs, unpacked, users))
	}
	if err := s.otherManifests(ctx, g.target, &z); err != nil {
		return z, err
	}
	for _, n := range z.pieces {
		z.total += n
	}
	z.best, err = s.pick(ctx, g, nil, "")
	return z, err
}

func manifestSummary(c *parts, blobs, unpacked int64, users []Use) wire.ImageManifest {
	m := wire.ImageManifest{ID: c.manifest.Digest.String(), Descriptor: c.manifest, Available: true, Kind: wire.ImageManifestKind}
	m.Size.Content = blobs + c.manifest.Size + c.conf.Size
	m.Size.Total = m.Size.Content + unpacked
	m.ImageData = &wire.ImageProperties{Platform: c.platform}
	m.ImageData.Size.Unpacked = unpacked
	for _, u := range users {
		m.ImageData.Containers = append(m.ImageData.Containers, u.ID)
	}
	return m
}

// share sets how many bytes of each image are also another's. pieces holds
// those of every image, listed or not.
func share(list []wire.ImageSummary, pieces map[digest.Digest]map[string]int64) {
	count := map[string]int{}
	for _, p := range pieces {
		for key := range p {
			count[key]++
		}
	}
	for i := range list {
		list[i].SharedSize = 0
		for key, n := range pieces[digest.Digest(list[i].ID)] {
			if count[key] > 1 {
				list[i].SharedSize += n
			}
		}
	}
}

// selector is the filters of a list, read.
type selector struct {
	f             filter.Args
	dangling      *bool
	before, since time.Time
	until         time.Time
}

func (s *catalog) selector(ctx context.Context, f filter.Args) (selector, error) {
	sel := selector{f: f}
	if f.Has("dangling") {
		d, err := f.Bool("dangling", filter.OtherwiseFalse)
		if err != nil {
			return sel, err
		}
		sel.dangling = &d
	}
	for key, at := range map[string]*time.Time{"before": &sel.before, "since": &sel.since} {
		for _, ref := range f.Values(key) {
			i, err := s.resolve(ctx, ref, nil)
			if err != nil {
				return sel, err
			}
			*at = createdAt(i)
		}
	}
	var err error
	sel.until, err = untilOf(f, s.now())
	return sel, err
}

// keeps reports whether an image is selected, and takes the names from g that
// the key reference does not match.
func (sel selector) keeps(g *group, i *Image) bool {
	at := createdAt(i)
	switch {
	case !sel.before.IsZero() && !at.Before(sel.before),
		!sel.since.IsZero() && !at.After(sel.since),
		!sel.until.IsZero() && !at.Before(sel.until),
		!sel.f.Labels(i.Config.Config.Labels),
		sel.dangling != nil && *sel.dangling == g.named():
		return false
	}
	if !sel.f.Has("reference") {
		return true
	}
	kept := *g
	kept.records = nil
	for _, r := range g.records {
		if !isDangling(r.Name) && matchesReference(sel.f.Values("reference"), r.Name) {
			kept.records = append(kept.records, r)
		}
	}
	*g = kept
	return len(kept.records) > 0
}

// matchesReference reports whether a name matches one of the patterns. A
// pattern that can't be read matches nothing.
func matchesReference(patterns []string, name string) bool {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		for _, p := range []string{p, strings.TrimPrefix(strings.TrimPrefix(p, "docker.io/"), "library/")} {
			if ok, err := reference.FamiliarMatch(p, ref); ok && err == nil {
				return true
			}
		}
		return false
	})
}

// untilOf reads the key until of f: the moment that images must be older than,
// zero if it was not given.
func untilOf(f filter.Args, now time.Time) (time.Time, error) {
	t, err := f.Until(now)
	if err != nil && len(f.Values("until")) == 1 {
		err = errs.New(errs.Invalid, "invalid value for 'until' filter: %w", err)
	}
	return t, err
}
