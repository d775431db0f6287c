package ociruntime

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maskPaths hides paths: a file behind the host's null device, a directory
// behind an empty read-only tmpfs. Both are made here and checked; nothing of
// the image is ever a mask's source (security.md row S4, CVE-2025-31133).
func (t *tree) maskPaths() error {
	empty := -1
	for _, p := range t.job.MaskedPaths {
		target, err := t.root.OpenFd(p, unix.O_PATH, 0)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err == nil {
			empty, err = mask(target, empty)
		}
		if err != nil {
			return fmt.Errorf("mask %s: %w", p, err)
		}
	}
	if empty >= 0 {
		unix.Close(empty)
	}
	return nil
}

// mask covers target and closes it. empty is an attached empty directory to
// clone, or -1 if there is none yet; the one to go on with comes back.
func mask(target, empty int) (int, error) {
	defer unix.Close(target)
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return empty, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		// Read-only, for it is the inode of the host: what is written to the device
		// is not affected, but its mode, owner and times are out of reach.
		fd, err := openTree(unix.AT_FDCWD, "/dev/null", unix.OPEN_TREE_CLONE|unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return empty, fmt.Errorf("open /dev/null: %w", err)
		}
		defer unix.Close(fd)
		if err := checkDevice(fd, unix.S_IFCHR, unix.Mkdev(1, 3)); err != nil {
			return empty, fmt.Errorf("/dev/null: %w", err)
		}
		a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a); err != nil {
			return empty, fmt.Errorf("/dev/null: %w", err)
		}
		return empty, attach(fd, target, 0)
	}
	if empty >= 0 {
		fd, err := openTree(empty, "", unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH)
		if err != nil {
			return empty, err
		}
		defer unix.Close(fd)
		return empty, attach(fd, target, 0)
	}
	fd, err := emptyDir()
	if err != nil {
		return -1, err
	}
	return fd, attach(fd, target, 0)
}

// emptyDir makes a detached read-only tmpfs that holds nothing and can't.
func emptyDir() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	for _, o := range []string{"source=tmpfs", "size=4k", "nr_inodes=1", "ro"} {
		if err := setOption(fs, o); err != nil {
			return -1, fsError(fs, "tmpfs option "+o, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "make a tmpfs", err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
}
