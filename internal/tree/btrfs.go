package tree

import (
	"errors"
	"fmt"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Numbers of the ioctls of btrfs and their arguments (linux/btrfs.h).
const (
	iocSubvolCreate = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	iocSnapDestroy  = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	iocSnapCreate   = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2

	subvolumeRoot = 256 // inode number of a subvolume's top directory
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2.
type volArgsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte
}

// OnBtrfs tells whether a directory is on btrfs.
func OnBtrfs(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.BTRFS_SUPER_MAGIC
}

// IsSubvolume tells whether a directory is a subvolume of btrfs.
func IsSubvolume(dir string) bool {
	var st unix.Stat_t
	return unix.Lstat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Ino == subvolumeRoot && OnBtrfs(dir)
}

// Subvolume makes an empty subvolume of btrfs.
func Subvolume(dir string) error {
	return in(dir, "make subvolume", func(parent int, name string) error {
		var a volArgs
		if copy(a.name[:len(a.name)-1], name) < len(name) {
			return unix.ENAMETOOLONG
		}
		return ioctl(parent, iocSubvolCreate, unsafe.Pointer(&a))
	})
}

// Snapshot makes the subvolume to out of the subvolume from.
func Snapshot(from, to string) error {
	src, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", from, err)
	}
	defer unix.Close(src)
	return in(to, "make snapshot", func(parent int, name string) error {
		a := volArgsV2{fd: int64(src)}
		if copy(a.name[:len(a.name)-1], name) < len(name) {
			return unix.ENAMETOOLONG
		}
		return ioctl(parent, iocSnapCreate, unsafe.Pointer(&a))
	})
}

func removeSubvolume(dir string) error {
	return in(dir, "remove subvolume", func(parent int, name string) error {
		var a volArgs
		if copy(a.name[:len(a.name)-1], name) < len(name) {
			return unix.ENAMETOOLONG
		}
		return ioctl(parent, iocSnapDestroy, unsafe.Pointer(&a))
	})
}

// in calls fn with the directory that dir is in, open, and its name there.
func in(dir, what string, fn func(parent int, name string) error) error {
	parent, err := unix.Open(filepath.Dir(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(parent)
		err = fn(parent, filepath.Base(dir))
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOTTY):
		return errs.New(errs.Unsupported, "%s %s: not on btrfs", what, dir)
	}
	return fmt.Errorf("%s %s: %w", what, dir, err)
}

func ioctl(fd int, number uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), number, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}
