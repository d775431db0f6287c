package ociruntime

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// This file opens, in the parent, what a container's mounts are made of: the
// root file system and the sources of bind mounts. All are detached mounts: the
// child attaches them, and if it never does they vanish with the descriptor.

// openRoot makes the container's root a detached mount.
func (l *launch) openRoot(pid int) error {
	r := &l.job.Root
	var fd int
	var err error
	if o := r.Overlay; o != nil {
		// Here and not in the child: the overlay is of the user namespace
		// that mounts it, and in the container's own its layers would not
		// be the container's to write.
		fd, err = mountOverlay(l, o, pid)
	} else {
		fd, err = openTree(unix.AT_FDCWD, r.Path, unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
		if err != nil {
			err = fmt.Errorf("open root file system %s: %w", r.Path, err)
		}
	}
	if err != nil {
		return err
	}
	l.hold(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("root file system %s is no directory", r.Path)
	}
	l.setup.root = l.pass(fd)
	return nil
}

func openTree(dirfd int, path string, flags uint) (int, error) {
	return unix.OpenTree(dirfd, path, flags|unix.OPEN_TREE_CLOEXEC)
}

// openMounts opens the source of every bind mount, sets its attributes, and
// passes it. Everything else is mounted by the child in its namespaces.
func (l *launch) openMounts(pid int) error {
	l.setup.mounts = make([]int32, len(l.job.Mounts))
	for i := range l.job.Mounts {
		m := &l.job.Mounts[i]
		l.setup.mounts[i] = -1
		if m.Type != "bind" {
			continue
		}
		fd, err := l.openBind(m, pid)
		if err != nil {
			return err
		}
		l.setup.mounts[i] = l.pass(l.hold(fd))
	}
	return nil
}

func (l *launch) openBind(m *job.Mount, pid int) (_ int, err error) {
	flags := uint(unix.OPEN_TREE_CLONE)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	if m.SourceNoFollow {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	var fd int
	if m.SourceBeneath != "" {
		fd, err = openBeneath(m.SourceBeneath, m.Source, flags)
	} else {
		fd, err = openTree(unix.AT_FDCWD, m.Source, flags)
	}
	if other, path, ok := foreignSource(m.Source); ok && err == unix.EINVAL && m.SourceBeneath == "" {
		if err = l.openProcfs(); err == nil {
			fd, err = openForeign(l.procfs, other, path, flags)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("mount %s at %s: open the source: %w", m.Source, m.Target, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if m.IDMapped {
		if err := l.idMap(fd, m, pid); err != nil {
			return -1, fmt.Errorf("mount %s at %s: map its ids: %w", m.Source, m.Target, err)
		}
	}
	if err := setAttributes(fd, m); err != nil {
		return -1, fmt.Errorf("mount %s at %s: set its attributes: %w", m.Source, m.Target, err)
	}
	return fd, nil
}

// openBeneath opens a source that no link may lead out of dir.
func openBeneath(dir, source string, flags uint) (int, error) {
	rel, err := filepath.Rel(dir, source)
	if err != nil || !filepath.IsLocal(rel) {
		return -1, fmt.Errorf("it is not beneath %s", dir)
	}
	top, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(top)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	at, err := unix.Openat2(top, rel, &how)
	if err != nil {
		return -1, fmt.Errorf("find it beneath %s: %w", dir, err)
	}
	defer unix.Close(at)
	return openTree(at, "", flags|unix.AT_EMPTY_PATH)
}

// setAttributes applies what mount_setattr(2) can do to a bind mount: first to
// the whole tree, then to its top.
func setAttributes(fd int, m *job.Mount) error {
	if m.RecSet|m.RecClear != 0 {
		a := unix.MountAttr{Attr_set: m.RecSet, Attr_clr: m.RecClear}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &a); err != nil {
			return err
		}
	}
	if m.Set|m.Clear != 0 {
		a := unix.MountAttr{Attr_set: m.Set, Attr_clr: m.Clear}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a); err != nil {
			return err
		}
	}
	return nil
}

// idMap makes the mount show its owners through id maps: its own, or those of
// the container's user namespace.
func (l *launch) idMap(fd int, m *job.Mount, pid int) error {
	var ns int
	var err error
	if len(m.UIDMap) > 0 {
		var fds []int
		a := &cloneArgs{flags: unix.CLONE_NEWUSER}
		fds, err = l.bareNamespaces(a, func(pid int) error { return l.writeMaps(pid, m.UIDMap, m.GIDMap) }, unix.CLONE_NEWUSER)
		if err == nil {
			ns = fds[0]
		}
	} else {
		ns, err = ownUserNamespace(l, pid)
	}
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	flags := uint(unix.AT_EMPTY_PATH)
	if m.IDMapRec {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)})
}
