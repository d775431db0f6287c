package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Kind of a change, as the API numbers it.
type Kind uint8

// The kinds.
const (
	Modified Kind = iota
	Added
	Deleted
)

// A Change is one difference between a container and its image.
type Change struct {
	Path string // absolute
	Kind Kind
}

// An Upper is the writable directory of an overlay with the directories below
// it, topmost first. What it holds is in overlayfs's terms: a character device
// 0:0 hides a name, the attribute trusted.overlay.opaque what is below a
// directory (Documentation/filesystems/overlayfs.rst).
type Upper struct {
	Dir   string
	Lower []string
	// Whole says that Dir is a copy of what is below with the changes made
	// in it, and no directory of an overlay.
	Whole bool
}

// stubs are what an engine puts into a root file system to mount over. While
// they are empty, and the image has not brought them, they are no change.
var stubs = [...]string{
	"/.dockerenv", "/dev", "/dev/console", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc", "/sys",
	"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab",
}

// Changes lists the differences, by paths in order; a directory comes before
// what has changed in it.
func (u Upper) Changes(ctx context.Context) ([]Change, error) {
	var list []Change
	err := u.walk(ctx, func(d *diff) error {
		list = append(list, Change{d.path, d.kind})
		return nil
	}, walkOptions{unhidden: true})
	return list, err
}

// Usage is the disk space in bytes of what has changed; of an overlay's directory
// that is what UpperUsage says. What can't be read counts nothing.
func (u Upper) Usage(ctx context.Context) int64 {
	if !u.Whole {
		return UpperUsage(ctx, u.Dir)
	}
	var n int64
	_ = u.walk(ctx, func(d *diff) error {
		n += d.st.Blocks * 512
		return nil
	}, walkOptions{unhidden: true})
	return n
}

// A diff is what a walk meets. fd is open with O_PATH on the upper file, and
// good during the call only; -1 for Deleted.
type diff struct {
	path   string
	kind   Kind
	fd     int
	st     unix.Stat_t
	opaque bool // a directory that hides what is below
}

type walkOptions struct {
	// unhidden compares what an opaque directory holds with what it hides,
	// name by name; otherwise all in it is Added.
	unhidden bool
	// exact compares the content too, leaves no stub out, and takes marks of
	// overlayfs for what they are as files.
	exact bool
}

// walk calls meet for each difference.
func (u Upper) walk(ctx context.Context, meet func(*diff) error, o walkOptions) error {
	w := walker{ctx: ctx, meet: meet, o: o}
	up, err := openTop(u.Dir)
	if err != nil {
		return err
	}
	var low []int
	for _, dir := range u.Lower {
		fd, err := openTop(dir)
		if err != nil {
			closeAll(append(low, up))
			return err
		}
		low = append(low, fd)
	}
	if u.Whole { // as an opaque directory that is compared with what it hides
		w.o.unhidden = true
	}
	return w.dir(up, low, "", u.Whole)
}

func openTop(dir string) (int, error) {
	fd, err := unix.Open(dir, dirFlags, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", dir, err)
	}
	return fd, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// walker compares an upper directory with the merged ones below.
type walker struct {
	ctx   context.Context
	meet  func(*diff) error
	o     walkOptions
	above []*diff // directories on the way that have not been met yet
}

// dir compares the open directory up with those that lie below it, topmost
// first, and closes all. covered: nothing of low shows through.
func (w *walker) dir(up int, low []int, path string, covered bool) error {
	defer closeAll(append(low, up))
	if strings.Count(path, "/") > maxDepth {
		return fmt.Errorf("%s: deeper than %d directories", path, maxDepth)
	}
	names, err := listDir(up)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if covered && w.o.unhidden {
		gone, err := mergedNames(low, w.o.exact)
		if err != nil {
			return err
		}
		for _, n := range gone {
			if _, has := slices.BinarySearch(names, n); !has {
				names = append(names, n)
			}
		}
		slices.Sort(names)
	}
	for _, n := range names {
		if err := context.Cause(w.ctx); err != nil {
			return err
		}
		if err := w.entry(up, low, n, path+"/"+n, covered); err != nil {
			return err
		}
	}
	return nil
}

// entry compares one name.
func (w *walker) entry(up int, low []int, name, path string, covered bool) error {
	fd, err := unix.Openat(up, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) && covered {
		return w.found(&diff{path: path, kind: Deleted, fd: -1})
	}
	if errors.Is(err, unix.ENOENT) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	d := &diff{path: path, fd: fd}
	if err := unix.Fstat(fd, &d.st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if covered && !w.o.unhidden {
		low = nil
	}
	old, below, err := merged(low, name)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if w.o.exact && isWhiteout(&d.st) && len(low) == 1 && hides(low[0], name) {
		closeAll(below)
		return nil
	}
	if isWhiteout(&d.st) && !w.o.exact {
		closeAll(below)
		if old == nil {
			return nil
		}
		return w.found(&diff{path: path, kind: Deleted, fd: -1})
	}
	d.kind = Modified
	if old == nil {
		d.kind = Added
	}
	if d.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return w.subdir(d, old, below, covered)
	}
	closeAll(below)
	if w.o.unhidden && old != nil && same(old, &d.st) {
		if !w.o.exact || len(low) != 1 {
			return nil // opened for writing, and not written
		}
		if equal, err := sameBelow(low[0], name, d); err != nil || equal {
			return err
		}
	}
	if !w.o.exact && old == nil && d.st.Size == 0 && slices.Contains(stubs[:], path) {
		return nil
	}
	return w.found(d)
}

// subdir compares a directory. One that is only there for what is in it is met
// with the first change in it.
func (w *walker) subdir(d *diff, old *unix.Stat_t, below []int, covered bool) error {
	fd, err := unix.Openat(d.fd, ".", dirFlags, 0)
	if err != nil {
		closeAll(below)
		return fmt.Errorf("%s: %w", d.path, err)
	}
	if d.opaque, err = readMarks(fd); err != nil {
		closeAll(append(below, fd))
		return fmt.Errorf("%s: %w", d.path, err)
	}
	// A directory over a file needs no mark.
	covered = covered || d.opaque || old != nil && old.Mode&unix.S_IFMT != unix.S_IFDIR
	lazy := old != nil && same(old, &d.st) && (w.o.unhidden || !d.opaque) || old == nil && holdsStubs(d.path)
	if w.o.exact && len(below) > 0 {
		if marked, err := isOpaque(below[0]); err != nil || marked != d.opaque {
			lazy = false
		}
	}
	w.above = append(w.above, d)
	n := len(w.above)
	if !lazy {
		err = w.flush()
	}
	if err == nil {
		err = w.dir(fd, below, d.path, covered)
	} else {
		closeAll(append(below, fd))
	}
	if len(w.above) >= n {
		w.above = w.above[:n-1]
	}
	return err
}

// found meets a change, after the directories it is in.
func (w *walker) found(d *diff) error {
	if err := w.flush(); err != nil {
		return err
	}
	return w.meet(d)
}

func (w *walker) flush() error {
	above := w.above
	w.above = nil
	for _, d := range above {
		if err := w.meet(d); err != nil {
			return err
		}
	}
	return nil
}

// holdsStubs tells whether a directory is a stub or may be there for one.
func holdsStubs(path string) bool {
	return slices.ContainsFunc(stubs[:], func(s string) bool { return s == path || strings.HasPrefix(s, path+"/") })
}

// same compares what a user can see of two files. The times of a directory say
// nothing of itself.
func same(a, b *unix.Stat_t) bool {
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev {
		return false
	}
	return a.Mode&unix.S_IFMT == unix.S_IFDIR || a.Size == b.Size && a.Mtim == b.Mtim
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// Attributes by which overlayfs marks what it has in an upper directory.
const (
	opaqueXattr   = "trusted.overlay.opaque"
	redirectXattr = "trusted.overlay.redirect"
	metacopyXattr = "trusted.overlay.metacopy"
)

// readMarks tells whether an open directory or file is opaque. Roots are mounted
// so that content is never left in a layer below; where another program did so,
// a copy of the upper directory is not the container's.
func readMarks(fd int) (opaque bool, err error) {
	names, err := listXattrs(fd)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		switch n {
		case opaqueXattr:
			v, err := getXattr(fd, n)
			if err != nil {
				return false, err
			}
			opaque = v == "y"
		case redirectXattr, metacopyXattr:
			return false, errs.New(errs.Unsupported, "its content is in another layer (%s)", n)
		}
	}
	return opaque, nil
}

// merged finds what the directories low, topmost first, show as name: nil for
// nothing, and, of a directory, those that make it up, open.
func merged(low []int, name string) (found *unix.Stat_t, dirs []int, err error) {
	for _, fd := range low {
		var st unix.Stat_t
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			closeAll(dirs)
			return nil, nil, err
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if isWhiteout(&st) || found != nil && !isDir {
			return found, dirs, nil
		}
		if found == nil {
			found = &st
		}
		if !isDir {
			return found, nil, nil
		}
		sub, err := unix.Openat(fd, name, dirFlags, 0)
		if err != nil {
			closeAll(dirs)
			return nil, nil, err
		}
		dirs = append(dirs, sub)
		if opaque, err := isOpaque(sub); err != nil || opaque {
			return found, dirs, err
		}
	}
	return found, dirs, nil
}

// hides tells whether a directory has a whiteout of a name.
func hides(dir int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && isWhiteout(&st)
}

// sameBelow tells whether a file has the content of the one called name in the
// directory low.
func sameBelow(low int, name string, d *diff) (bool, error) {
	fd, err := unix.Openat(low, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	switch d.st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		a, err := linkText(fd)
		if err != nil {
			return false, err
		}
		b, err := linkText(d.fd)
		return a == b, err
	case unix.S_IFREG:
		return sameContent(fd, d.fd, true)
	}
	return true, nil
}

func isOpaque(fd int) (bool, error) {
	v, err := getXattr(fd, opaqueXattr)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	return v == "y", err
}

// mergedNames lists what directories, topmost first, show together.
// With exact, whiteouts are names like others.
func mergedNames(dirs []int, exact bool) ([]string, error) { //nolint:revive // exact is the walk's own
	seen := map[string]bool{}
	var names []string
	for _, fd := range dirs {
		list, err := listDir(fd)
		if err != nil {
			return nil, err
		}
		for _, n := range list {
			if seen[n] {
				continue
			}
			seen[n] = true
			var st unix.Stat_t
			if unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && (exact || !isWhiteout(&st)) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}
