package rootfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"gantry/internal/overlay"
	"gantry/internal/rootpath"
)

// Options are the mount options of every container's root: what is changed is
// whole in the upper directory, never a reference to a layer below, so that it
// can be read there.
func Options() []string { return []string{"metacopy=off", "redirect_dir=off"} }

// A Place is a directory or file of the host that belongs into a root.
type Place struct {
	Target   string // in the root
	Source   string // path of the host
	ReadOnly bool
	// Alone leaves out what is mounted below Source.
	Alone bool
}

// Parts say what a root consists of.
type Parts struct {
	Upper, Work string
	Lower       []string // topmost first; without any, Upper is the whole root
	Places      []Place  // by depth
	// Write allows to write; only while nobody else has the root mounted.
	// Without it missing mount points are not made but left out.
	Write    bool
	Bounded  bool // writing obeys the quota of the project
	ReadOnly bool // the root is the user's to read only; its places may be written
}

// Assemble makes the root of a container that does not run: a detached tree of
// mounts, seen in no namespace, that ends with its descriptor. Nothing in it
// runs or opens devices.
func Assemble(p Parts) (int, error) {
	return overlay.Apart(func() (int, error) {
		fd, err := p.assemble()
		if err != nil {
			return -1, fmt.Errorf("root file system: %w", err)
		}
		return fd, nil
	})
}

// assemble runs in a mount namespace of its own.
func (p Parts) assemble() (int, error) {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return -1, err
	}
	const attrs = unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	l := overlay.Layers{Lower: append([]string{p.Upper}, p.Lower...), Options: Options()}
	if len(p.Lower) == 0 {
		l.Lower, l.Upper = nil, p.Upper
		if !p.Write {
			return p.assembleOn(l, attrs|unix.MOUNT_ATTR_RDONLY)
		}
	}
	if p.Write {
		l.Lower, l.Upper, l.Work, l.Bounded = p.Lower, p.Upper, p.Work, p.Bounded
	}
	return p.assembleOn(l, attrs)
}

// assembleOn puts the places on the root.
func (p Parts) assembleOn(l overlay.Layers, attrs uint64) (int, error) {
	top, err := overlay.Mount(l, attrs)
	if err != nil {
		return -1, err
	}
	defer unix.Close(top)
	// Attached, so that others can be mounted on it: over the directory that
	// holds the upper one, which nothing looks at in this namespace any more.
	// The sources are found first, since they may be there.
	trees, err := p.open()
	defer func() {
		for _, fd := range trees {
			unix.Close(fd)
		}
	}()
	if err != nil {
		return -1, err
	}
	if err := unix.MoveMount(top, "", unix.AT_FDCWD, p.Work, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return -1, err
	}
	root := rootpath.At(top)
	for i, pl := range p.Places {
		if err := p.attach(root, pl, trees[i]); err != nil {
			return -1, fmt.Errorf("%s: %w", pl.Target, err)
		}
	}
	if p.Write && p.ReadOnly {
		if err := unix.MountSetattr(top, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return -1, err
		}
	}
	return unix.OpenTree(top, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
}

// open detaches a copy of each place's source.
func (p Parts) open() (trees []int, err error) {
	for _, pl := range p.Places {
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
		if !pl.Alone {
			flags |= unix.AT_RECURSIVE
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, pl.Source, flags)
		if err != nil {
			return trees, &os.PathError{Op: "open", Path: pl.Source, Err: err}
		}
		trees = append(trees, fd)
		set := uint64(unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC)
		if pl.ReadOnly {
			set |= unix.MOUNT_ATTR_RDONLY
		}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: set}); err != nil {
			return trees, &os.PathError{Op: "mount", Path: pl.Source, Err: err}
		}
	}
	return trees, nil
}

// attach puts a tree to its place.
func (p Parts) attach(root *rootpath.Root, pl Place, tree int) error {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	o := rootpath.TargetOptions{Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, Perm: 0o755}
	var at int
	var err error
	if p.Write {
		at, err = root.Target(pl.Target, o)
	} else {
		at, err = root.OpenFd(pl.Target, unix.O_PATH, 0)
	}
	if errors.Is(err, unix.ENOENT) && !p.Write {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	err = unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EINVAL) {
		// A file where the image has a directory, or the reverse: a start
		// says so.
		return nil
	}
	return err
}

// Missing tells whether a place's mount point is not there yet.
func (v *View) Missing(target string) bool {
	_, err := v.root.Stat(target)
	return errors.Is(err, unix.ENOENT)
}

// How much of a running container's mounts Copy takes.
type Extent uint

// The extents.
const (
	Everything Extent = unix.AT_RECURSIVE // with volumes and all else
	RootAlone  Extent = 0                 // nothing but the root mount
)

// Copy returns a detached copy of the mounts of a running container: it stays
// when the container ends, and does not change when a process in there mounts
// something. pidfd is of its first process. Nothing in the copy runs or opens
// devices; with attrs (MOUNT_ATTR_*) more can be forbidden.
func Copy(pidfd int, e Extent, attrs uint64) (int, error) {
	fd, err := overlay.OnThread(func() (int, error) {
		// A thread that shares its working directory with others can't
		// change its mount namespace.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return -1, err
		}
		if err := unix.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
			return -1, err
		}
		return unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|uint(e))
	})
	if err != nil {
		return -1, fmt.Errorf("copy the container's mounts: %w", err)
	}
	attrs |= unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("copy the container's mounts: %w", err)
	}
	return fd, nil
}
