package image

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	blobs "github.com/containerd/containerd/v2/core/content"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/id"
	"gantry/internal/wire"
)

// RemoveOptions says how to remove an image.
type RemoveOptions struct {
	Force bool
	Prune bool               // parents without a name too; there are none yet
	Only  []ocispec.Platform // only what an image has for these; empty for all
}

// Remove takes a name from an image, or all of them if ref is an id, and
// removes the image with its last name. What containers use stays: as a
// dangling image with Force, else the removal is errs.Conflict.
func (s *Images) Remove(ctx context.Context, ref string, o RemoveOptions) ([]wire.ImageDeleted, error) {
	q, err := parseQuery(ref)
	if err != nil {
		return nil, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	g, record, err := s.lookup(ctx, q)
	if err != nil {
		return nil, err
	}
	if g, err = s.whole(ctx, g); err != nil {
		return nil, err
	}
	if len(o.Only) > 0 {
		return s.removePlatforms(ctx, g, q, o)
	}
	user, used := s.users(g.target.Digest)
	names, err := planRemoval(g, record, q, o.Force, user, used)
	if err != nil {
		return nil, err
	}
	// The hold tells a process that comes after a crash in here to collect.
	ctx, release, err := s.store.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.removeNames(ctx, g, names, used)
}

// planRemoval decides which records of g to remove, by Docker's rules. record
// is the one that the query found, if it was by a name.
func planRemoval(g group, record string, q query, force bool, user Use, used bool) ([]string, error) {
	var names []string
	for _, r := range g.records {
		names = append(names, r.Name)
	}
	what := short(g.target.Digest)
	switch {
	case record != "" && len(names) > 1:
		return []string{record}, nil
	case record != "":
		if used && !force {
			return nil, conflict(familiar(record), "must be forced", "container "+id.Short(user.ID)+" is using its referenced image "+what)
		}
		return names, nil
	case q.repo != "":
		names = slices.DeleteFunc(names, func(n string) bool { return isDangling(n) || repository(n) != repository(q.repo) })
		if used && !force && len(names) == len(g.records) {
			return nil, conflict(q.named, "must be forced", "container "+id.Short(user.ID)+" is using its referenced image "+what)
		}
		return names, nil
	case user.Running:
		return nil, conflict(what, "cannot be forced", "image is being used by running container "+id.Short(user.ID))
	case len(g.repositories()) > 1 && !force:
		return nil, conflict(what, "must be forced", "image is referenced in multiple repositories")
	case used && !force:
		return nil, conflict(what, "must be forced", "image is being used by stopped container "+id.Short(user.ID))
	}
	return names, nil
}

// removeNames removes records of g, in order of their names, and with the last
// one the image, unless keep says that it shall stay without a name. What it
// consists of goes with the next collection.
func (s *names) removeNames(ctx context.Context, g group, names []string, keep bool) ([]wire.ImageDeleted, error) {
	slices.Sort(names)
	last := len(names) == len(g.records)
	gone := last && !keep
	err := s.store.Atomic(ctx, func(ctx context.Context) error {
		for _, n := range names {
			if err := s.forget(ctx, n); err != nil {
				return err
			}
		}
		if last && keep {
			_, err := s.store.Images().Create(ctx, images.Image{Name: dangling(g.target.Digest), Target: g.target})
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	done := []wire.ImageDeleted{}
	imageID := g.target.Digest.String()
	for _, n := range names {
		if isDangling(n) {
			continue
		}
		done = append(done, wire.ImageDeleted{Untagged: familiar(n)})
		s.publish("untag", g.target.Digest, familiar(n))
	}
	if gone {
		done = append(done, wire.ImageDeleted{Deleted: imageID})
		s.publish("delete", g.target.Digest, imageID)
	}
	return done, nil
}

// Prune removes the dangling images that no container uses, or, with the filter
// dangling=false, every image that no container uses. Filters: dangling, label,
// label!, until.
func (s *Images) Prune(ctx context.Context, f filter.Args) (wire.ImagesPruned, error) {
	if !s.pruning.TryLock() {
		return wire.ImagesPruned{}, errs.New(errs.Conflict, "a prune operation is already running")
	}
	defer s.pruning.Unlock()
	only, err := f.Bool("dangling", filter.OtherwiseTrue)
	if err != nil {
		return wire.ImagesPruned{}, err
	}
	until, err := untilOf(f, s.now())
	if err != nil {
		return wire.ImagesPruned{}, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	groups, err := s.groups(ctx)
	if err != nil {
		return wire.ImagesPruned{}, err
	}
	before, err := s.stored(ctx)
	if err != nil {
		return wire.ImagesPruned{}, err
	}
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return wire.ImagesPruned{}, err
	}
	report, err := s.pruneAll(held, groups, f, until, only)
	release()
	after, e := s.stored(ctx)
	report.SpaceReclaimed = uint64(max(before-after, 0))
	return report, errors.Join(err, e)
}

// pruneAll removes those of groups that nobody uses and that f selects. It ends
// with ctx.
func (s *names) pruneAll(ctx context.Context, groups []group, f filter.Args, until time.Time, only bool) (wire.ImagesPruned, error) {
	var report wire.ImagesPruned
	for _, g := range groups {
		if err := ctx.Err(); err != nil {
			return report, context.Cause(ctx)
		}
		if g.named() && only {
			continue
		}
		if _, used := s.users(g.target.Digest); used || !s.prunable(ctx, g, f, until) {
			continue
		}
		done, err := s.pruneOne(ctx, g)
		report.ImagesDeleted = append(report.ImagesDeleted, done...)
		if err != nil {
			return report, err
		}
	}
	return report, nil
}

// pruneOne removes one image. One without a name is told of by its id.
func (s *names) pruneOne(ctx context.Context, g group) ([]wire.ImageDeleted, error) {
	var names []string
	for _, r := range g.records {
		names = append(names, r.Name)
	}
	done, err := s.removeNames(ctx, g, names, false)
	if !g.named() {
		done = append([]wire.ImageDeleted{{Untagged: g.target.Digest.String()}}, done...)
	}
	return done, err
}

// prunable reports whether the labels and the age of g satisfy f.
func (s *names) prunable(ctx context.Context, g group, f filter.Args, until time.Time) bool {
	i, err := s.pick(ctx, g, nil, "")
	if g.pinned(i) {
		return false
	}
	if err != nil {
		return !f.Has("label") && !f.Has("label!") && until.IsZero() // broken: nothing is lost
	}
	if !until.IsZero() && !createdAt(i).Before(until) {
		return false
	}
	return f.Labels(i.Config.Config.Labels)
}

// stored returns the bytes of all blobs and unpacked layers.
func (s *catalog) stored(ctx context.Context) (int64, error) {
	ctx = content.Namespaced(ctx)
	var n int64
	err := s.store.Blobs().Walk(ctx, func(i blobs.Info) error { n += i.Size; return nil })
	if err != nil {
		return 0, err
	}
	err = s.store.Snapshots().Walk(ctx, func(ctx context.Context, i snapshots.Info) error {
		if i.Kind != snapshots.KindCommitted {
			return nil
		}
		u, err := s.store.Snapshots().Usage(ctx, i.Name)
		n += u.Size
		return err
	})
	return n, err
}
