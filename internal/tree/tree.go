// Package tree makes trees of files out of others: whole copies, copies that
// share their files by hard links, and snapshots where the file system is btrfs.
//
// The storage drivers that keep every layer as a whole tree call it (package
// content), launch for a container's root on one of them, and launch/rootfs for
// what a fresh volume gets of an image. It writes the directory that it is given
// and nothing else, and must not know of images or containers.
package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Clone makes the directory to, which must not exist, a copy of from that can be
// written without changing it: a snapshot if from is a subvolume of btrfs, else a
// copy, in which files share their data where the file system can. When it
// fails, to does not exist.
func Clone(ctx context.Context, from, to string) error {
	if IsSubvolume(from) {
		return Snapshot(from, to)
	}
	return fresh(to, func(dir string) error { return copyTree(ctx, from, dir, false) })
}

// Share makes the directory to, which must not exist, show what from does, with
// directories of its own and the same files: none may be written in place, in
// neither, only replaced. A file that can't have another name is copied. When it
// fails, to does not exist.
func Share(ctx context.Context, from, to string) error {
	return fresh(to, func(dir string) error { return copyTree(ctx, from, dir, true) })
}

// fresh makes a directory under another name, has it filled, and gives it its own.
func fresh(to string, fill func(dir string) error) error {
	dir, err := os.MkdirTemp(filepath.Dir(to), "."+filepath.Base(to)+"-")
	if err != nil {
		return err
	}
	if err = fill(dir); err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) { // a file system that can't promise it
			err = os.Rename(dir, to)
		}
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

func copyTree(ctx context.Context, from, to string, share bool) error { //nolint:revive // share is the copier's own
	src, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", from, err)
	}
	dst, err := unix.Open(to, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(src)
		return fmt.Errorf("open %s: %w", to, err)
	}
	c := copier{ctx: ctx, share: share, links: map[inode]string{}, top: dst}
	return c.dir(src, dst, "", 0)
}

// cantLink tells whether a file has to be copied since it can't have one more
// name: a full count, or a file system without links.
func cantLink(err error) bool {
	for _, e := range []error{unix.EMLINK, unix.EPERM, unix.EXDEV, unix.EOPNOTSUPP, unix.ENOSYS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Remove removes a directory and all below it; a subvolume of btrfs at once. One
// that does not exist is no error.
func Remove(dir string) error {
	if IsSubvolume(dir) && removeSubvolume(dir) == nil {
		return nil
	}
	return os.RemoveAll(dir)
}

// Added returns what the tree dir has that the tree it was cloned or shared from
// has not, as bytes on the disk and number of files. Of an empty from it is all.
func Added(ctx context.Context, dir, from string) (size, files int64, err error) {
	seen := map[inode]bool{}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var st, old unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		key := inode{st.Dev, st.Ino}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		// Hard links have the number of the first, snapshots that of their origin.
		if from != "" && unix.Lstat(from+path[len(dir):], &old) == nil && old.Ino == st.Ino && old.Mtim == st.Mtim && old.Size == st.Size {
			return nil
		}
		size, files = size+st.Blocks*512, files+1
		return nil
	})
	return size, files, err
}
