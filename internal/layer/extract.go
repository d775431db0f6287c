package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// ExtractOptions say how to extract a tar into a tree that exists.
type ExtractOptions struct {
	Limits Limits
	// Dir is the directory below the root that names are taken from, and
	// Shown how errors call it.
	Dir, Shown string
	// KeepKinds refuses to put a directory in the place of something else,
	// or something else in that of a directory.
	KeepKinds bool
	// Owner gives the ids to write for those of a header. nil: the same.
	Owner func(uid, gid int) (int, int)
}

// owner returns the ids to write for a header's.
func (o *ExtractOptions) owner(uid, gid int) (int, int) {
	if o.Owner == nil {
		return uid, gid
	}
	return o.Owner(uid, gid)
}

// implied completes a directory that was made since an entry is below it.
func (o *ExtractOptions) implied(parent int, name string) error {
	if uid, gid := o.owner(0, 0); uid != 0 || gid != 0 {
		if err := unix.Fchownat(parent, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return chmodAt(parent, name, 0o755)
}

// Extract unpacks a tar of any compression into a tree in use: the root file
// system at the descriptor root, which stays the caller's, with what is mounted
// in it. Whoever lives there may change it meanwhile and gains nothing by it:
// every name is looked up by descriptors, as if root were /, and links lead
// nowhere else. Whiteouts are names like others; a directory that exists keeps
// what is in it; a file that something is mounted on is written in place.
//
// errs.Invalid is a tar that is broken or refused. What was unpacked before an
// error stays.
func Extract(ctx context.Context, root int, r io.Reader, o ExtractOptions) (Stats, error) {
	own, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Stats{}, fmt.Errorf("open the root: %w", err)
	}
	o.Dir = path.Clean("./" + o.Dir)
	a := &applier{limits: o.Limits.withDefaults(), buf: make([]byte, 128<<10), into: &o}
	a.dirs = newDirs(own, a.imply)
	a.dirs.cross = true
	defer a.close()
	plain, _, err := Decompress(r, o.Limits)
	if err != nil {
		return Stats{}, err
	}
	defer plain.Close()
	if err := a.entries(ctx, plain, func(_ string, err error) error { return err }); err != nil {
		return a.stats, err
	}
	return a.stats, a.finish()
}

// extract unpacks one entry of Extract.
func (a *applier) extract(name string, hdr *tar.Header, body io.Reader) error {
	if name == "." {
		return nil // the directory itself is not the tar's
	}
	hdr.Uid, hdr.Gid = a.into.owner(hdr.Uid, hdr.Gid)
	dir, base := path.Split(path.Join(a.into.Dir, name))
	dir = path.Clean("./" + dir)
	parent, err := a.dirs.open(dir)
	if err != nil {
		return err
	}
	if a.into.KeepKinds {
		if err := a.into.checkKind(parent, base, name, hdr); err != nil {
			return err
		}
	}
	if err := a.create(parent, dir, base, hdr, body); err != nil {
		return entryError(name, err)
	}
	return nil
}

// entryError names the entry, unless the text does.
func entryError(name string, err error) error {
	if errs.KindOf(err) == errs.Invalid {
		return errs.New(errs.Invalid, "%q: %w", clip(name), err)
	}
	return fmt.Errorf("%q: %w", clip(name), err)
}

// checkKind refuses to change a directory into something else and back.
func (o *ExtractOptions) checkKind(parent int, base, name string, hdr *tar.Header) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil // making it tells
	}
	switch isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; {
	case isDir && hdr.Typeflag != tar.TypeDir:
		return errs.New(errs.Invalid, "cannot overwrite directory %q with non-directory %q", name, o.Shown)
	case !isDir && hdr.Typeflag == tar.TypeDir:
		return errs.New(errs.Invalid, "cannot overwrite non-directory %q with directory %q", name, o.Shown)
	}
	return nil
}

func isFile(hdr *tar.Header) bool {
	switch hdr.Typeflag {
	case tar.TypeReg, 0, tar.TypeCont, tar.TypeGNUSparse:
		return true
	}
	return false
}

// overwrite writes the content of a file that can't be replaced, since it is a
// mount: its owner and mode are not the tar's.
func (a *applier) overwrite(parent int, base string, body io.Reader) error {
	pin, err := unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pin)
	var st unix.Stat_t
	if err := unix.Fstat(pin, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EBUSY
	}
	fd, err := unix.Open(selfFd(pin), unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := a.copy(fd, body)
	a.stats.Bytes += n
	return err
}

// selfFd is a path to what an open descriptor is of.
func selfFd(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// chmodAt sets the mode of what base is in the directory parent, unless it is a
// link. fchmodat(2) would follow it, and the tree may be somebody's who puts one
// there right now.
func chmodAt(parent int, base string, mode uint32) error {
	fd, err := unix.Openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return unix.Chmod(selfFd(fd), mode)
}
