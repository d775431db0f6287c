package overlay

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Mapped says through which id maps an overlay shows its layers.
//
// All of them are mapped, the upper one too: so what a container writes lies on
// the disk under the ids that it has inside, whatever range it runs in, and
// everything that reads layers needs to know nothing of maps (docs/adr/0004).
type Mapped struct {
	// UserNS is a descriptor of the user namespace that has the maps; it
	// stays the caller's.
	UserNS int
	// UID and GID are what its root is on the host. The overlay writes as
	// that user: root of the host has no place in the maps.
	UID, GID int
}

// mountMapped mounts an overlay of mapped layers. Up to Linux 6.14 overlayfs
// takes only layers that are attached to the caller's mount namespace.
func mountMapped(l Layers, attrs uint64, detached bool) (int, error) { //nolint:revive // detached is what the kernel takes
	if l.Upper != "" && filepath.Dir(l.Upper) != filepath.Dir(l.Work) {
		return -1, errs.New(errs.Invalid, "mount overlay: %s and %s must be in one directory to be mapped", l.Upper, l.Work)
	}
	if !detached {
		return mountOld(l, attrs, func() (int, error) {
			if err := l.attachMapped(); err != nil {
				return -1, err
			}
			if err := l.Mapped.write(l.Bounded); err != nil {
				return -1, err
			}
			return l.mountHere()
		})
	}
	return OnThread(func() (int, error) {
		named, fds, err := l.openMapped()
		defer func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
		if err != nil {
			return -1, err
		}
		if err := l.Mapped.write(l.Bounded); err != nil {
			return -1, err
		}
		return mountNew(named, attrs)
	})
}

// openMapped opens the layers as detached mapped mounts, and names them by
// descriptors.
func (l Layers) openMapped() (named Layers, fds []int, err error) {
	named = Layers{Options: l.Options}
	open := func(dir string) (string, error) {
		fd, err := l.Mapped.clone(dir)
		if err != nil {
			return "", err
		}
		fds = append(fds, fd)
		return fdName(fd), nil
	}
	for _, dir := range l.Lower {
		name, err := open(dir)
		if err != nil {
			return named, fds, err
		}
		named.Lower = append(named.Lower, name)
	}
	if l.Upper == "" {
		return named, fds, nil
	}
	// Both must be of one mount.
	name, err := open(filepath.Dir(l.Upper))
	if err != nil {
		return named, fds, err
	}
	named.Upper = name + "/" + filepath.Base(l.Upper)
	named.Work = name + "/" + filepath.Base(l.Work)
	return named, fds, nil
}

// attachMapped mounts each layer, mapped, over itself in the thread's own mount
// namespace.
func (l Layers) attachMapped() error {
	dirs := l.Lower
	if l.Upper != "" {
		dirs = append(dirs[:len(dirs):len(dirs)], filepath.Dir(l.Upper))
	}
	for _, dir := range dirs {
		fd, err := l.Mapped.clone(dir)
		if err != nil {
			return err
		}
		err = unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("mount overlay: attach mapped layer %s: %w", dir, err)
		}
	}
	return nil
}

// clone returns a detached mount of dir that shows its owners mapped.
func (m *Mapped) clone(dir string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount overlay: layer %s: %w", dir, err)
	}
	a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(m.UserNS)}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a)
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return -1, errs.New(errs.Unsupported, "user namespaces need mounts with mapped ids, which the kernel (5.19 or later) or the file system of %s does not have: "+
			"put the data root on ext4, xfs or btrfs, or start the container with --userns=host", dir)
	}
	return -1, fmt.Errorf("mount overlay: map the ids of layer %s: %w", dir, err)
}

// mountBounded mounts an overlay with fewer capabilities.
func mountBounded(l Layers, attrs uint64, layers bool) (int, error) { //nolint:revive // layers is what the kernel takes
	bound := func() error { return withCapabilities(true, func() error { return nil }) }
	if layers {
		return OnThread(func() (int, error) {
			if err := bound(); err != nil {
				return -1, err
			}
			return mountNew(l, attrs)
		})
	}
	return mountOld(l, attrs, func() (int, error) {
		if err := bound(); err != nil {
			return -1, err
		}
		return l.mountHere()
	})
}

// Act makes the calling thread read and write files as the root of the maps,
// with all of its capabilities, for good: the thread must end with its work.
func (m *Mapped) Act() error { return m.write(false) }

// write makes the calling thread write files as the root of the maps, with its
// capabilities, for good.
func (m *Mapped) write(bounded bool) error { //nolint:revive // as Layers.Bounded
	return withCapabilities(bounded, m.become)
}

// withCapabilities calls f and gives the thread back the capabilities that it had
// before, without CAP_SYS_RESOURCE if it is to be bounded.
func withCapabilities(bounded bool, f func() error) error { //nolint:revive // as Layers.Bounded
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("mount overlay: capabilities: %w", err)
	}
	if err := f(); err != nil {
		return err
	}
	if bounded {
		data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("mount overlay: capabilities: %w", err)
	}
	return nil
}

// become gives the thread the ids. That takes capabilities for files away.
func (m *Mapped) become() error {
	// These report no error but leave the id as it is (setfsuid(2)).
	unix.Setfsgid(m.GID)
	unix.Setfsuid(m.UID)
	if got, err := unix.SetfsuidRetUid(-1); err != nil || got != m.UID {
		return fmt.Errorf("mount overlay: write as user %d: it stays %d: %w", m.UID, got, unix.EPERM)
	}
	return nil
}
