package content

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/id"
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
func (s *Store) Unpack(ctx context.Context, layers []Layer) error {
	ctx = Namespaced(ctx)
	chains := make([]digest.Digest, len(layers))
	for i := range layers {
		chains[i] = Chain(layers, i+1)
	}
	// Held before they are looked for: what is found then, stays.
	if err := s.leaseLayers(ctx, chains); err != nil {
		return err
	}
	for i, chain := range chains {
		if s.unpacked(ctx, chain) {
			continue
		}
		parent := Chain(layers, i)
		_, err := s.unpacks.Do(ctx, chain.String(), func(ctx context.Context) (struct{}, error) {
			if s.unpacked(ctx, chain) {
				return struct{}{}, nil
			}
			return struct{}{}, s.unpackOne(ctx, layers[i], chain, parent)
		})
		if err != nil {
			return fmt.Errorf("failed to extract layer %s: %w", layers[i].DiffID, err)
		}
	}
	return nil
}

func (s *Store) unpacked(ctx context.Context, chain digest.Digest) bool {
	info, err := s.Snapshots().Stat(ctx, chain.String())
	return err == nil && info.Kind == snapshots.KindCommitted
}

// unpackOne makes the directory of one layer: in a snapshot of its own, which
// gets its name when it is complete and on disk.
func (s *Store) unpackOne(ctx context.Context, l Layer, chain, parent digest.Digest) (err error) {
	sn, key := s.Snapshots(), "unpack-"+id.New()
	r, _, err := s.Open(ctx, l.Blob.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	mounts, err := sn.Prepare(ctx, key, parent.String())
	if err != nil {
		return kind(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, kind(sn.Remove(context.WithoutCancel(ctx), key)))
		}
	}()
	dir, parents, err := directories(mounts)
	if err != nil {
		return err
	}
	if _, _, err := layer.Unpack(ctx, dir, r, l.DiffID, layer.Options{Limits: s.limits, Parents: parents}); err != nil {
		return err
	}
	if err := syncFS(dir); err != nil {
		return err
	}
	err = sn.Commit(ctx, chain.String(), key)
	if errdefs.IsAlreadyExists(err) {
		return kind(sn.Remove(ctx, key)) // somebody outside of Unpack was faster
	}
	return kind(err)
}

// directories reads the writable directory and those below it off what the
// overlay snapshotter would mount.
func directories(mounts []mount.Mount) (upper string, lower []string, err error) {
	if len(mounts) == 1 {
		m := mounts[0]
		if m.Type == "bind" {
			return m.Source, nil, nil
		}
		for _, o := range m.Options {
			if v, ok := strings.CutPrefix(o, "upperdir="); ok {
				upper = v
			}
			if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
				lower = strings.Split(v, ":")
			}
		}
		if m.Type == "overlay" && upper != "" {
			return upper, lower, nil
		}
	}
	return "", nil, fmt.Errorf("snapshot that is neither a directory nor an overlay: %v", mounts)
}

// syncFS writes what is dirty in the file system of dir to disk.
func syncFS(dir string) error {
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
	var dirs []string
	for key := chain.String(); key != ""; {
		info, err := s.Snapshots().Stat(ctx, key)
		if err != nil {
			return nil, kind(err)
		}
		dir := info.Labels[upperLabel]
		if info.Kind != snapshots.KindCommitted || filepath.Dir(filepath.Dir(dir)) != s.layers {
			return nil, errs.New(errs.Corrupt, "snapshot %s is not a layer", key)
		}
		dirs = append(dirs, dir)
		key = info.Parent
	}
	s.dirs.Store(chain, slices.Clone(dirs))
	return dirs, nil
}

// Usage returns the bytes that the unpacked layer of chain occupies, without
// those below it.
func (s *Store) Usage(ctx context.Context, chain digest.Digest) (int64, error) {
	u, err := s.Snapshots().Usage(Namespaced(ctx), chain.String())
	return u.Size, kind(err)
}
