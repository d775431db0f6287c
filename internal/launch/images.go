package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/launch/rootfs"
	"gantry/internal/plan"
)

// imagesDir, below the container's run directory, has the images that it mounts
// while its process is being prepared.
const imagesDir = "images"

// mountImage makes an image's files ready as the source of a mount.
func (b *build) mountImage(m plan.Mount) error {
	t, ok := b.in.Trees[m.Target]
	if !ok {
		t.Lower, ok = b.in.Images[m.Target]
	}
	if !ok {
		return errs.New(errs.Invalid, "mount %s: the container has no image %s", m.Target, m.Source)
	}
	at := t.Upper // needs no mount if it is all there is
	if b.mapped[m.Target] = true; t.Upper == "" || len(t.Lower) > 0 {
		b.mapped[m.Target] = false // the overlay maps owners itself
		at = filepath.Join(b.l.runDir(b.in.ID), imagesDir, strconv.Itoa(len(b.sources)))
		if err := b.mountTree(t, at); err != nil {
			return fmt.Errorf("mount image %s at %s: %w", m.Source, m.Target, err)
		}
	}
	b.sources[m.Target] = at
	if m.Subpath == "" {
		return nil
	}
	f, err := rootfs.Sub(at, m.Subpath)
	if err != nil {
		return errs.New(errs.Invalid, "cannot access path %q in image %s: %w", m.Subpath, m.Source, err)
	}
	b.open = append(b.open, f)
	b.sources[m.Target] = rootfs.Name(f)
	return nil
}

// mountTree mounts an overlay of a tree on a directory of the host.
func (b *build) mountTree(t Tree, at string) error {
	o := rootfs.ImageOptions{At: at, Lower: t.Lower, Upper: t.Upper, Work: t.Work}
	if b.users.User != nil {
		o.Users = &rootfs.Users{FD: int(b.users.User.Fd())}
		for _, u := range b.users.UID {
			if u.ContainerID == 0 {
				o.Users.UID = int(u.HostID)
			}
		}
		for _, g := range b.users.GID {
			if g.ContainerID == 0 {
				o.Users.GID = int(g.HostID)
			}
		}
	}
	return rootfs.MountImage(o)
}

// unmountImages takes the images off a run directory, which may have none.
func unmountImages(runDir string) error {
	dir := filepath.Join(runDir, imagesDir)
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	all := []error{err}
	for _, e := range es {
		err := unix.Unmount(filepath.Join(dir, e.Name()), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			all = append(all, fmt.Errorf("unmount image %s: %w", e.Name(), err))
		}
	}
	return errors.Join(all...)
}
