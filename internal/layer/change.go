package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// meta sets owner, extended attributes and times of what is no directory and
// no regular file. (A link's own mode can't be set.)
func (a *applier) meta(parent int, base string, hdr *tar.Header) error {
	if err := unix.Fchownat(parent, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	// The path names our own descriptor; base is one element and not followed.
	self := "/proc/self/fd/" + strconv.Itoa(parent) + "/" + base
	err := eachXattr(hdr, func(name string, value []byte) error { return unix.Lsetxattr(self, name, value, 0) })
	if err != nil {
		return err
	}
	at, mt := times(hdr)
	if err := unix.UtimesNanoAt(parent, base, []unix.Timespec{at, mt}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// paxXattr is the prefix of extended attributes among PAX records.
const paxXattr = "SCHILY.xattr."

// eachXattr calls set for the extended attributes of hdr that a layer may
// bring: those of users, file capabilities and access control lists. What would
// speak to overlayfs itself is an error; what belongs to the host's security
// modules is left out.
func eachXattr(hdr *tar.Header, set func(name string, value []byte) error) error {
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			return errs.New(errs.Invalid, "extended attribute %q is refused", clip(name))
		}
		capability := name == "security.capability"
		if !capability && !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		err := set(name, []byte(value))
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.E2BIG):
			return errs.New(errs.Invalid, "extended attribute %q: %w", clip(name), err)
		case !capability && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM)):
			// The file system has no such attributes, or not for this
			// type of file: a program can do without them.
		default:
			return fmt.Errorf("extended attribute %q: %w", clip(name), err)
		}
	}
	return nil
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// whiteout hides what the layers below have. It says nothing of what this layer
// brings itself, before or after.
func (a *applier) whiteout(dir, base string) error {
	if base != opaqueName && strings.HasPrefix(base, metaPrefix) {
		return nil
	}
	parent, err := a.dirs.open(dir)
	if err != nil {
		return err
	}
	if base != opaqueName {
		name := strings.TrimPrefix(base, whiteoutPrefix)
		if name == "" || name == "." || name == ".." {
			return errs.New(errs.Invalid, "whiteout of no name")
		}
		return a.hide(parent, dir, name)
	}
	if a.whole {
		return a.uncover(parent, dir)
	}
	if len(a.parents) == 0 && !a.blind {
		return nil
	}
	if err := unix.Fsetxattr(parent, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("make opaque: %w", err)
	}
	return nil
}

// hide hides base of the layers below.
func (a *applier) hide(parent int, dir, base string) error {
	if a.whole {
		return a.drop(parent, dir, base)
	}
	if len(a.parents) == 0 && !a.blind {
		return nil
	}
	err := unix.Mknodat(parent, base, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // what is there hides it already
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("make opaque: %w", err)
	}
	return nil
}

// imply makes a directory that the tar uses without having named it, like the
// one that the layers below have there, if they have one.
func (a *applier) imply(parent int, name, full string) error {
	if err := unix.Mkdirat(parent, name, 0o755); err != nil {
		return err
	}
	if a.blind {
		a.implied[full] = true
	}
	if a.whole {
		a.mine[full] = true
	}
	for _, p := range a.parents {
		fd, err := unix.Openat2(p, full, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			break // not a directory there: this one replaces it
		}
		err = a.likeDir(parent, name, full, fd)
		unix.Close(fd)
		return err
	}
	if a.into != nil {
		return a.into.implied(parent, name)
	}
	return chmodAt(parent, name, 0o755) // whatever the umask is
}

// likeDir gives the new directory name the owner, mode, times and file system
// attributes of the open directory like.
func (a *applier) likeDir(parent int, name, full string, like int) error {
	var st unix.Stat_t
	if err := unix.Fstat(like, &st); err != nil {
		return err
	}
	if err := unix.Fchownat(parent, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := chmodAt(parent, name, st.Mode&0o7777); err != nil {
		return err
	}
	a.times = append(a.times, dirTime{full, st.Atim, st.Mtim})
	return nil
}

// remove removes base, a tree too. Kept paths lose their meaning by it, but
// parent stays open until the next look-up.
func (a *applier) remove(parent int, base string) error {
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		a.dirs.stale = true
		return removeTree(parent, base)
	case unix.S_IFLNK:
		a.dirs.stale = true
	}
	return unix.Unlinkat(parent, base, 0)
}

// removeTree removes a directory and all in it, never following a link. It
// keeps one descriptor for each level, and levels are limited.
func removeTree(parent int, base string) error {
	fd, err := unix.Openat2(parent, base, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV, // what is mounted there is not ours to remove
	})
	if errors.Is(err, unix.EXDEV) {
		return unix.EBUSY
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 16<<10)
	for removed := true; removed; {
		// Removal while reading may make the kernel skip entries: read
		// from the start until a whole pass finds none.
		if _, err := unix.Seek(fd, 0, 0); err != nil {
			return err
		}
		removed = false
		for {
			n, err := unix.Getdents(fd, buf)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			_, _, names := unix.ParseDirent(buf[:n], -1, nil)
			for _, name := range names {
				removed = true
				if err := removeEntry(fd, name); err != nil {
					return fmt.Errorf("remove %q: %w", path.Join(base, clip(name)), err)
				}
			}
		}
	}
	return unix.Unlinkat(parent, base, unix.AT_REMOVEDIR)
}

func removeEntry(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if errors.Is(err, unix.EISDIR) {
		return removeTree(dir, name)
	}
	return err
}
