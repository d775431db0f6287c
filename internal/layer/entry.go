package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Names of whiteouts in a tar (OCI image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	metaPrefix     = ".wh..wh." // other bookkeeping of AUFS, without a meaning here
)

const opaqueXattr = "trusted.overlay.opaque"

// create makes the entry base in the directory of descriptor parent, whose path
// is dir.
func (a *applier) create(parent int, dir, base string, hdr *tar.Header, body io.Reader) error {
	switch hdr.Typeflag {
	case tar.TypeDir:
		return a.directory(parent, dir, base, hdr)
	case tar.TypeLink:
		return a.hardlink(dir, base, hdr.Linkname)
	}
	if a.into == nil && hdr.Typeflag == tar.TypeChar && hdr.Devmajor == 0 && hdr.Devminor == 0 {
		return a.hide(parent, dir, base) // overlay's own form of a whiteout
	}
	err := a.node(parent, base, hdr, body)
	// Again, if somebody else makes the same file, as two copies into one
	// container do.
	for range 10 {
		if !errors.Is(err, unix.EEXIST) {
			break
		}
		switch err = a.remove(parent, base); {
		case err == nil, errors.Is(err, unix.ENOENT):
			err = a.node(parent, base, hdr, body)
		case errors.Is(err, unix.EBUSY) && a.into != nil && isFile(hdr):
			err = a.overwrite(parent, base, body)
		}
	}
	return err
}

// node makes anything but a directory or hard link. unix.EEXIST if the name is
// taken; nothing has been read of body then.
func (a *applier) node(parent int, base string, hdr *tar.Header, body io.Reader) error {
	mode := uint32(hdr.Mode) & 0o7777
	switch hdr.Typeflag {
	case tar.TypeSymlink:
		if hdr.Linkname == "" || strings.ContainsRune(hdr.Linkname, 0) {
			return errs.New(errs.Invalid, "link to nothing")
		}
		if err := unix.Symlinkat(hdr.Linkname, parent, base); err != nil {
			return linkError(err)
		}
		return a.meta(parent, base, hdr)
	case tar.TypeFifo:
		if err := unix.Mknodat(parent, base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if hdr.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		if hdr.Devmajor < 0 || hdr.Devminor < 0 || hdr.Devmajor > 1<<12-1 || hdr.Devminor > 1<<20-1 {
			return errs.New(errs.Invalid, "device %d:%d is out of range", hdr.Devmajor, hdr.Devminor)
		}
		dev := unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
		if err := unix.Mknodat(parent, base, kind|0o600, int(dev)); err != nil {
			return err
		}
	default:
		return a.file(parent, base, hdr, body)
	}
	if err := a.meta(parent, base, hdr); err != nil {
		return err
	}
	return chmodAt(parent, base, mode)
}

func linkError(err error) error {
	if errors.Is(err, unix.ENAMETOOLONG) {
		return errs.With(errs.Invalid, err)
	}
	return err
}

// file makes a regular file. The owner is set before the mode and the
// capabilities, since a change of owner clears them (chown(2)).
func (a *applier) file(parent int, base string, hdr *tar.Header, body io.Reader) (err error) {
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := a.copy(fd, body)
	a.stats.Bytes += n
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	err = eachXattr(hdr, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
	if err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	at, mt := times(hdr)
	if err := unix.UtimesNanoAt(parent, base, []unix.Timespec{at, mt}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// hole is the size from which a run of zeros is left out of a file.
const hole = 16 << 10

// copy writes body to fd, with holes for long runs of zeros.
func (a *applier) copy(fd int, body io.Reader) (size int64, err error) {
	for {
		n, err := fill(body, a.buf)
		sparse := false // the last part is a hole
		for p := a.buf[:n]; len(p) > 0; {
			part := p[:min(len(p), hole)]
			p = p[len(part):]
			if sparse = len(part) == hole && allZero(part); !sparse {
				if err := writeAt(fd, part, size); err != nil {
					return size, err
				}
			}
			size += int64(len(part))
		}
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return size, tarError(err)
		case sparse: // so that the next hole, or the end, is where it shall be
			if err := unix.Ftruncate(fd, size); err != nil {
				return size, fmt.Errorf("write: %w", err)
			}
		}
		if err != nil {
			return size, nil
		}
	}
}

// fill reads until p is full or r ends.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

func allZero(p []byte) bool { return p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) }

func writeAt(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// directory makes or changes a directory.
func (a *applier) directory(parent int, dir, base string, hdr *tar.Header) error {
	opaque := false
	err := unix.Mkdirat(parent, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			opaque = a.into == nil && isWhiteout(&st)
			if err := a.remove(parent, base); err != nil {
				return err
			}
			err = unix.Mkdirat(parent, base, 0o700)
		} else {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	name := path.Join(dir, base)
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if opaque {
		if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
			return fmt.Errorf("make opaque: %w", err)
		}
	}
	return a.dirMeta(fd, name, hdr)
}

// dirMeta sets what a directory's header says, but for the times, which finish
// sets.
func (a *applier) dirMeta(fd int, name string, hdr *tar.Header) error {
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	err := eachXattr(hdr, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
	if err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	at, mt := times(hdr)
	a.times = append(a.times, dirTime{name, at, mt})
	delete(a.implied, name)
	return nil
}

// hardlink makes base another name of the file target, which the same tar must
// have brought.
func (a *applier) hardlink(dir, base, target string) error {
	name, err := cleanName(target, a.limits.Depth)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", clip(target), err)
	}
	if a.into != nil {
		name = path.Join(a.into.Dir, name)
	}
	missing := errs.New(errs.Invalid, "hard link to %q, which is not in this layer", clip(target))
	if name == "." {
		return missing
	}
	if _, err = a.dirs.find(path.Dir(name)); errors.Is(err, unix.ENOENT) {
		return missing
	} else if err != nil {
		return dirError(path.Dir(name), err)
	}
	// Finding one may close the other, unless both have just been used.
	parent, err := a.dirs.find(dir)
	if err != nil {
		return err
	}
	from, err := a.dirs.find(path.Dir(name))
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(from, path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || a.into == nil && isWhiteout(&st) {
		return missing
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return errs.New(errs.Invalid, "hard link to directory %q", clip(target))
	}
	err = unix.Linkat(from, path.Base(name), parent, base, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	var old unix.Stat_t
	if err := unix.Fstatat(parent, base, &old, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if old.Ino == st.Ino && old.Dev == st.Dev {
		return nil // a link to itself, or the same entry twice
	}
	return a.relink(from, parent, base, name)
}

// relink replaces what is at base by a link. If it is a tree, the target may be
// in it and go with it.
func (a *applier) relink(from, parent int, base, target string) error {
	if err := a.remove(parent, base); err != nil {
		return err
	}
	err := unix.Linkat(from, path.Base(target), parent, base, 0)
	if errors.Is(err, unix.ENOENT) {
		return errs.New(errs.Invalid, "hard link to %q, which is not in this layer any more", clip(target))
	}
	return err
}

// times returns a header's access and modification time.
func times(hdr *tar.Header) (at, mt unix.Timespec) {
	m := hdr.ModTime
	if m.IsZero() {
		m = time.Unix(0, 0)
	}
	acc := hdr.AccessTime
	if acc.IsZero() {
		acc = m
	}
	return timespec(acc), timespec(m)
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
