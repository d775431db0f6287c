// Package archive reads and writes the files of containers: what a path is, a
// tree as a tar, the difference between a container and its image, the space it
// takes.
//
// The engine calls it. It is given root directories as descriptors and writes
// nothing but tars (package layer does the other direction). The trees may be
// changed by hostile processes while they are read: everything is reached by
// descriptors, no name is resolved twice, links lead nowhere out (package
// rootpath), and nothing but regular files is opened for reading, since to open
// a device or a FIFO can act or block. It must not know of containers, images
// or the API. security.md row S7.
//
// Formats: tar with PAX records as Docker writes it (names of directories end
// in a slash, times in whole seconds, SCHILY.xattr); layers as in the OCI
// image-spec, layer.md.
package archive

import (
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/rootpath"
	"gantry/internal/wire"
)

// A Tree is a root file system that is looked at from outside.
type Tree struct {
	root *rootpath.Root
	dev  uint64 // mount id of a running container's /dev; 0 for none
}

// Of returns the tree at an open directory, which stays the caller's and must
// outlive it.
func Of(fd int) *Tree { return &Tree{root: rootpath.At(fd)} }

// Live is Of for the root of a running container: its /dev is its own, and as
// invisible as what the kernel shows in /proc and /sys.
func Live(fd int) *Tree {
	t := Of(fd)
	dev, err := t.root.OpenFd("/dev", unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return t
	}
	defer unix.Close(dev)
	if s, err := mountOf(dev); err == nil && s.root {
		t.dev = s.id
	}
	return t
}

// mountPoint is what is known of the mount that a file is in.
type mountPoint struct {
	id   uint64
	root bool // the file is where it is mounted
}

func mountOf(fd int) (mountPoint, error) {
	var s unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &s); err != nil {
		return mountPoint{}, err
	}
	return mountPoint{s.Mnt_id, s.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0}, nil
}

// kernelFS are file systems that hold no files but the kernel's own state: to
// read or write there acts.
var kernelFS = [...]int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
	unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC,
	unix.NSFS_MAGIC, unix.BINFMTFS_MAGIC, mqueueMagic, configfsMagic, fuseCtlMagic,
}

// Numbers that <linux/magic.h> lacks.
const (
	mqueueMagic   = 0x19800202
	configfsMagic = 0x62656570
	fuseCtlMagic  = 0x65735543
)

// visibility of a file.
type visibility int

const (
	visible visibility = iota
	closed             // the top of something that is not shown: an empty directory
	hidden             // below that
)

// sees tells whether the file open at fd belongs to the container's files.
func (t *Tree) sees(fd int) (visibility, error) {
	var f unix.Statfs_t
	if err := unix.Fstatfs(fd, &f); err != nil {
		return hidden, err
	}
	kernel := false
	for _, k := range kernelFS {
		kernel = kernel || int64(f.Type) == k
	}
	if !kernel && t.dev == 0 {
		return visible, nil
	}
	m, err := mountOf(fd)
	switch {
	case err != nil:
		return hidden, err
	case !kernel && m.id != t.dev:
		return visible, nil
	case m.root:
		return closed, nil
	}
	return hidden, nil
}

// open finds name with O_PATH. A link as its last component is not followed,
// unless a slash comes after it. What is not shown is ENOENT.
func (t *Tree) open(name string) (int, unix.Stat_t, visibility, error) {
	var st unix.Stat_t
	flags := unix.O_PATH | unix.O_NOFOLLOW
	if trailing(name) {
		flags = unix.O_PATH | unix.O_DIRECTORY
	}
	fd, err := t.root.OpenFd(name, flags, 0)
	if err != nil {
		if e := (*fs.PathError)(nil); errors.As(err, &e) {
			e.Op = "lstat"
		}
		return -1, st, hidden, err
	}
	see, err := t.sees(fd)
	if err == nil && see == hidden {
		err = unix.ENOENT
	}
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		unix.Close(fd)
		return -1, st, hidden, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return fd, st, see, nil
}

// trailing tells whether name insists on being a directory.
func trailing(name string) bool {
	return strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") || name == "."
}

// Clean makes a path absolute and clean, but keeps a last "/" or "/." of it,
// which mean something in a copy. The root is "/".
func Clean(p string) string {
	c := path.Join("/", p)
	switch {
	case strings.HasSuffix(p, "/.") || p == ".":
		if c == "/" {
			return "/."
		}
		return c + "/."
	case strings.HasSuffix(p, "/") && c != "/":
		return c + "/"
	}
	return c
}

// base is the last element of a path of Clean: "." for a/., "/" for the root.
func base(p string) string {
	if strings.HasSuffix(p, "/.") {
		return "."
	}
	return path.Base(p)
}

// Stat describes what p, a path of Clean, is: a link itself, unless a slash
// comes after it. LinkTarget is where it leads in the end, as a path in the
// tree, or as far as that can be told. errs.NotFound if there is nothing.
func (t *Tree) Stat(p string) (wire.PathStat, error) {
	fd, st, _, err := t.open(p)
	if err != nil {
		return wire.PathStat{}, notFound(err)
	}
	defer unix.Close(fd)
	s := wire.PathStat{Name: base(p), Size: st.Size, Mode: fileMode(st.Mode), Mtime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec)}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		s.LinkTarget = t.target(p)
	}
	return s, nil
}

// notFound gives the error of a path that leads nowhere its kind.
func notFound(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return errs.With(errs.NotFound, err)
	}
	return err
}

// maxLinks is how many links target follows.
const maxLinks = 40

// target says where a link leads in the end. It is only told, and never opened.
func (t *Tree) target(p string) string {
	done, rest := "/", strings.Split(p, "/")
	for links := 0; len(rest) > 0; {
		elem := rest[0]
		rest = rest[1:]
		switch elem {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, elem)
		to := t.readlink(next)
		if to == "" || links == maxLinks {
			done = next
			continue
		}
		links++
		if strings.HasPrefix(to, "/") {
			done = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return done
}

// readlink returns the text of the link at p, "" if there is none.
func (t *Tree) readlink(p string) string {
	fd, err := t.root.OpenFd(p, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	text, _ := linkText(fd)
	return text
}

func linkText(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	return string(buf[:max(n, 0)]), err
}

// fileMode turns a mode of stat(2) into Go's.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	}
	if m&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if m&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if m&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// ReadFile returns the content of a regular file of at most limit bytes.
func (t *Tree) ReadFile(name string, limit int64) ([]byte, error) {
	return t.root.ReadFile(name, limit)
}

// A Point is a directory that something is to be extracted into.
type Point struct {
	IsDir    bool
	ReadOnly bool // nothing can be written there
	OnRoot   bool // it is in the tree's own mount, not in one of a volume
}

// Point finds out about the directory p, links followed. errs.NotFound if there
// is nothing.
func (t *Tree) Point(p string) (Point, error) {
	fd, err := t.root.OpenFd(p, unix.O_PATH, 0)
	if err != nil {
		return Point{}, notFound(err)
	}
	defer unix.Close(fd)
	see, err := t.sees(fd)
	if err != nil {
		return Point{}, err
	}
	if see != visible {
		return Point{}, errs.With(errs.NotFound, unix.ENOENT)
	}
	var st unix.Stat_t
	var f unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &f)); err != nil {
		return Point{}, err
	}
	here, err := mountOf(fd)
	if err != nil {
		return Point{}, err
	}
	top, err := mountOf(t.root.Fd())
	return Point{
		IsDir: st.Mode&unix.S_IFMT == unix.S_IFDIR, ReadOnly: f.Flags&unix.ST_RDONLY != 0, OnRoot: here.id == top.id,
	}, err
}
