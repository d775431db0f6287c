// Package snapshot keeps unpacked layers for the storage drivers that overlayfs's
// own store does not serve: as whole trees (copies, or snapshots of btrfs), or as
// images of a read-only file system (erofs).
//
// Package content opens one of them and does not see the difference: each layer
// has the directory <root>/snapshots/<number>/fs. The books are those of
// containerd (<root>/metadata.db). What a driver does to directories is behind
// Way; the package must not know of images.
//
// Durability: Commit returns when the layer and its record are on disk. A
// directory without a record is left-over work, which Cleanup deletes.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"

	"gantry/internal/errs"
	"gantry/internal/id"
)

// dirLabel is the label by which a layer's directory is told, as containerd's
// own overlay store does.
const dirLabel = "containerd.io/snapshot/overlay.upperdir"

// A Way is how a driver makes directories. Each of its directories, home, is
// the driver's alone; what it shows as the layer is home/fs.
type Way interface {
	// Make makes home/fs in the empty home, over the layer whose home is
	// parent, if that is not empty.
	Make(ctx context.Context, home, parent string) error
	// Seal is called when the layer is complete, and returns the space it
	// takes. Afterwards it is on disk.
	Seal(ctx context.Context, home, parent string) (snapshots.Usage, error)
	// Show makes a sealed layer's home/fs readable, if it is not.
	Show(home string) error
	// Drop removes home and all in it.
	Drop(home string) error
	// Hide undoes all Shows.
	Hide(homes string) error
}

// A Store is the layers of one driver.
type Store struct {
	way  Way
	dir  string // of the homes
	meta *storage.MetaStore

	mu   sync.Mutex
	busy map[string]bool // names of homes that are being made
}

// Open opens the layers below root, or makes a place for them.
func Open(root string, way Way) (*Store, error) {
	dir := filepath.Join(root, "snapshots")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	meta, err := storage.NewMetaStore(filepath.Join(root, "metadata.db"))
	if err != nil {
		return nil, err
	}
	return &Store{way: way, dir: dir, meta: meta, busy: map[string]bool{}}, nil
}

// Close closes the store. Containers that use its layers go on.
func (s *Store) Close() error { return errors.Join(s.way.Hide(s.dir), s.meta.Close()) }

func (s *Store) home(number string) string { return filepath.Join(s.dir, number) }

func (s *Store) label(number string, info *snapshots.Info) {
	if info.Labels == nil {
		info.Labels = map[string]string{}
	}
	info.Labels[dirLabel] = filepath.Join(s.home(number), "fs")
}

// Stat describes a layer, and has its directory shown. If that is damaged it is not
// there.
func (s *Store) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	var number string
	err = s.meta.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		number, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	if err != nil {
		return info, err
	}
	s.label(number, &info)
	if info.Kind == snapshots.KindCommitted {
		if err = s.way.Show(s.home(number)); errs.Is(err, errs.Corrupt) {
			err = nil
		}
	}
	return info, err
}

// Update changes labels.
func (s *Store) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (out snapshots.Info, err error) {
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		if out, err = storage.UpdateInfo(ctx, info, fieldpaths...); err != nil {
			return err
		}
		number, _, _, err := storage.GetInfo(ctx, out.Name)
		s.label(number, &out)
		return err
	})
	return out, err
}

// Usage returns the space that Seal has told of.
func (s *Store) Usage(ctx context.Context, key string) (u snapshots.Usage, err error) {
	err = s.meta.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		_, _, u, err = storage.GetInfo(ctx, key)
		return err
	})
	return u, err
}

// Prepare makes a layer's directory over parent.
func (s *Store) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindActive, key, parent, opts)
}

// View is Prepare for what is only read.
func (s *Store) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindView, key, parent, opts)
}

// create makes the directory under a name of its own, since that may take long,
// and has it recorded and renamed at once.
func (s *Store) create(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) (_ []mount.Mount, err error) {
	below := ""
	if parent != "" {
		info, err := s.Stat(ctx, parent)
		if err != nil {
			return nil, fmt.Errorf("layer below: %w", err)
		}
		below = filepath.Dir(info.Labels[dirLabel])
	}
	name := "new-" + id.New()
	s.mu.Lock()
	s.busy[name] = true
	s.mu.Unlock()
	home := s.home(name)
	defer func() {
		s.mu.Lock()
		delete(s.busy, name)
		s.mu.Unlock()
		if err != nil {
			err = errors.Join(err, s.way.Drop(home))
		}
	}()
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	if err := s.way.Make(ctx, home, below); err != nil {
		return nil, err
	}
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		made, err := storage.CreateSnapshot(ctx, kind, key, parent, opts...)
		if err != nil {
			return err
		}
		to := s.home(made.ID)
		if err := os.Rename(home, to); err != nil {
			return err
		}
		home = to
		return nil
	})
	if err != nil {
		return nil, err
	}
	return mounts(home), nil
}

// Mounts returns what Prepare returned.
func (s *Store) Mounts(ctx context.Context, key string) (list []mount.Mount, err error) {
	err = s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		made, err := storage.GetSnapshot(ctx, key)
		if err == nil {
			list = mounts(s.home(made.ID))
		}
		return err
	})
	return list, err
}

func mounts(home string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: filepath.Join(home, "fs"), Options: []string{"rbind", "rw"}}}
}

// Commit gives a complete layer its name.
func (s *Store) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	var number, below string
	err := s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		made, err := storage.GetSnapshot(ctx, key)
		if err != nil {
			return err
		}
		if number = made.ID; len(made.ParentIDs) > 0 {
			below = s.home(made.ParentIDs[0])
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Before the record: that one may only name what is there.
	used, err := s.way.Seal(ctx, s.home(number), below)
	if err != nil {
		return err
	}
	return s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, used, opts...)
		return err
	})
}

// Remove takes a layer out of the books. Cleanup deletes its files.
func (s *Store) Remove(ctx context.Context, key string) error {
	return s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, _, err := storage.Remove(ctx, key)
		return err
	})
}

// Walk calls fn for each layer.
func (s *Store) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, func(ctx context.Context, info snapshots.Info) error {
			number, _, _, err := storage.GetInfo(ctx, info.Name)
			if err != nil {
				return err
			}
			s.label(number, &info)
			return fn(ctx, info)
		}, filters...)
	})
}

// Cleanup deletes the directories that the books do not have.
func (s *Store) Cleanup(ctx context.Context) error {
	var list []string
	// A transaction that writes: nobody is between the record and the rename.
	err := s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		known, err := storage.IDMap(ctx)
		if err != nil {
			return err
		}
		entries, err := os.ReadDir(s.dir)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range entries {
			if _, ok := known[e.Name()]; !ok && !s.busy[e.Name()] {
				list = append(list, s.home(e.Name()))
			}
		}
		return nil
	})
	for _, home := range list {
		err = errors.Join(err, s.way.Drop(home))
	}
	return err
}
