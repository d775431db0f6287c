package rootfs

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"

	"gantry/internal/archive"
	"gantry/internal/layer"
	"gantry/internal/overlay"
	"gantry/internal/userns"
)

// The parts of package archive that callers meet.
type (
	Upper  = archive.Upper
	Change = archive.Change
	Point  = archive.Point
)

// Usage is the disk space in bytes of what is below dir.
func Usage(ctx context.Context, dir string) int64 { return archive.Usage(ctx, dir) }

// UpperUsage is archive.UpperUsage.
func UpperUsage(ctx context.Context, dir string) int64 { return archive.UpperUsage(ctx, dir) }

// CleanPath is archive.Clean.
func CleanPath(p string) string { return archive.Clean(p) }

// A Tree is the root file system of a container, as it sees it, open for
// reading or writing from outside. It stays as it is when the container ends.
type Tree struct {
	*archive.Tree
	root *os.File
	// ids are those of a running container with a user namespace; nil else:
	// on the disk everything has the ids that it has inside.
	ids *userns.Map
}

// NewTree takes over fd, the root of a container that does not run.
func NewTree(fd int) *Tree {
	return &Tree{Tree: archive.Of(fd), root: os.NewFile(uintptr(fd), "root")}
}

// LiveTree takes over fd, a copy of the root of the running process pid. An
// error closes it.
func LiveTree(fd, pid int) (*Tree, error) {
	t := &Tree{Tree: archive.Live(fd), root: os.NewFile(uintptr(fd), "root")}
	ids, err := userns.OfProcess(pid)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	if !ids.Whole() {
		t.ids = &ids
	}
	return t, nil
}

// Close ends the tree.
func (t *Tree) Close() error { return t.root.Close() }

// Pack is archive.Tree.Pack, with the ids of inside.
func (t *Tree) Pack(ctx context.Context, w io.Writer, p string) error {
	return t.Tree.Pack(ctx, w, p, t.inside)
}

// PackAll is archive.Tree.PackAll, with the ids of inside.
func (t *Tree) PackAll(ctx context.Context, w io.Writer) error {
	return t.Tree.PackAll(ctx, w, t.inside)
}

func (t *Tree) inside(uid, gid int) (int, int) {
	if t.ids != nil {
		if u, g, ok := t.ids.ToContainer(uint32(uid), uint32(gid)); ok {
			return int(u), int(g)
		}
	}
	return uid, gid
}

// ExtractOptions say how to unpack a tar into a tree.
type ExtractOptions struct {
	Dir       string // in the tree; errors call it so
	KeepKinds bool   // a directory does not become something else, nor the reverse
	// Owner is who gets all files, as ids of inside; nil: whom the tar says.
	Owner *[2]int
}

// Extract unpacks a tar of any compression into the tree. The calling goroutine
// must end with it: its thread may be of no use to others afterwards.
func (t *Tree) Extract(ctx context.Context, r io.Reader, o ExtractOptions) error {
	if t.ids != nil {
		// Root of the host has no place among the ids of inside.
		runtime.LockOSThread()
		uid, gid := t.ids.Root()
		if err := (&overlay.Mapped{UID: int(uid), GID: int(gid)}).Act(); err != nil {
			return err
		}
	}
	_, err := layer.Extract(ctx, int(t.root.Fd()), r, layer.ExtractOptions{
		Dir: o.Dir, Shown: o.Dir, KeepKinds: o.KeepKinds,
		Owner: func(uid, gid int) (int, int) {
			if o.Owner != nil {
				uid, gid = o.Owner[0], o.Owner[1]
			}
			return t.outside(uid, gid)
		},
	})
	return err
}

func (t *Tree) outside(uid, gid int) (int, int) {
	if t.ids != nil {
		if u, g, ok := t.ids.ToHost(uint32(uid), uint32(gid)); ok {
			return int(u), int(g)
		}
		// Nobody, as what is not mapped shows.
		if u, g, ok := t.ids.ToHost(overflowID, overflowID); ok {
			return int(u), int(g)
		}
	}
	return uid, gid
}

// overflowID is what an id that is not mapped shows as (user_namespaces(7)).
const overflowID = 65534
