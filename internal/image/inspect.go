package image

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// InspectOptions says what to find out about an image.
type InspectOptions struct {
	Manifests bool
	Platform  *ocispec.Platform // nil for this machine's, or any
}

// Inspect describes the image that ref means.
func (s *Images) Inspect(ctx context.Context, ref string, o InspectOptions) (wire.ImageInspect, error) {
	q, err := parseQuery(ref)
	if err != nil {
		return wire.ImageInspect{}, err
	}
	g, _, err := s.lookup(ctx, q)
	if err != nil {
		return wire.ImageInspect{}, err
	}
	if g, err = s.whole(ctx, g); err != nil {
		return wire.ImageInspect{}, err
	}
	i, err := s.pick(ctx, g, o.Platform, ref)
	if err != nil {
		return wire.ImageInspect{}, err
	}
	z, err := s.sizes(ctx, g)
	if err != nil {
		return wire.ImageInspect{}, err
	}
	c := i.Config
	var r wire.ImageInspect
	r.ID, r.RepoTags, r.RepoDigests, r.Author, r.Config = i.ID.String(), g.names(), digests(g), c.Author, &c.Config
	r.Architecture, r.Variant, r.Os, r.OsVersion = i.Platform.Architecture, i.Platform.Variant, i.Platform.OS, i.Platform.OSVersion
	r.Size, r.Descriptor = z.total, &i.Target
	r.Parent = s.parentOf(ctx, i)
	r.RootFS.Type = c.RootFS.Type
	for _, d := range c.RootFS.DiffIDs {
		r.RootFS.Layers = append(r.RootFS.Layers, d.String())
	}
	if c.Created != nil {
		r.Created = c.Created.Format(time.RFC3339Nano)
	}
	if n := len(c.History); n > 0 {
		r.Comment = c.History[n-1].Comment
	}
	r.Metadata.LastTagTime = i.Updated
	r.Identity = s.identity(ctx, g)
	if o.Manifests {
		r.Manifests = z.manifests
	}
	return r, nil
}

// identity tells which repositories an image was pulled from, or pushed to; nil if
// none is known.
func (s *catalog) identity(ctx context.Context, g group) *wire.ImageIdentity {
	list, err := content.NewIntake(s.store).Origins(ctx, g.target.Digest)
	if err != nil || len(list) == 0 {
		return nil // it says no more than that
	}
	i := &wire.ImageIdentity{}
	for _, r := range list {
		i.Pull = append(i.Pull, wire.PullIdentity{Repository: r})
	}
	return i
}

// History tells how the image that ref means was made, the last step first.
func (s *Images) History(ctx context.Context, ref string, p *ocispec.Platform) ([]wire.ImageHistory, error) {
	q, err := parseQuery(ref)
	if err != nil {
		return nil, err
	}
	g, _, err := s.lookup(ctx, q)
	if err != nil {
		return nil, err
	}
	if g, err = s.whole(ctx, g); err != nil {
		return nil, err
	}
	i, err := s.pick(ctx, g, p, q.named)
	if err != nil {
		return nil, err
	}
	list := []wire.ImageHistory{}
	layer := 0
	for _, h := range i.Config.History {
		item := wire.ImageHistory{ID: "<missing>", Comment: h.Comment, CreatedBy: h.CreatedBy}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && layer < len(i.Layers) {
			layer++
			item.Size, err = s.store.Usage(ctx, content.Chain(i.Layers, layer))
			if err != nil && !errs.Is(err, errs.NotFound) {
				return nil, err
			}
		}
		list = append(list, item)
	}
	if n := len(list); n > 0 {
		list[n-1].ID, list[n-1].Tags = i.ID.String(), g.names()
	}
	s.nameParents(ctx, i, list)
	slices.Reverse(list)
	return list, nil
}

// nameParents says, in a history whose first step comes first, which steps are
// images of their own that are still here.
func (s *Images) nameParents(ctx context.Context, i *Image, list []wire.ImageHistory) {
	for end := len(list); ; {
		id := s.parentOf(ctx, i)
		q, err := parseQuery(id)
		if id == "" || err != nil {
			return
		}
		g, _, err := s.lookup(ctx, q)
		if err != nil {
			return
		}
		if g, err = s.whole(ctx, g); err != nil {
			return
		}
		if i, err = s.pick(ctx, g, nil, id); err != nil {
			return
		}
		n := len(i.Config.History)
		if n == 0 || n >= end {
			return
		}
		end = n
		list[n-1].ID, list[n-1].Tags = id, g.names()
	}
}

// Usage tells what all images occupy, for `system df`. Items are those of List
// with their shared sizes; TotalSize counts what they share once.
func (s *Images) Usage(ctx context.Context) (wire.ImageDiskUsage, error) {
	var u wire.ImageDiskUsage
	list, pieces, err := s.measured(ctx, ListOptions{SharedSize: true})
	if err != nil {
		return u, err
	}
	if u.TotalSize, err = s.stored(ctx); err != nil {
		return u, err
	}
	u.Items, u.TotalCount = list, int64(len(list))
	var used int64 // by images with containers; what they share, once
	seen := map[string]bool{}
	for _, i := range list {
		if i.Containers <= 0 {
			continue
		}
		u.ActiveCount++
		used += i.Size
		for key, n := range pieces[digest.Digest(i.ID)] {
			if seen[key] {
				used -= n
			}
			seen[key] = true
		}
	}
	u.Reclaimable = max(u.TotalSize-used, 0)
	return u, nil
}
