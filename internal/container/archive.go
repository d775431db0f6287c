package container

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"syscall"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/wire"
)

// ExtractOptions say how to put files into a container.
type ExtractOptions struct {
	// KeepKinds refuses to put a directory in the place of something else,
	// or something else in that of a directory.
	KeepKinds bool
	// AsUser gives all files to the container's user, if it has one.
	AsUser bool
}

// ArchiveStat describes a path in a container; of a link, the link itself.
func (c *Files) ArchiveStat(ctx context.Context, ref, path string) (wire.PathStat, error) {
	a, err := c.table.find(ref)
	if err != nil {
		return wire.PathStat{}, err
	}
	got := make(chan wire.PathStat, 1)
	err = c.aside(ctx, a, func(ctx context.Context) error {
		t, done, err := c.tree(ctx, a, launch.FilesOptions{}, nil)
		if err != nil {
			return err
		}
		defer done()
		s, err := t.Stat(launch.CleanPath(path))
		got <- s
		return err
	})
	if err != nil {
		return wire.PathStat{}, pathError(err, ref, path)
	}
	return <-got, nil
}

// ArchiveGet writes a file, or a directory with all below it, as a tar. begin is
// called before the first byte, with what the path is, and says where to.
func (c *Files) ArchiveGet(ctx context.Context, ref, path string, begin func(wire.PathStat) io.Writer) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	got := make(chan wire.PathStat, 1)
	var w io.Writer
	err = c.stream(ctx, a, writerFunc(func(p []byte) (int, error) {
		if w == nil {
			w = begin(<-got)
		}
		return w.Write(p)
	}), func(ctx context.Context, w io.Writer) error {
		t, done, err := c.tree(ctx, a, launch.FilesOptions{}, nil)
		if err != nil {
			return err
		}
		defer done()
		p := launch.CleanPath(path)
		s, err := t.Stat(p)
		if err != nil {
			return err
		}
		got <- s
		return t.Pack(ctx, w, p)
	})
	if err != nil {
		return pathError(err, ref, path)
	}
	a.tellOf("archive-path")
	return nil
}

// ArchivePut unpacks a tar of any compression into the directory path of a
// container. What was unpacked before an error stays.
func (c *Files) ArchivePut(ctx context.Context, ref, path string, r io.Reader, o ExtractOptions) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	err = c.aside(ctx, a, func(ctx context.Context) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		t, done, err := c.tree(ctx, a, launch.FilesOptions{}, cancel)
		if err != nil {
			return err
		}
		defer done()
		return c.put(ctx, a, t, path, r, o)
	})
	if err != nil {
		return pathError(err, ref, path)
	}
	a.tellOf("extract-to-dir")
	return nil
}

func (c *Files) put(ctx context.Context, a *actor, t *launch.FileTree, path string, r io.Reader, o ExtractOptions) error {
	p := launch.CleanPath(path)
	at, err := t.Point(p)
	switch {
	case err != nil:
		return err
	case !at.IsDir:
		return errs.New(errs.Invalid, "extraction point is not a directory")
	case at.ReadOnly && at.OnRoot:
		return errs.New(errs.Invalid, "container rootfs is marked read-only")
	case at.ReadOnly:
		return errs.New(errs.Invalid, "mounted volume is marked read-only")
	}
	x := launch.Extraction{Dir: p, KeepKinds: o.KeepKinds}
	if user := a.view().rec.Plan.Process.User; o.AsUser && user != "" {
		uid, gid, err := launch.OwnerOf(user, t)
		if err != nil {
			return err
		}
		x.Owner = &[2]int{uid, gid}
	}
	err = t.Extract(ctx, r, x)
	if errs.Is(err, errs.Invalid) {
		return errs.With(errs.Unknown, err) // Docker's status of a tar that is no good
	}
	return err
}

// pathError gives the errors of paths Docker's text and kind.
func pathError(err error, ref, path string) error {
	switch {
	case errs.KindOf(err) == errs.NotFound && errors.Is(err, fs.ErrNotExist):
		return errs.New(errs.NotFound, "Could not find the file %s in container %s", path, ref)
	case errors.Is(err, syscall.ENOTDIR) && errs.KindOf(err) == errs.Unknown:
		return errs.With(errs.Unknown, err)
	}
	return err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// streamBuffer is how much is handed on at once.
const streamBuffer = 256 << 10

// stream runs fn aside and writes what it gives to w.
func (c *Files) stream(ctx context.Context, a *actor, w io.Writer, fn func(context.Context, io.Writer) error) error {
	pr, pw := io.Pipe()
	ended := make(chan struct{})
	c.tasks.Go(func() {
		defer close(ended)
		pw.CloseWithError(c.aside(ctx, a, func(ctx context.Context) error {
			bw := bufio.NewWriterSize(pw, streamBuffer)
			if err := fn(ctx, bw); err != nil {
				return err
			}
			return bw.Flush()
		}))
	})
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, pr, make([]byte, streamBuffer))
	pr.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	<-ended
	return err
}
