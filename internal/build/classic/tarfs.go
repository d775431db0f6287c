package classic

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// maxEntries is how many files a context may have.
const maxEntries = 4 << 20

// A tarFS is a build context that came as a tar. Nothing of it is ever a file
// of its own on this machine: names are keys, and contents are stretches of one
// nameless file. So no name and no link in it can lead anywhere.
type tarFS struct {
	data *os.File
	end  int64
	root *node
	n    int
}

// node is an entry. Directories that no entry was there for are made.
type node struct {
	stat     *types.Stat
	off      int64
	sum      [sha256.Size]byte
	children map[string]*node // of a directory
	names    []string         // of the children, sorted, once all are there
}

// spool reads a plain tar into a nameless file in dir.
func spool(ctx context.Context, r io.Reader, dir string) (*tarFS, error) {
	f, err := nameless(dir)
	if err != nil {
		return nil, err
	}
	t := &tarFS{data: f, root: directory("")}
	if err := t.read(ctx, tar.NewReader(r)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.root.sort()
	return t, nil
}

// nameless opens a new file that goes with its descriptor.
func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir), nil
	}
	f, err := os.CreateTemp(dir, "context-") // some file systems can't
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

func directory(name string) *node {
	return &node{stat: &types.Stat{Path: name, Mode: uint32(fs.ModeDir | 0o755)}, children: map[string]*node{}}
}

func (t *tarFS) close() error { return t.data.Close() }

func (t *tarFS) read(ctx context.Context, r *tar.Reader) error {
	for {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if t.n++; t.n > maxEntries {
			return errs.New(errs.Invalid, "the build context has more than %d files", maxEntries)
		}
		if err := t.add(hdr, r); err != nil {
			return fmt.Errorf("build context: %s: %w", hdr.Name, err)
		}
	}
}

// add takes an entry. Devices and pipes are of no use in a context.
func (t *tarFS) add(hdr *tar.Header, body io.Reader) error {
	name := inside(hdr.Name)
	n := &node{stat: &types.Stat{Path: name, Mode: uint32(hdr.FileInfo().Mode()), ModTime: hdr.ModTime.UnixNano(), Xattrs: xattrs(hdr)}}
	switch hdr.Typeflag {
	case tar.TypeDir:
		if name == "" {
			return nil
		}
		n.children = map[string]*node{}
		if old := t.at(name); old != nil && old.children != nil {
			n.children = old.children
		}
	case tar.TypeReg:
		sum := sha256.New()
		size, err := io.Copy(io.MultiWriter(io.NewOffsetWriter(t.data, t.end), sum), body)
		if err != nil {
			return err
		}
		n.off, n.stat.Size = t.end, size
		t.end += size
		sum.Sum(n.sum[:0])
	case tar.TypeSymlink:
		n.stat.Linkname, n.stat.Mode = hdr.Linkname, uint32(fs.ModeSymlink|0o777)
	case tar.TypeLink:
		to := t.at(inside(hdr.Linkname))
		if to == nil || to.children != nil {
			return errs.New(errs.Invalid, "link to %q, which is not there", hdr.Linkname)
		}
		stat := *to // the same content under another name
		stat.stat = &types.Stat{Path: name, Mode: to.stat.Mode, Size: to.stat.Size, ModTime: to.stat.ModTime, Linkname: to.stat.Linkname, Xattrs: to.stat.Xattrs}
		n = &stat
	default:
		return nil
	}
	if name == "" {
		return errs.New(errs.Invalid, "a file without a name")
	}
	t.put(name, n)
	return nil
}

// inside returns a name as a path below the root, without a leading slash.
func inside(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// xattrs returns the attributes that go into images: capabilities of programs.
func xattrs(hdr *tar.Header) map[string][]byte {
	const key = "security.capability"
	if v, ok := hdr.PAXRecords["SCHILY.xattr."+key]; ok {
		return map[string][]byte{key: []byte(v)}
	}
	return nil
}

// put adds a node, and the directories above it.
func (t *tarFS) put(name string, n *node) {
	at, done := t.root, ""
	dir, base := path.Split(name)
	for part := range strings.SplitSeq(strings.TrimSuffix(dir, "/"), "/") {
		if part == "" {
			continue
		}
		done = path.Join(done, part)
		next := at.children[part]
		if next == nil || next.children == nil {
			next = directory(done)
			at.children[part] = next
		}
		at = next
	}
	at.children[base] = n
}

// at returns the node of a clean name, nil if there is none.
func (t *tarFS) at(name string) *node {
	n := t.root
	for part := range strings.SplitSeq(name, "/") {
		if part == "" {
			continue
		}
		if n = n.children[part]; n == nil {
			return nil
		}
	}
	return n
}

func (n *node) sort() {
	n.names = make([]string, 0, len(n.children))
	for name, c := range n.children {
		n.names = append(n.names, name)
		if c.children != nil {
			c.sort()
		}
	}
	slices.Sort(n.names)
}

// maxLinks is how many symbolic links a path may lead over.
const maxLinks = 40

// file returns the contents of a small file, following links inside the context.
func (t *tarFS) file(name string, limit int64) ([]byte, error) {
	for range maxLinks {
		n, link, rest := t.follow(inside(name))
		switch {
		case link != "":
			name = path.Join(link, rest)
		case n == nil || n.children != nil:
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		case n.stat.Size > limit:
			return nil, errs.New(errs.Invalid, "%s has more than %d bytes", name, limit)
		default:
			return io.ReadAll(io.NewSectionReader(t.data, n.off, n.stat.Size))
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: unix.ELOOP}
}

// follow walks as far as the first link; link is where it leads, rest what
// follows it.
func (t *tarFS) follow(name string) (n *node, link, rest string) {
	n = t.root
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if n = n.children[part]; n == nil {
			return nil, "", ""
		}
		if n.stat.Linkname != "" {
			to := n.stat.Linkname
			if !path.IsAbs(to) {
				to = path.Join("/", path.Join(parts[:i]...), to)
			}
			return nil, to, path.Join(parts[i+1:]...)
		}
	}
	return n, "", ""
}

// Walk visits what is at or below target, a directory before what it holds and
// in the order of names.
func (t *tarFS) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	start := t.at(inside(target))
	if start == nil {
		return fn(target, nil, &fs.PathError{Op: "lstat", Path: target, Err: fs.ErrNotExist})
	}
	err := start.walk(ctx, fn)
	if errors.Is(err, fs.SkipDir) || errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

func (n *node) walk(ctx context.Context, fn fs.WalkDirFunc) error {
	if n.stat.Path != "" {
		if err := ctx.Err(); err != nil {
			return err
		}
		// A copy: filters change what they are given.
		s := &types.Stat{Path: n.stat.Path, Mode: n.stat.Mode, Size: n.stat.Size, ModTime: n.stat.ModTime, Linkname: n.stat.Linkname, Xattrs: n.stat.Xattrs}
		err := fn(s.Path, &fsutil.DirEntryInfo{Stat: s}, nil)
		if errors.Is(err, fs.SkipDir) && n.children != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
	for _, name := range n.names {
		err := n.children[name].walk(ctx, fn)
		if errors.Is(err, fs.SkipDir) { // said of a file: the rest of its directory
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Open returns the contents of a file.
func (t *tarFS) Open(name string) (io.ReadCloser, error) {
	n := t.at(inside(name))
	if n == nil || !fs.FileMode(n.stat.Mode).IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(t.data, n.off, n.stat.Size)), nil
}
