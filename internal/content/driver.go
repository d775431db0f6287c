package content

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"

	"gantry/internal/content/snapshot"
	"gantry/internal/errs"
)

// The storage drivers: how unpacked layers are kept. Blobs and names are the same
// for all of them.
const (
	OverlayFS = "overlayfs" // a directory for each layer
	VFS       = "vfs"       // a whole tree for each layer, and a copy for each container
	Btrfs     = "btrfs"     // a subvolume for each layer, and a snapshot for each container
	EROFS     = "erofs"     // a read-only file system for each layer
)

// driver is the open store of unpacked layers.
type driver struct {
	name   string
	layers snapshots.Snapshotter
	dir    string // of the layers' homes
	whole  bool   // layers are whole trees
	others func() error
	// remake puts the tree in one home in the place of the layer in another. nil:
	// directories are exchanged.
	remake func(ctx context.Context, fresh, home string) error
}

// openDriver opens the layers of the driver o.Driver. Each has a directory of its
// own, so that what another one has made stays.
func openDriver(o Options) (*driver, error) {
	d := &driver{name: o.Driver, others: func() error { return nil }}
	root := filepath.Join(o.Root, "drivers", d.name)
	if d.name == "" || d.name == OverlayFS {
		d.name, root = OverlayFS, filepath.Join(o.Root, "snapshots")
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	d.dir = filepath.Join(root, "snapshots")
	if err := d.keepOthers(o.Root); err != nil {
		return nil, err
	}
	var err error
	switch d.name {
	case OverlayFS:
		d.layers, err = overlay.NewSnapshotter(root, overlay.WithUpperdirLabel, overlay.AsynchronousRemove)
	case VFS:
		d.whole = true
		d.layers, err = snapshot.Open(root, snapshot.Copies{})
	case Btrfs:
		d.whole = true
		var way snapshot.Subvolumes
		if way, err = snapshot.NewSubvolumes(root); err == nil {
			d.layers, err = snapshot.Open(root, way)
		}
	case EROFS:
		var way *snapshot.Images
		if way, err = snapshot.NewImages(); err == nil {
			d.remake = way.Replace
			if d.layers, err = snapshot.Open(root, way); err == nil {
				err = way.ShowAll(root)
			}
		}
	default:
		err = errs.New(errs.Invalid, "there is no storage driver %q", d.name)
	}
	return d, err
}

// keepOthers makes what containers of the erofs driver need readable also while
// another driver is chosen.
func (d *driver) keepOthers(root string) error {
	dir := filepath.Join(root, "drivers", EROFS)
	if d.name == EROFS {
		return nil
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	way, err := snapshot.NewImages()
	if err != nil {
		return nil // its containers can't start, and say so
	}
	d.others = func() error { return way.Hide(filepath.Join(dir, "snapshots")) }
	return way.ShowAll(dir)
}

// A Layout is how a storage driver keeps layers.
type Layout struct {
	Driver string // its name
	Whole  bool   // each layer is a whole tree, with those below it
}

// Layout tells the storage driver.
func (s *Store) Layout() Layout { return Layout{s.driver.name, s.driver.whole} }

// Snapshots returns the store of unpacked layers, named by chain ID.
func (s *Store) Snapshots() snapshots.Snapshotter { return s.meta.Snapshotter(s.driver.name) }
