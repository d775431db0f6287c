package snapshot

import (
	"context"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/tree"
)

// Copies is the way of the driver vfs: each layer is a whole tree. Trees share
// the files that did not change by hard links, so that a layer takes little more
// than what it adds, on any file system with links.
type Copies struct{}

// Make begins with what the parent has.
func (Copies) Make(ctx context.Context, home, parent string) error {
	fs := filepath.Join(home, "fs")
	if parent == "" {
		return makeTop(os.Mkdir(fs, 0o755), fs)
	}
	return tree.Share(ctx, filepath.Join(parent, "fs"), fs)
}

// makeTop gives a new top directory its permissions, whatever the umask is.
func makeTop(err error, dir string) error {
	if err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// Seal counts what was added.
func (Copies) Seal(ctx context.Context, home, parent string) (snapshots.Usage, error) {
	return sealTree(ctx, home, parent)
}

func sealTree(ctx context.Context, home, parent string) (u snapshots.Usage, err error) {
	if parent != "" {
		parent = filepath.Join(parent, "fs")
	}
	if u.Size, u.Inodes, err = tree.Added(ctx, filepath.Join(home, "fs"), parent); err != nil {
		return u, err
	}
	return u, syncFS(home)
}

// syncFS writes what is dirty in the file system of dir to disk.
func syncFS(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "sync", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return &os.PathError{Op: "sync", Path: dir, Err: err}
	}
	return nil
}

// Show does nothing: the tree is there.
func (Copies) Show(string) error { return nil }

// Hide does nothing.
func (Copies) Hide(string) error { return nil }

// Drop removes a tree.
func (Copies) Drop(home string) error { return os.RemoveAll(home) }

// Subvolumes is the way of the driver btrfs: each layer is a whole tree, made as
// a snapshot of the one below.
type Subvolumes struct{}

// NewSubvolumes is errs.Unsupported where dir is not on btrfs.
func NewSubvolumes(dir string) (Subvolumes, error) {
	if !tree.OnBtrfs(dir) {
		return Subvolumes{}, errs.New(errs.Unsupported, "storage driver btrfs: %s is not on btrfs; put the data root there, or use overlayfs", dir)
	}
	return Subvolumes{}, nil
}

// Make begins with what the parent has.
func (Subvolumes) Make(_ context.Context, home, parent string) error {
	fs := filepath.Join(home, "fs")
	if parent == "" {
		return makeTop(tree.Subvolume(fs), fs)
	}
	return tree.Snapshot(filepath.Join(parent, "fs"), fs)
}

// Seal counts what was added.
func (Subvolumes) Seal(ctx context.Context, home, parent string) (snapshots.Usage, error) {
	return sealTree(ctx, home, parent)
}

// Show does nothing: the tree is there.
func (Subvolumes) Show(string) error { return nil }

// Hide does nothing.
func (Subvolumes) Hide(string) error { return nil }

// Drop removes a subvolume and its home.
func (Subvolumes) Drop(home string) error {
	if err := tree.Remove(filepath.Join(home, "fs")); err != nil {
		return err
	}
	return os.RemoveAll(home)
}
