package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how deep a tree is walked: each level holds descriptors.
// Nobody can name a path that is deeper (PATH_MAX).
const maxDepth = 2048

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// Owner gives the ids to write into a tar for those of a file.
type Owner func(uid, gid int) (int, int)

// Pack writes what p, a path of Clean, is to w: a file, or a directory with all
// below it. The names begin with the last element of p; those of "a/." with a
// dot, those of the root with a slash. owner may be nil.
func (t *Tree) Pack(ctx context.Context, w io.Writer, p string, owner Owner) error {
	fd, st, see, err := t.open(p)
	if err != nil {
		return notFound(err)
	}
	defer unix.Close(fd)
	name := base(p)
	if name == "/" {
		name = ""
	}
	k := newPacker(ctx, w, owner)
	k.tree = t
	if err := k.node(fd, &st, name, see, 0); err != nil {
		return err
	}
	return k.tw.Close()
}

// PackAll writes all that is in the tree, by names without a beginning of their
// own and without the root itself.
func (t *Tree) PackAll(ctx context.Context, w io.Writer, owner Owner) error {
	k := newPacker(ctx, w, owner)
	k.tree = t
	fd, err := unix.Openat(t.root.Fd(), ".", dirFlags, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	if err := k.children(fd, "", st.Dev, 0); err != nil {
		return err
	}
	return k.tw.Close()
}

type inode struct{ dev, ino uint64 }

// packer writes one tar.
type packer struct {
	ctx   context.Context
	tree  *Tree
	tw    *tar.Writer
	owner Owner
	upper bool             // what is packed is an overlay's upper directory
	links map[inode]string // the name of a file with several
	buf   []byte
}

func newPacker(ctx context.Context, w io.Writer, owner Owner) *packer {
	if owner == nil {
		owner = func(uid, gid int) (int, int) { return uid, gid }
	}
	return &packer{ctx: ctx, tw: tar.NewWriter(w), owner: owner, links: map[inode]string{}, buf: make([]byte, 256<<10)}
}

// children writes what is in the open directory fd, and closes it.
func (k *packer) children(fd int, name string, dev uint64, depth int) error {
	defer unix.Close(fd)
	if depth > maxDepth {
		return fmt.Errorf("%s: deeper than %d directories", name, maxDepth)
	}
	names, err := listDir(fd)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, n := range names {
		if err := context.Cause(k.ctx); err != nil {
			return err
		}
		if err := k.child(fd, n, join(name, n), dev, depth); err != nil {
			return err
		}
	}
	return nil
}

// join puts an element behind a name of a tar, in which the dot and the root
// keep their form.
func join(name, elem string) string {
	switch name {
	case ".":
		return "./" + elem
	case "", "/":
		return name + elem
	}
	return name + "/" + elem
}

func (k *packer) child(dir int, base, name string, dev uint64, depth int) error {
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	see := visible
	if st.Dev != dev { // another mount
		if see, err = k.tree.sees(fd); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if see == hidden {
		return nil
	}
	return k.node(fd, &st, name, see, depth)
}

// node writes the file open with O_PATH at fd, and all below it.
func (k *packer) node(fd int, st *unix.Stat_t, name string, see visibility, depth int) error {
	h, err := k.header(fd, st, name)
	if err != nil || h == nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return k.file(fd, h)
	case tar.TypeDir:
	default:
		return k.write(h)
	}
	if see == closed {
		return k.write(h)
	}
	dir, err := unix.Openat(fd, ".", dirFlags, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if h.PAXRecords, err = xattrs(dir); err == nil {
		err = k.write(h)
	}
	if err != nil {
		unix.Close(dir)
		return err
	}
	if name == "" {
		name = "/" // of Pack; PackAll has no node of its root
	}
	return k.children(dir, name, st.Dev, depth+1)
}

func (k *packer) write(h *tar.Header) error {
	if err := k.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// header describes a file; nil for one that a tar can't hold.
func (k *packer) header(fd int, st *unix.Stat_t, name string) (*tar.Header, error) {
	h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), ModTime: time.Unix(st.Mtim.Sec, 0), Format: tar.FormatPAX}
	h.Uid, h.Gid = k.owner(int(st.Uid), int(st.Gid))
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && kind != unix.S_IFSOCK && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := k.links[key]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return h, nil
		}
		k.links[key] = name
	}
	var err error
	switch kind {
	case unix.S_IFREG:
		h.Typeflag = tar.TypeReg
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = linkText(fd); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil, nil // a socket
	}
	return h, nil
}

// file writes a regular file. It has been pinned with O_PATH and seen to be
// regular: what is opened here is that file, whatever its name is now.
func (k *packer) file(pin int, h *tar.Header) error {
	fd, err := unix.Open(selfFd(pin), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	if k.upper {
		if _, err := readMarks(fd); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	h.Size = st.Size
	if h.PAXRecords, err = xattrs(fd); err != nil {
		return err
	}
	if err := k.write(h); err != nil {
		return err
	}
	return k.copy(f, h.Size)
}

// copy writes exactly size bytes, as the header has promised: what a file grows
// by meanwhile is left out, and zeros stand for what it has lost.
func (k *packer) copy(f *os.File, size int64) error {
	for size > 0 {
		if err := context.Cause(k.ctx); err != nil {
			return err
		}
		part := k.buf[:min(size, int64(len(k.buf)))]
		n, err := f.Read(part)
		if errors.Is(err, io.EOF) {
			clear(part)
			n, err = len(part), nil
		}
		if err != nil {
			return err
		}
		if _, err := k.tw.Write(part[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// selfFd is a path to what an open descriptor is of.
func selfFd(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// listDir returns the names in an open directory, in order.
func listDir(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// paxXattr is the prefix of extended attributes among PAX records.
const paxXattr = "SCHILY.xattr."

// xattrs reads the extended attributes that a copy keeps: users' own, file
// capabilities and access control lists.
func xattrs(fd int) (map[string]string, error) {
	names, err := listXattrs(fd)
	if err != nil {
		return nil, err
	}
	var records map[string]string
	for _, name := range names {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		value, err := getXattr(fd, name)
		if err != nil {
			continue // removed meanwhile
		}
		if records == nil {
			records = map[string]string{}
		}
		records[paxXattr+name] = value
	}
	return records, nil
}

func listXattrs(fd int) ([]string, error) {
	var small [1024]byte
	buf := small[:]
	n, err := unix.Flistxattr(fd, buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, 64<<10) // XATTR_LIST_MAX
		n, err = unix.Flistxattr(fd, buf)
	}
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
}

func getXattr(fd int, name string) (string, error) {
	n, err := unix.Fgetxattr(fd, name, nil)
	if err != nil {
		return "", err
	}
	buf := make([]byte, n)
	n, err = unix.Fgetxattr(fd, name, buf)
	return string(buf[:max(n, 0)]), err
}
