package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/launch/lookup"
	"gantry/internal/launch/rootfs"
	"gantry/internal/plan"
)

// FilesOptions say how a container's files are wanted.
type FilesOptions struct {
	// Pid is the container's first process if it runs, as the host numbers
	// it; 0 if it does not run. Then the caller keeps it from being started
	// during the call, and with Write until the files are closed.
	Pid   int
	Write bool // else they are read-only
	// Bare leaves out what is mounted in the root: volumes and the like.
	Bare bool
}

// Files returns the root file system of a container with its volumes, as a
// detached tree of mounts that ends with the descriptor, whatever becomes of the
// container. Nothing in it runs or opens devices. For a container that does not
// run, fresh volumes are filled as a start would. errs.Conflict: the process is
// not the container's any more.
func (l *Launcher) Files(ctx context.Context, in Input, o FilesOptions) (*FileTree, error) {
	if o.Pid > 0 {
		return liveFiles(l, in, o)
	}
	fd, err := downFiles(ctx, l, in, o)
	if err != nil {
		return nil, err
	}
	return rootfs.NewTree(fd), nil
}

// DiskUsage is the disk space in bytes of what is below dir.
func DiskUsage(ctx context.Context, dir string) int64 { return rootfs.Usage(ctx, dir) }

// UpperUsage is DiskUsage of a container's writable directory, without what is
// there only to be mounted over.
func UpperUsage(ctx context.Context, dir string) int64 { return rootfs.UpperUsage(ctx, dir) }

// CleanPath makes a path in a container absolute and clean, but keeps a last
// "/" or "/.".
func CleanPath(p string) string { return rootfs.CleanPath(p) }

// OwnerOf returns the user and group that a user's name, or a pair of a user's
// and a group's, is by the container's own files.
func OwnerOf(user string, t *FileTree) (uid, gid int, err error) {
	u, err := lookup.User(plan.Process{User: user}, t)
	return int(u.UID), int(u.GID), err
}

// liveFiles copies the mounts of a process that is proven to be the container's:
// it was in its control group after it was pinned, and it is still there after
// its mounts were copied.
func liveFiles(l *Launcher, in Input, o FilesOptions) (*FileTree, error) {
	gone := errs.New(errs.Conflict, "container %s is not running", in.ID)
	pidfd, err := unix.PidfdOpen(o.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, gone
	}
	if err != nil {
		return nil, fmt.Errorf("container %s: process %d: %w", in.ID, o.Pid, err)
	}
	defer unix.Close(pidfd)
	procs, err := l.Cgroup(in.ID, in.Plan).Procs()
	if err != nil || !slices.Contains(procs, o.Pid) {
		return nil, gone
	}
	extent, attrs := rootfs.Everything, uint64(0)
	if o.Bare {
		extent = rootfs.RootAlone
	}
	if !o.Write {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	fd, err := rootfs.Copy(pidfd, extent, attrs)
	var t *FileTree
	if err == nil {
		t, err = rootfs.LiveTree(fd, o.Pid)
	}
	// One that is dead but not reaped has no mounts any more.
	if alive := unix.PidfdSendSignal(pidfd, 0, nil, 0); alive != nil || errors.Is(err, unix.ESRCH) {
		if err == nil {
			_ = t.Close() // a copy of mounts: nothing to lose
		}
		return nil, gone
	}
	return t, err
}

// downFiles assembles the root of a container that does not run.
func downFiles(ctx context.Context, l *Launcher, in Input, o FilesOptions) (fd int, err error) {
	b := newBuild(l, in)
	defer b.close()
	if err := b.makeRootfs(ctx); err != nil {
		return -1, err
	}
	dir := l.dir(in.ID)
	p := rootfs.Parts{
		Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Lower: in.below(), Write: o.Write, ReadOnly: in.Plan.ReadOnly,
		Bounded: in.Plan.RootSize > 0,
	}
	if o.Bare {
		return rootfs.Assemble(p)
	}
	// The tree keeps what it has of them.
	defer func() {
		if e := b.unmountVolumes(context.WithoutCancel(ctx)); e != nil {
			if err == nil {
				unix.Close(fd)
			}
			err = errors.Join(err, e)
		}
	}()
	if p.Places, err = b.places(ctx); err != nil {
		return -1, err
	}
	missing := func(pl rootfs.Place) bool { return b.view.Missing(pl.Target) }
	if !p.Write && slices.ContainsFunc(p.Places, missing) {
		// Only a writable one makes mount points.
		first := p
		first.Write, first.ReadOnly = true, false
		fd, err := rootfs.Assemble(first)
		if err != nil {
			return -1, err
		}
		unix.Close(fd)
	}
	return rootfs.Assemble(p)
}

// places finds what belongs into the root: volumes and binds, those whose source
// is there.
func (b *build) places(ctx context.Context) ([]rootfs.Place, error) {
	var list []rootfs.Place
	for _, m := range b.in.Plan.Mounts {
		pl := rootfs.Place{Target: m.Target, Source: m.Source, ReadOnly: m.ReadOnly, Alone: m.NonRecursive}
		switch m.Type {
		case "bind":
			if _, err := os.Stat(m.Source); err != nil {
				continue
			}
		case "volume":
			if err := b.mountVolume(ctx, m); err != nil {
				return nil, err
			}
			pl.Source = b.sources[m.Target]
		default:
			continue // what exists only while it runs
		}
		list = append(list, pl)
	}
	return list, nil
}
