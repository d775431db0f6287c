package lazy

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is an inode of the file system.
type node struct {
	fs.Inode
	c    *contents
	e    *estargz.TOCEntry
	gone bool // it is a whiteout
}

var (
	_ fs.NodeLookuper    = (*node)(nil)
	_ fs.NodeReaddirer   = (*node)(nil)
	_ fs.NodeGetattrer   = (*node)(nil)
	_ fs.NodeOpener      = (*node)(nil)
	_ fs.NodeReader      = (*node)(nil)
	_ fs.NodeReadlinker  = (*node)(nil)
	_ fs.NodeGetxattrer  = (*node)(nil)
	_ fs.NodeListxattrer = (*node)(nil)
	_ fs.NodeStatfser    = (*node)(nil)
)

// show mounts the file system of a layer at dir. It ends when it is unmounted and
// nobody uses it any more.
func show(c *contents, dir string) (*fuse.Server, error) {
	root, _ := c.reader.Lookup("")
	forever := 24 * time.Hour // nothing ever changes
	s, err := fs.Mount(dir, &node{c: c, e: root}, &fs.Options{
		EntryTimeout: &forever, AttrTimeout: &forever, NegativeTimeout: &forever, NullPermissions: true,
		RootStableAttr: &fs.StableAttr{Ino: c.inodes[root]},
		MountOptions: fuse.MountOptions{
			DirectMountStrict: true, DirectMountFlags: unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID,
			AllowOther: true, FsName: "gantry-lazy", Name: "gantry", MaxReadAhead: 1 << 20, MaxWrite: 1 << 20,
			Options: []string{"default_permissions"},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	readAhead(dir)
	return s, nil
}

// readAhead has the kernel read ahead by more than its default, so that less is
// asked for by small parts. It is a matter of speed alone.
func readAhead(dir string) {
	var st unix.Stat_t
	if unix.Stat(dir, &st) == nil {
		at := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
		_ = os.WriteFile(at, []byte("1024"), 0)
	}
}

// mode returns the type and permissions of an entry.
func (n *node) mode() uint32 {
	if n.gone {
		return unix.S_IFCHR
	}
	m := uint32(n.e.Mode) & 0o7777
	switch n.e.Type {
	case "dir":
		return m | unix.S_IFDIR
	case "symlink":
		return unix.S_IFLNK | 0o777
	case "char":
		return m | unix.S_IFCHR
	case "block":
		return m | unix.S_IFBLK
	case "fifo":
		return m | unix.S_IFIFO
	}
	return m | unix.S_IFREG
}

func (n *node) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink = n.c.inodes[n.e], n.mode(), uint32(max(n.e.NumLink, 1))
	out.Blksize = 4096
	if n.gone {
		return
	}
	out.Owner = fuse.Owner{Uid: uint32(n.e.UID), Gid: uint32(n.e.GID)}
	t := n.e.ModTime()
	out.SetTimes(&t, &t, &t)
	switch n.e.Type {
	case "reg", "hardlink":
		out.Size = uint64(n.e.Size)
	case "symlink":
		out.Size = uint64(len(n.e.LinkName))
	case "char", "block":
		out.Rdev = uint32(unix.Mkdev(uint32(n.e.DevMajor), uint32(n.e.DevMinor)))
	}
	out.Blocks = (out.Size + 511) / 512
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.attr(&out.Attr)
	return 0
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	e, gone, ok := child(n.e, name)
	if !ok {
		return nil, syscall.ENOENT
	}
	c := &node{c: n.c, e: e, gone: gone}
	c.attr(&out.Attr)
	return n.NewInode(ctx, c, fs.StableAttr{Mode: c.mode() & unix.S_IFMT, Ino: n.c.inodes[e]}), 0
}

func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	var list []fuse.DirEntry
	children(n.e, func(name string, e *estargz.TOCEntry, gone bool) {
		c := node{c: n.c, e: e, gone: gone}
		list = append(list, fuse.DirEntry{Name: name, Mode: c.mode() & unix.S_IFMT, Ino: n.c.inodes[e]})
	})
	slices.SortFunc(list, func(a, b fuse.DirEntry) int { return strings.Compare(a.Name, b.Name) })
	return fs.NewListDirStream(list), 0
}

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if n.gone {
		return nil, syscall.EINVAL
	}
	k, err := n.c.read(path.Clean(n.e.Name), p, off)
	if err != nil {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(p[:k]), 0
}

func (n *node) Readlink(context.Context) ([]byte, syscall.Errno) { return []byte(n.e.LinkName), 0 }

// opaqueName is the attribute by which overlay knows opaque directories.
const opaqueName = "trusted.overlay.opaque"

func (n *node) xattr(name string) ([]byte, bool) {
	if name == opaqueName && n.e.Type == "dir" && !n.gone {
		return []byte("y"), isOpaque(n.e)
	}
	if n.gone || strings.HasPrefix(name, "trusted.overlay.") {
		return nil, false
	}
	v, ok := n.e.Xattrs[name]
	return v, ok
}

func (n *node) Getxattr(_ context.Context, name string, p []byte) (uint32, syscall.Errno) {
	v, ok := n.xattr(name)
	if !ok {
		return 0, syscall.ENODATA
	}
	if len(p) < len(v) {
		return uint32(len(v)), syscall.ERANGE
	}
	return uint32(copy(p, v)), 0
}

func (n *node) Listxattr(_ context.Context, p []byte) (uint32, syscall.Errno) {
	var all []byte
	if _, ok := n.xattr(opaqueName); ok {
		all = append(all, opaqueName+"\x00"...)
	}
	if !n.gone {
		for name := range n.e.Xattrs {
			if !strings.HasPrefix(name, "trusted.overlay.") {
				all = append(all, name+"\x00"...)
			}
		}
	}
	if len(p) < len(all) {
		return uint32(len(all)), syscall.ERANGE
	}
	return uint32(copy(p, all)), 0
}

func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Files = uint64(n.c.blob.layer.Size)/4096+1, uint64(len(n.c.inodes))
	return 0
}
