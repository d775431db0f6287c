package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
)

// Tag gives the image that ref means another name. If the name was another
// image's, and its last one, that image becomes dangling.
func (s *Images) Tag(ctx context.Context, ref, repo, tag string) error {
	name, err := newName(repo, tag)
	if err != nil {
		return err
	}
	q, err := parseQuery(ref)
	if err != nil {
		return err
	}
	s.change.Lock()
	defer s.change.Unlock()
	g, _, err := s.lookup(ctx, q)
	if err != nil {
		return err
	}
	if err := s.record(ctx, name, g.target); err != nil {
		return err
	}
	s.publish("tag", g.target.Digest, familiar(name))
	return nil
}

// setName is record for callers that do not hold the names.
func (s *names) setName(ctx context.Context, name string, target ocispec.Descriptor) error {
	s.change.Lock()
	defer s.change.Unlock()
	return s.record(ctx, name, target)
}

// record makes name mean target; an empty name means none, which keeps the
// image as a dangling one unless it has a name already. What target needs must
// be on disk. s.change is held.
func (s *names) record(ctx context.Context, name string, target ocispec.Descriptor) error {
	err := s.store.Atomic(ctx, func(ctx context.Context) error {
		g, err := s.whole(ctx, group{target: target})
		if err != nil {
			return err
		}
		if name == "" {
			if len(g.records) > 0 {
				return nil
			}
			_, err := s.store.Images().Create(ctx, images.Image{Name: dangling(target.Digest), Target: target})
			return err
		}
		old, err := s.store.Images().Get(ctx, name)
		switch {
		case errdefs.IsNotFound(err):
			_, err = s.store.Images().Create(ctx, images.Image{Name: name, Target: target})
		case err == nil:
			if old.Target.Digest != target.Digest {
				if err := s.orphan(ctx, old); err != nil {
					return err
				}
			}
			_, err = s.store.Images().Update(ctx, images.Image{Name: name, Target: target}, "target")
		}
		if err != nil {
			return err
		}
		return s.forget(ctx, dangling(target.Digest))
	})
	if err != nil {
		return fmt.Errorf("record image %s: %w", target.Digest, err)
	}
	return nil
}

// orphan makes the image of record r dangling if r is its only one.
func (s *names) orphan(ctx context.Context, r images.Image) error {
	g, err := s.whole(ctx, group{target: r.Target})
	if err != nil || len(g.records) > 1 {
		return err
	}
	_, err = s.store.Images().Create(ctx, images.Image{Name: dangling(r.Target.Digest), Target: r.Target})
	return err
}

// forget removes a record, if there is one.
func (s *names) forget(ctx context.Context, name string) error {
	if err := s.store.Images().Delete(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove image record %s: %w", name, err)
	}
	return nil
}

// conflict is what forbids the removal of an image.
func conflict(what, must, why string) error {
	return errs.New(errs.Conflict, "conflict: unable to delete %s (%s) - %s", what, must, why)
}

// users returns a container that uses an image, a running one if there is any.
func (s *names) users(imageID digest.Digest) (u Use, used bool) {
	for _, c := range s.uses(imageID.String()) {
		if !used || c.Running && !u.Running {
			u, used = c, true
		}
	}
	return u, used
}
