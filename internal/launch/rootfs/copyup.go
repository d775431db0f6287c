package rootfs

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"gantry/internal/rootpath"
	"gantry/internal/tree"
)

// CopyUp copies what the image has at target into the volume at dir, which is
// empty: files with their owners, permissions, times and extended attributes,
// links within the tree as links. A target that the image lacks, or that is no
// directory there, copies nothing.
func (v *View) CopyUp(ctx context.Context, target, dir string) error {
	src, err := v.root.OpenFd(target, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	vol, err := rootpath.Open(dir)
	if err != nil {
		unix.Close(src)
		return err
	}
	defer vol.Close()
	dst, err := vol.OpenFd(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		unix.Close(src)
		return err
	}
	return tree.CopyInto(ctx, src, dst)
}
