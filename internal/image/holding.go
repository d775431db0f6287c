package image

import (
	"context"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// pinLabel marks a record (by its own labels) or an image (by those of its
// configuration) that neither a prune nor the disk budget removes. On an image
// "false" and nothing do not count.
const pinLabel = "gantry.pin"

// A Holding is what an image has on the disk, and why it may not go.
type Holding struct {
	ID     string
	Names  []string         // short
	Pieces map[string]int64 // bytes, by what they are; images share them
	Added  time.Time        // when it last got a name
	Used   bool             // by a container
	Pinned bool
}

// Holdings returns what all images have on the disk.
func (s *Images) Holdings(ctx context.Context) ([]Holding, error) {
	groups, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Holding, 0, len(groups))
	for _, g := range groups {
		z, err := s.sizes(ctx, g)
		if err != nil {
			continue // a record that can't be read keeps what it keeps
		}
		h := Holding{ID: g.target.Digest.String(), Names: g.names(), Pieces: z.pieces, Pinned: g.pinned(z.best)}
		own := z.total
		for _, n := range z.pieces {
			own -= n
		}
		h.Pieces["records "+h.ID] = own
		_, h.Used = s.users(g.target.Digest)
		for _, r := range g.records {
			if r.UpdatedAt.After(h.Added) {
				h.Added = r.UpdatedAt
			}
		}
		list = append(list, h)
	}
	return list, nil
}

// pinned reports whether a record of g is pinned, or i is by its maker.
func (g group) pinned(i *Image) bool {
	if i != nil {
		if v := i.Config.Config.Labels[pinLabel]; v != "" && v != "false" {
			return true
		}
	}
	return slices.ContainsFunc(g.records, func(r images.Image) bool { return r.Labels[pinLabel] != "" })
}

// Evict removes an image with all its names, if no container uses it and it is
// not pinned; errs.Conflict else. Its files are deleted behind it.
func (s *Images) Evict(ctx context.Context, imageID string) ([]wire.ImageDeleted, error) {
	d, err := digest.Parse(imageID)
	if err != nil {
		return nil, noSuchImage(imageID)
	}
	s.change.Lock()
	defer s.change.Unlock()
	g, _, err := s.lookup(ctx, query{text: imageID, digest: d, named: imageID})
	if err != nil {
		return nil, err
	}
	best, _ := s.pick(ctx, g, nil, "") // broken: it has no labels
	if _, used := s.users(d); used || g.pinned(best) {
		return nil, errs.New(errs.Conflict, "image %s is in use or pinned", short(d))
	}
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.pruneOne(held, g)
}

// PinName keeps what a name means, now and later, from every prune and from the
// disk budget, until UnpinName or the name's removal. It returns the name. ref
// may be an id if the image has names: then all are pinned.
func (s *names) PinName(ctx context.Context, ref string) error { return s.setPin(ctx, ref, "1") }

// UnpinName ends what PinName began.
func (s *names) UnpinName(ctx context.Context, ref string) error { return s.setPin(ctx, ref, "") }

func (s *names) setPin(ctx context.Context, ref, value string) error {
	q, err := parseQuery(ref)
	if err != nil {
		return err
	}
	s.change.Lock()
	defer s.change.Unlock()
	g, record, err := s.lookup(ctx, q)
	if err != nil {
		return err
	}
	return s.store.Atomic(ctx, func(ctx context.Context) error {
		for _, r := range g.records {
			if record != "" && r.Name != record {
				continue
			}
			r.Labels = map[string]string{pinLabel: value}
			if _, err := s.store.Images().Update(ctx, r, "labels."+pinLabel); err != nil {
				return err
			}
		}
		return nil
	})
}

// Occupied returns the bytes of all blobs and unpacked layers.
func (s *catalog) Occupied(ctx context.Context) (int64, error) {
	return s.stored(content.Namespaced(ctx))
}
