package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// maxOpen is how many directory descriptors are kept: entries of a tar come
// directory by directory, so a few are enough.
const maxOpen = 128

// maxLinks is how many symbolic links one name may lead through, as in the
// kernel's own path walk (path_resolution(7)) with some more room.
const maxLinks = 64

// dirs finds the directories of the layer being unpacked, by descriptors. Every
// path is resolved as if the layer were the root file system: links, absolute
// ones and those with "..", end inside of it.
type dirs struct {
	root  int
	cross bool           // into what is mounted below root, and without whiteouts
	fds   map[string]int // by clean relative path
	stale bool           // something was removed: fds are to be forgotten
	imply func(parent int, name, path string) error
}

// newDirs takes over root. imply makes a directory that the tar has not named.
func newDirs(root int, imply func(parent int, name, path string) error) *dirs {
	return &dirs{root: root, fds: map[string]int{".": root}, imply: imply}
}

func (d *dirs) close() {
	d.forget()
	unix.Close(d.root)
}

// forget closes the kept descriptors but the root's.
func (d *dirs) forget() {
	d.stale = false
	for p, fd := range d.fds {
		if fd != d.root {
			unix.Close(fd)
			delete(d.fds, p)
		}
	}
}

// find returns the descriptor of an existing directory. It belongs to d and is
// good until the next call.
func (d *dirs) find(dir string) (int, error) {
	if d.stale {
		d.forget()
	}
	if fd, ok := d.fds[dir]; ok {
		return fd, nil
	}
	fd, err := d.inRoot(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	d.keep(dir, fd)
	return fd, nil
}

func (d *dirs) keep(dir string, fd int) {
	if len(d.fds) >= maxOpen {
		d.forget()
	}
	if old, ok := d.fds[dir]; ok && old != d.root {
		unix.Close(old)
	}
	d.fds[dir] = fd
}

// open is find, but makes what is missing.
func (d *dirs) open(dir string) (int, error) {
	fd, err := d.find(dir)
	if !errors.Is(err, unix.ENOENT) {
		return fd, dirError(dir, err)
	}
	fd, err = d.make(dir)
	if err != nil {
		return -1, dirError(dir, err)
	}
	d.keep(dir, fd)
	return fd, nil
}

func dirError(dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		return errs.New(errs.Invalid, "directory %q: %w", clip(dir), err)
	}
	return fmt.Errorf("directory %q: %w", clip(dir), err)
}

// make walks to dir one element at a time, following links by hand, and makes
// the directories that do not exist. at is the walk's path so far, from the
// root and free of links.
func (d *dirs) make(dir string) (int, error) {
	at, rest, links := []string{}, strings.Split(dir, "/"), 0
	for len(rest) > 0 {
		elem := rest[0]
		rest = rest[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			at = at[:max(len(at)-1, 0)]
			continue
		}
		target, err := d.step(at, elem)
		if err != nil {
			return -1, err
		}
		if target == "" {
			at = append(at, elem)
			continue
		}
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			at = at[:0]
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return d.inRoot(path.Join(append([]string{"."}, at...)...), unix.O_RDONLY|unix.O_DIRECTORY)
}

// step looks at elem in the directory at. It returns the target if it is a
// link, and makes a directory if it does not exist.
func (d *dirs) step(at []string, elem string) (target string, err error) {
	parent, err := d.find(path.Join(append([]string{"."}, at...)...))
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	err = unix.Fstatat(parent, elem, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return "", d.imply(parent, elem, path.Join(append(at, elem)...))
	case err != nil:
		return "", err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "", nil
	case unix.S_IFLNK:
		return readlink(parent, elem)
	case unix.S_IFCHR:
		if st.Rdev == 0 && !d.cross { // our own whiteout, and then something below it
			if err := unix.Unlinkat(parent, elem, 0); err != nil {
				return "", err
			}
			return "", d.imply(parent, elem, path.Join(append(at, elem)...))
		}
	}
	return "", unix.ENOTDIR
}

func readlink(parent int, name string) (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(parent, name, buf[:])
	if err != nil {
		return "", err
	}
	if n == 0 || n == len(buf) {
		return "", unix.ENOENT
	}
	return string(buf[:n]), nil
}

// inRoot opens a path as if the root were /, without any link of /proc.
func (d *dirs) inRoot(name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if !d.cross {
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	for {
		fd, err := unix.Openat2(d.root, name, &how)
		// EAGAIN: something on the way was renamed meanwhile; openat2(2).
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}
