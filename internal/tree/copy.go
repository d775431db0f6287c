package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/rootpath"
)

// maxDepth bounds how deep a tree is copied: each level holds two descriptors.
const maxDepth = 400

// CopyInto copies what the open directory src holds into the open directory dst,
// which is empty: files with their owners, permissions, times and extended
// attributes, links within the tree as links. It closes both.
func CopyInto(ctx context.Context, src, dst int) error {
	c := copier{ctx: ctx, links: map[inode]string{}, top: dst}
	return c.dir(src, dst, "", 0)
}

type inode struct{ dev, ino uint64 }

// copier copies one tree. All names are looked up in open directories and never
// followed.
type copier struct {
	ctx   context.Context
	share bool             // files become links of the source's, where that is possible
	top   int              // the destination's top directory
	links map[inode]string // where a file with several names has been copied to
	apart bool             // blocks can't be shared, as is known by now
	told  func(int64)      // of the bytes of a file; may be nil
	done  Result
}

// dir copies the directory src to dst, and closes both. path is dst's below the
// top.
func (c *copier) dir(src, dst int, path string, depth int) error {
	in := os.NewFile(uintptr(src), "source")
	out := os.NewFile(uintptr(dst), "destination")
	defer in.Close()
	defer out.Close()
	if depth > maxDepth {
		return fmt.Errorf("%s: deeper than %d directories", path, maxDepth)
	}
	names, err := in.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(src, dst, name, path+name, depth); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if err := copyXattrs(src, dst); err != nil {
		return err
	}
	return finish(dst, &st)
}

// entry copies one name.
func (c *copier) entry(src, dst int, name, path string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir {
		c.done.Files++
	}
	if c.share && !isDir {
		err := unix.Linkat(src, name, dst, name, 0)
		if err == nil || !cantLink(err) {
			return err
		}
	}
	if !isDir && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := c.links[key]; ok {
			return c.link(first, dst, name)
		}
		c.links[key] = path
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = c.subdir(src, dst, name, path, depth)
	case unix.S_IFREG:
		err = c.file(src, dst, name, &st)
	case unix.S_IFLNK:
		err = copyLink(src, dst, name, &st)
	case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFSOCK:
		err = copyNode(dst, name, &st)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// link gives the file copied to first, a path below the top, another name.
func (c *copier) link(first string, dst int, name string) error {
	root := rootpath.At(c.top)
	dir, base, err := root.Parent(first)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Linkat(dir, base, dst, name, 0)
}

func (c *copier) subdir(src, dst int, name, path string, depth int) error {
	if err := unix.Mkdirat(dst, name, 0o700); err != nil {
		return err
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	from, err := unix.Openat(src, name, flags, 0)
	if err != nil {
		return err
	}
	to, err := unix.Openat(dst, name, flags, 0)
	if err != nil {
		unix.Close(from)
		return err
	}
	return c.dir(from, to, path+"/", depth+1)
}

func copyLink(src, dst int, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(src, name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), dst, name); err != nil {
		return err
	}
	if err := unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dst, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// copyNode makes a pipe, socket or device.
func copyNode(dst int, name string, st *unix.Stat_t) error {
	if err := unix.Mknodat(dst, name, st.Mode, int(st.Rdev)); err != nil {
		return err
	}
	if err := unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Fchmodat(dst, name, st.Mode&0o7777, 0); err != nil { // mknod obeys the umask
		return err
	}
	return unix.UtimesNanoAt(dst, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// finish gives a copied file or directory its owner, permissions and times.
// The permissions come after the owner, since chown takes bits away.
func finish(fd int, st *unix.Stat_t) error {
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// copyXattrs copies what user, security and POSIX ACL attributes there are.
// Those of overlayfs (trusted.*) belong to the layer. A destination that can't
// hold one goes without.
func copyXattrs(from, to int) error {
	size, err := unix.Flistxattr(from, nil)
	if size == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(from, list); err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(list[:size]), "\x00") {
		if !wanted(name) {
			continue
		}
		if err := copyXattr(from, to, name); err != nil {
			return err
		}
	}
	return nil
}

func wanted(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.")
}

func copyXattr(from, to int, name string) error {
	n, err := unix.Fgetxattr(from, name, nil)
	if err != nil {
		return fmt.Errorf("attribute %s: %w", name, err)
	}
	value := make([]byte, n)
	if n, err = unix.Fgetxattr(from, name, value); err != nil {
		return fmt.Errorf("attribute %s: %w", name, err)
	}
	err = unix.Fsetxattr(to, name, value[:n], 0)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("attribute %s: %w", name, err)
	}
	return nil
}
