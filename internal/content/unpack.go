package content

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"gantry/internal/id"
	"gantry/internal/keyed"
	"gantry/internal/layer"
)

// upperLabel is the label by which the overlay snapshotter tells a snapshot's
// directory.
const upperLabel = "containerd.io/snapshot/overlay.upperdir"

// A Layer is a blob and the digest of the tar in it.
type Layer struct {
	Blob   ocispec.Descriptor
	DiffID digest.Digest
}

// Chain returns the chain ID of the lowest n of layers: the name of the
// directory that they are unpacked to. It is empty for none.
func Chain(layers []Layer, n int) digest.Digest {
	if n == 0 {
		return ""
	}
	ids := make([]digest.Digest, n)
	for i := range ids {
		ids[i] = layers[i].DiffID
	}
	return identity.ChainID(ids)
}

// Unpack makes the directories of layers, lowest first, as far as they do not
// exist, each once however many ask for it. When it returns, they are on disk.
// A layer that does not have the digest it shall, or is refused by package
// layer, is errs.Invalid. The context must be one of Hold.
//
// Several layers are unpacked beside each other, before those below them are
// there, and put in place from the lowest on.
func (s *Store) Unpack(ctx context.Context, layers []Layer) error {
	ctx, u := Namespaced(ctx), &s.unpacker
	todo, err := u.missing(ctx, layers)
	if err != nil {
		return err
	}
	ahead, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { stop(); wg.Wait() }()
	if len(todo) > 1 && !s.driver.whole {
		for _, i := range todo[1:] {
			// What is wrong with it, if something is, shows again below.
			wg.Go(func() { _ = s.Stage(ahead, layers[:i+1]) })
		}
	}
	for _, i := range todo {
		chain, parent := Chain(layers, i+1), Chain(layers, i)
		_, err := u.unpacks.Do(ctx, chain.String(), func(ctx context.Context) (struct{}, error) {
			if u.unpacked(ctx, chain) {
				return struct{}{}, nil
			}
			return struct{}{}, u.unpackOne(ctx, layers[i], chain, parent)
		})
		if err != nil {
			return fmt.Errorf("failed to extract layer %s: %w", layers[i].DiffID, err)
		}
	}
	return nil
}

// unpacker is what is being unpacked.
type unpacker struct {
	s       *Store
	unpacks keyed.Flight[string, struct{}]
	stages  keyed.Flight[string, struct{}]
	staged  sync.Map      // chain ID → snapshot key, of layers unpacked ahead of those below
	slots   chan struct{} // bounds how many layers are unpacked at once
	zstd    layer.Decompressors
	heap    frugal
}

// missing returns the indexes of the layers that are not unpacked. They, and the
// others, stay from here on.
func (u *unpacker) missing(ctx context.Context, layers []Layer) ([]int, error) {
	chains := make([]digest.Digest, len(layers))
	for i := range layers {
		chains[i] = Chain(layers, i+1)
	}
	// Held before they are looked for: what is found then, stays.
	if err := u.s.leaseLayers(ctx, chains); err != nil {
		return nil, err
	}
	var todo []int
	for i, chain := range chains {
		if !u.unpacked(ctx, chain) {
			todo = append(todo, i)
		}
	}
	return todo, nil
}

func (u *unpacker) unpacked(ctx context.Context, chain digest.Digest) bool {
	info, err := u.s.Snapshots().Stat(ctx, u.s.SnapshotOf(ctx, chain))
	return err == nil && info.Kind == snapshots.KindCommitted
}

// Stage unpacks the last of layers ahead of time, without those below it, for
// the Unpack to come. The context must be one of Hold, and hold until then.
func (s *Store) Stage(ctx context.Context, layers []Layer) error {
	ctx, u := Namespaced(ctx), &s.unpacker
	if s.driver.whole && len(layers) > 1 {
		return nil // a whole tree begins with the one below
	}
	last := layers[len(layers)-1]
	chain := Chain(layers, len(layers))
	_, err := u.stages.Do(ctx, chain.String(), func(ctx context.Context) (struct{}, error) {
		if _, ok := u.staged.Load(chain); ok || u.unpacked(ctx, chain) {
			return struct{}{}, nil
		}
		f, err := u.fill(ctx, last, "", len(layers) > 1)
		if err == nil {
			u.staged.Store(chain, f)
		}
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("failed to extract layer %s: %w", last.DiffID, err)
	}
	return nil
}

// A filled is a snapshot with a layer in it that has no name yet.
type filled struct {
	key     string
	dir     string
	implied []string // for layer.Adopt
}

// stagedFor returns what Stage has made for a chain, or is about to make; false
// if there is nothing.
func (u *unpacker) stagedFor(ctx context.Context, chain digest.Digest) (filled, bool) {
	_, _ = u.stages.Do(ctx, chain.String(), func(context.Context) (struct{}, error) { return struct{}{}, nil })
	f, ok := u.staged.LoadAndDelete(chain)
	if !ok {
		return filled{}, false
	}
	return f.(filled), true
}

// fill is fillOnce, and again where the disk was full and room could be made.
func (u *unpacker) fill(ctx context.Context, l Layer, parent digest.Digest, blind bool) (filled, error) {
	for {
		f, err := u.fillOnce(ctx, l, parent, blind)
		if err == nil || !madeRoom(ctx, u.s, err) {
			return f, err
		}
	}
}

// fillOnce unpacks a layer into a snapshot of its own, over parent if that is not
// empty. It is on disk.
func (u *unpacker) fillOnce(ctx context.Context, l Layer, parent digest.Digest, blind bool) (f filled, err error) {
	select {
	case u.slots <- struct{}{}:
		defer func() { <-u.slots }()
	case <-ctx.Done():
		return f, context.Cause(ctx)
	}
	u.heap.begin()
	defer u.heap.end()
	sn, key := u.s.Snapshots(), "unpack-"+id.New()
	r, _, err := u.s.Open(ctx, l.Blob.Digest)
	if err != nil {
		return f, err
	}
	defer r.Close()
	mounts, err := sn.Prepare(ctx, key, u.s.SnapshotOf(ctx, parent))
	if err != nil {
		return f, kind(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, kind(sn.Remove(context.WithoutCancel(ctx), key)))
		}
	}()
	dir, err := directory(mounts)
	if err != nil {
		return f, err
	}
	var parents []string
	if parent != "" && !u.s.driver.whole {
		if parents, err = u.s.Dirs(ctx, parent); err != nil {
			return f, err
		}
	}
	_, stats, err := layer.Unpack(ctx, dir, r, l.DiffID, layer.Options{Limits: u.s.limits, Parents: parents, Blind: blind, Whole: u.s.driver.whole, Decompressors: &u.zstd})
	if err != nil {
		return f, err
	}
	return filled{key, dir, stats.Implied}, Flush(dir)
}

// unpackOne makes the directory of one layer: in a snapshot of its own, which
// gets its name when it is complete and on disk.
func (u *unpacker) unpackOne(ctx context.Context, l Layer, chain, parent digest.Digest) error {
	sn := u.s.Snapshots()
	if f, ok := u.stagedFor(ctx, chain); ok {
		err := u.place(ctx, f, chain, parent)
		if err == nil {
			return nil
		}
		// Whoever staged it has given up, and it may be gone.
		_ = sn.Remove(ctx, f.key)
	}
	f, err := u.fill(ctx, l, parent, false)
	if err != nil {
		return err
	}
	err = sn.Commit(ctx, chain.String(), f.key)
	if errdefs.IsAlreadyExists(err) {
		return kind(sn.Remove(ctx, f.key)) // somebody outside of Unpack was faster
	}
	if err != nil {
		err = errors.Join(kind(err), kind(sn.Remove(context.WithoutCancel(ctx), f.key)))
	}
	return err
}

// place puts what was staged over its parent, and gives it its name.
func (u *unpacker) place(ctx context.Context, f filled, chain, parent digest.Digest) error {
	var opts []snapshots.Opt
	if parent != "" {
		below, err := u.s.Dirs(ctx, parent)
		if err != nil {
			return err
		}
		if len(f.implied) > 0 {
			if err := layer.Adopt(f.dir, f.implied, below); err != nil {
				return err
			}
			if err := Flush(f.dir); err != nil {
				return err
			}
		}
		opts = append(opts, snapshots.WithParent(u.s.SnapshotOf(ctx, parent)))
	}
	return kind(u.s.Snapshots().Commit(ctx, chain.String(), f.key, opts...))
}

// directory reads the writable directory off what a snapshotter would mount.
func directory(mounts []mount.Mount) (string, error) {
	if len(mounts) == 1 {
		m := mounts[0]
		if m.Type == "bind" {
			return m.Source, nil
		}
		for _, o := range m.Options {
			if v, ok := strings.CutPrefix(o, "upperdir="); ok && m.Type == "overlay" {
				return v, nil
			}
		}
	}
	return "", fmt.Errorf("snapshot that is neither a directory nor an overlay: %v", mounts)
}

// Flush writes what is dirty in the file system of dir to disk.
func Flush(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// Dirs returns the directories of the layers up to chain, topmost first, as
// overlay file systems take them. errs.NotFound if chain is not unpacked. No
// layers have no directories.
func (s *Store) Dirs(ctx context.Context, chain digest.Digest) ([]string, error) {
	ctx = Namespaced(ctx)
	if dirs, ok := s.dirs.Load(chain); ok {
		return slices.Clone(dirs.([]string)), nil
	}
	dirs, err := s.DirsOf(ctx, s.SnapshotOf(ctx, chain))
	if err != nil {
		return nil, err
	}
	s.dirs.Store(chain, slices.Clone(dirs))
	return dirs, nil
}

// Usage returns the bytes that the unpacked layer of chain occupies, without
// those below it.
func (s *Store) Usage(ctx context.Context, chain digest.Digest) (int64, error) {
	u, err := s.Snapshots().Usage(Namespaced(ctx), s.SnapshotOf(ctx, chain))
	return u.Size, kind(err)
}
