package solve

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// Watcher sees what is read of a local context: each file that is compared with
// what the daemon has, and the bytes of each that is sent. Calls come from
// several goroutines.
type Watcher interface {
	Seen(path string, fi fs.FileInfo)
	// Sent returns a writer for the bytes of a file that the daemon wants;
	// it is closed at the end of the file.
	Sent(path string) io.WriteCloser
}

// localDir is a directory as the session offers it. Files are opened below the
// directory's descriptor: a link that leads out of it, made or swapped at any
// time, is not followed.
type localDir struct {
	fsutil.FS
	root  *os.Root
	watch Watcher
}

// openDir returns dir as a context; close releases it.
func openDir(dir string, w Watcher) (f fsutil.FS, close func() error, err error) {
	plain, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	return &localDir{FS: plain, root: root, watch: w}, root.Close, nil
}

// Walk is FS's.
func (d *localDir) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	if d.watch == nil {
		return d.FS.Walk(ctx, target, fn)
	}
	return d.FS.Walk(ctx, target, func(p string, e fs.DirEntry, err error) error {
		if err := fn(p, e, err); err != nil {
			return err
		}
		if err == nil && e != nil && !e.IsDir() {
			if fi, err := e.Info(); err == nil {
				d.watch.Seen(p, fi)
			}
		}
		return nil
	})
}

// Open is FS's.
func (d *localDir) Open(p string) (io.ReadCloser, error) {
	f, err := d.root.Open(p)
	if err != nil || d.watch == nil {
		return f, err
	}
	return &watched{f, d.watch.Sent(p)}, nil
}

// watched copies what is read of a file to a watcher.
type watched struct {
	f *os.File
	w io.WriteCloser
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.f.Read(b)
	if n > 0 {
		_, _ = w.w.Write(b[:n]) // the watcher keeps sums: it has no errors
	}
	return n, err
}

func (w *watched) Close() error {
	_ = w.w.Close() // as above
	return w.f.Close()
}

// oneFile is a context of a single file, or of none if name is empty.
type oneFile struct {
	name string
	data []byte
}

// Walk is FS's.
func (o oneFile) Walk(_ context.Context, target string, fn fs.WalkDirFunc) error {
	if t := strings.Trim(target, "/"); o.name == "" || t != "" && t != "." && t != o.name {
		return nil
	}
	return fn(o.name, &fsutil.DirEntryInfo{Stat: &types.Stat{Path: o.name, Mode: 0o644, Size: int64(len(o.data))}}, nil)
}

// Open is FS's.
func (o oneFile) Open(p string) (io.ReadCloser, error) {
	if o.name == "" || p != o.name {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(o.data)), nil
}
