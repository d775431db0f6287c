package image

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/wire"
)

// removePlatforms removes what an image for several platforms has for some of
// them; its names stay. With all that is here goes the image, as by Remove.
// errs.NotFound if one of the platforms is not here. What a container or another
// image needs is errs.Conflict, also by force: its files would be gone.
// s.change is held.
func (s *Images) removePlatforms(ctx context.Context, g group, q query, o RemoveOptions) ([]wire.ImageDeleted, error) {
	all, err := s.present(ctx, g.target)
	if err != nil {
		return nil, err
	}
	gone, left, err := splitPlatforms(all, o.Only, q.named)
	if err != nil {
		return nil, err
	}
	if u, used := s.users(g.target.Digest); used {
		return nil, conflict(q.named, "cannot be forced", "container "+id.Short(u.ID)+" is using its referenced image "+short(g.target.Digest))
	}
	ctx, release, err := s.store.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if len(left) == 0 {
		return s.pruneOne(ctx, g)
	}
	for _, c := range gone {
		if other, shared, err := s.alsoIn(ctx, g, c.manifest.Digest); err != nil {
			return nil, err
		} else if shared {
			return nil, conflict(q.named, "cannot be forced", "image "+other+" has the same for this platform")
		}
	}
	var drop []digest.Digest
	for _, c := range gone {
		drop = append(drop, c.manifest.Digest)
	}
	told, err := s.attested(ctx, g.target)
	if err != nil {
		return nil, err
	}
	for _, a := range told {
		if slices.Contains(drop, a.of) {
			drop = append(drop, a.manifest.Digest)
		}
	}
	err = s.store.Atomic(ctx, func(ctx context.Context) error {
		for _, d := range drop {
			if err := s.store.Blobs().Delete(ctx, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var done []wire.ImageDeleted
	for _, c := range gone {
		done = append(done, wire.ImageDeleted{Deleted: c.manifest.Digest.String()})
		s.publish("delete", c.manifest.Digest, c.manifest.Digest.String())
	}
	return done, nil
}

// splitPlatforms tells what is there for one of the platforms from the rest. Pure.
func splitPlatforms(all []*parts, only []ocispec.Platform, ref string) (gone, left []*parts, err error) {
	for _, p := range only {
		if !slices.ContainsFunc(all, func(c *parts) bool { return matches(p, c.platform) }) {
			return nil, nil, errPlatform(ref, p)
		}
	}
	for _, c := range all {
		if wanted(c.platform, only) {
			gone = append(gone, c)
		} else {
			left = append(left, c)
		}
	}
	if len(gone) == 0 {
		return nil, nil, errs.New(errs.Invalid, "no platform was named")
	}
	return gone, left, nil
}

// alsoIn returns how another image than g is called that leads to a manifest.
func (s *catalog) alsoIn(ctx context.Context, g group, m digest.Digest) (name string, shared bool, err error) {
	groups, err := s.groups(content.Namespaced(ctx))
	if err != nil {
		return "", false, err
	}
	for _, other := range groups {
		if other.target.Digest == g.target.Digest {
			continue
		}
		list, err := s.manifests(ctx, other.target)
		if err != nil {
			continue // what can't be read needs nothing
		}
		if slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == m }) {
			return append(other.names(), short(other.target.Digest))[0], true, nil
		}
	}
	return "", false, nil
}
