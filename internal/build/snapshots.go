package build

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/util/compression"
	"github.com/opencontainers/go-digest"

	"gantry/internal/content"
	"gantry/internal/errs"
)

// BuildKit has names of its own for the unpacked layers of images, since it does
// not trust who else may have unpacked them. In our stores nothing gets the name
// of a chain of layers that has not been checked to be it: the names mean the
// same there, and an image that is here needs no unpacking.

// layerNames turns BuildKit's names into those of the stores.
type layerNames struct{ store *content.Store }

func (l layerNames) ours(ctx context.Context, name string) string {
	if chain, ok := snapshot.ParseLayerSnapshotID(name); ok {
		return l.store.SnapshotOf(ctx, chain)
	}
	return name
}

// unpacked are the snapshots of the stores by BuildKit's names.
type unpacked struct {
	snapshots.Snapshotter
	layerNames
}

func (u unpacked) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	return u.Snapshotter.Stat(ctx, u.ours(ctx, key))
}

func (u unpacked) Update(ctx context.Context, info snapshots.Info, paths ...string) (snapshots.Info, error) {
	info.Name = u.ours(ctx, info.Name)
	return u.Snapshotter.Update(ctx, info, paths...)
}

func (u unpacked) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	return u.Snapshotter.Usage(ctx, u.ours(ctx, key))
}

func (u unpacked) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	return u.Snapshotter.Mounts(ctx, u.ours(ctx, key))
}

func (u unpacked) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	ctx, err := u.lease(ctx, u.files(key))
	if err != nil {
		return nil, err
	}
	parent = u.ours(ctx, parent)
	// Its records are three transactions, of which two become one.
	var list []mount.Mount
	err = u.store.Ledger.Atomic(ctx, func(ctx context.Context) error {
		var err error
		list, err = u.Snapshotter.Prepare(ctx, key, parent, opts...)
		return err
	})
	return list, err
}

// View shows a committed snapshot. That of the overlay driver is nothing but the
// directories below it, so none is made: whoever reads holds what it reads.
func (u unpacked) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	parent = u.ours(ctx, parent)
	if parent == "" || u.store.Layout().Driver != content.OverlayFS {
		ctx, err := u.lease(ctx, u.files(key))
		if err != nil {
			return nil, err
		}
		return u.Snapshotter.View(ctx, key, parent, opts...)
	}
	ctx, err := u.lease(ctx, u.files(parent))
	if err != nil {
		return nil, err
	}
	dirs, err := u.store.DirsOf(ctx, parent)
	if err != nil {
		return nil, fmt.Errorf("show snapshot %s: %w", parent, err)
	}
	return []mount.Mount{shown(dirs)}, nil
}

// shown is how directories, the topmost first, are mounted over each other to be
// read. Pure.
func shown(dirs []string) mount.Mount {
	if len(dirs) == 1 {
		return mount.Mount{Type: "bind", Source: dirs[0], Options: []string{"ro", "rbind"}}
	}
	return mount.Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + strings.Join(dirs, ":"), "index=off"}}
}

func (u unpacked) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	name = u.ours(ctx, name)
	ctx, err := u.lease(ctx, u.files(name))
	if err != nil {
		return err
	}
	return u.Snapshotter.Commit(ctx, name, key, opts...)
}

func (u unpacked) Remove(ctx context.Context, key string) error {
	return u.Snapshotter.Remove(ctx, u.ours(ctx, key))
}

// holders are the leases of the stores by BuildKit's names.
type holders struct {
	leases.Manager
	layerNames
}

func (h holders) AddResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	r.ID = h.ours(ctx, r.ID)
	return h.Manager.AddResource(ctx, l, r)
}

func (h holders) DeleteResource(ctx context.Context, l leases.Lease, r leases.Resource) error {
	r.ID = h.ours(ctx, r.ID)
	return h.Manager.DeleteResource(ctx, l, r)
}

// Keys of BuildKit's books about a record (its cache/metadata.go).
const (
	blobKey     = "cache.blob"
	snapshotKey = "cache.snapshot"
	chainKey    = "cache.chainID"
)

type sourceKey struct{}

// exported is what an export makes an image of, and whose session it is. flushed
// returns when the files of the steps are on disk.
type exported struct {
	src     *exporter.Source
	session string
	flushed func() error
}

// flushes begins to write the files of the steps of an export to disk, if some are
// of no image yet: beside the packing of layers, which only reads. What is made
// during the export, as BuildKit does with merges, is flushed later, all of it.
func (e exported) flushes(ctx context.Context, s *content.Store) func() error {
	news := false
	for _, ref := range e.refs() {
		chain := ref.LayerChain()
		for _, r := range chain {
			news = news || r.GetString(blobKey) == ""
			if !ended(ctx, s, r) {
				_ = chain.Release(context.WithoutCancel(ctx)) // of our own references
				return s.Flush
			}
		}
		_ = chain.Release(context.WithoutCancel(ctx))
	}
	if !news || s.Layout().Whole {
		return s.Flush
	}
	done := make(chan error, 1)
	go func() { done <- s.Flush() }()
	return sync.OnceValue(func() error { return <-done })
}

// ended tells whether the files of a layer are written: its snapshot is there, or
// that of the step which it is to be made of.
func ended(ctx context.Context, s *content.Store, r cache.RefMetadata) bool {
	if _, err := s.Snapshots().Stat(content.Namespaced(ctx), layerNames{s}.ours(ctx, r.GetString(snapshotKey))); err == nil {
		return true
	}
	step, ok := r.GetEqualMutable()
	if !ok {
		return false
	}
	_, err := s.Snapshots().Stat(content.Namespaced(ctx), step.GetString(snapshotKey))
	return err == nil
}

// refs are the results that the images consist of, one a platform.
func (e exported) refs() []cache.ImmutableRef {
	var list []cache.ImmutableRef
	for _, ref := range append([]cache.ImmutableRef{e.src.Ref}, slices.Collect(maps.Values(e.src.Refs))...) {
		if ref != nil {
			list = append(list, ref)
		}
	}
	return list
}

// fetch brings the layers of an export that were found in a registry's cache and
// not needed so far: an image is not named before it is whole.
func fetch(ctx context.Context, _ *content.Store) error {
	e, ok := ctx.Value(sourceKey{}).(exported)
	if !ok {
		return nil
	}
	for _, ref := range e.refs() {
		list, err := ref.GetRemotes(ctx, false, cacheconfig.RefConfig{Compression: compression.New(compression.Default)}, false, session.NewGroup(e.session))
		if err != nil {
			return err
		}
		for _, r := range list {
			if lazy, ok := r.Provider.(cache.Unlazier); ok {
				if err := lazy.Unlazy(ctx); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// adopt makes the files of the steps that an export consists of the unpacked
// layers of its images. What can't be one, since BuildKit keeps it in another
// form, is unpacked by whoever needs it.
func adopt(ctx context.Context, s *content.Store) error {
	e, ok := ctx.Value(sourceKey{}).(exported)
	if !ok || s.Layout().Whole {
		return nil
	}
	for _, ref := range e.refs() {
		chain := ref.LayerChain()
		made := madeOf(chain)
		_ = chain.Release(context.WithoutCancel(ctx)) // of our own references
		// One that has gone meanwhile is unpacked by whoever needs it.
		if err := s.Adopt(ctx, made, e.flushed); err != nil && errs.KindOf(err) != errs.NotFound {
			return err
		}
	}
	return nil
}

// madeOf are the layers of a chain as the stores know them, as far as they have a
// digest.
func madeOf(layers cache.RefList) []content.Made {
	var list []content.Made
	for _, r := range layers {
		chain, err := digest.Parse(r.GetString(chainKey))
		if err != nil {
			return list
		}
		name := r.GetString(snapshotKey)
		if _, ok := snapshot.ParseLayerSnapshotID(name); ok {
			name = "" // it has the name of its chain
		}
		list = append(list, content.Made{Name: name, Chain: chain})
	}
	return list
}
