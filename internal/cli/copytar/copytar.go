// Package copytar is what `cp` and `build` do with files on the user's side:
// which name a copy gets, files to a tar stream, and a tar stream to files.
// Package cli calls it. It reads and writes below the paths that the user named:
// a stream from a container is data from outside, so extracting opens every path
// inside the target directory by descriptor (os.Root) and never follows a link
// out of it. It must not know the API.
package copytar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"gantry/internal/errs"
)

// Destination is where a copy into a container goes.
type Destination struct {
	Path          string
	Exists, IsDir bool
}

// Options of a copy into a container.
type Options struct {
	FollowLink bool // copy what a link leads to
	KeepOwner  bool // owners as they are here; else root
}

// Upload is a planned copy into a container: which local tree, under which name,
// into which directory there.
type Upload struct {
	Dir    string // directory in the container
	source string // local path
	name   string // name at the root of the stream; "." for the content alone
	keep   bool
}

// trailing reports whether p insists on being a directory (a/, a/.).
func trailing(p string) bool { return strings.HasSuffix(p, "/") || contentOnly(p) }

// contentOnly reports whether p means what is in the directory (a/.).
func contentOnly(p string) bool { return p == "." || strings.HasSuffix(p, "/.") }

// Find tells what the local path src is, by the name that is followed or not as
// o says. Its error names the absolute path.
func Find(src string, o Options) (fs.FileInfo, error) {
	fi, err := os.Lstat(strings.TrimSuffix(src, "/"))
	if src == "/" {
		fi, err = os.Lstat(src)
	}
	if err == nil && (o.FollowLink || trailing(src)) {
		fi, err = os.Stat(src)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		if abs, aerr := filepath.Abs(src); aerr == nil {
			pe.Op, pe.Path = "lstat", abs
		}
	}
	return fi, err
}

// Plan decides on a copy of the local src to d, by the rules of cp: an existing
// directory takes the source under its own name, another path is its new name.
func Plan(src string, d Destination, o Options) (*Upload, error) {
	fi, err := Find(src, o)
	if err != nil {
		return nil, err
	}
	u := &Upload{source: src, keep: o.KeepOwner}
	if o.FollowLink {
		if u.source, err = filepath.EvalSymlinks(src); err != nil {
			return nil, err
		}
	}
	base := filepath.Base(src)
	if abs, err := filepath.Abs(src); err == nil {
		base = filepath.Base(abs)
	}
	switch {
	case d.Exists && d.IsDir:
		u.Dir, u.name = d.Path, base
		if contentOnly(src) && fi.IsDir() {
			u.name = "."
		}
	case d.Exists && fi.IsDir():
		return nil, errs.New(errs.Invalid, "cannot copy directory")
	case !d.Exists && trailing(d.Path) && !fi.IsDir():
		return nil, errs.New(errs.Invalid, "no such directory")
	default:
		p := path.Clean(d.Path)
		u.Dir, u.name = path.Dir(p), path.Base(p)
	}
	return u, nil
}

// Stream is a tar being written while it is read.
type Stream struct {
	r    *io.PipeReader
	n    atomic.Int64
	done chan struct{}
}

// Read reads the tar.
func (s *Stream) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.n.Add(int64(n))
	return n, err
}

// Close stops the writer and waits for it.
func (s *Stream) Close() error {
	err := s.r.Close()
	<-s.done
	return err
}

// Bytes returns how many bytes of the tar were read; call it after the stream's end.
func (s *Stream) Bytes() int64 {
	_ = s.r.Close()
	<-s.done
	return s.n.Load()
}

// Stream starts writing the tar.
func (u *Upload) Stream() *Stream {
	r, w := io.Pipe()
	s := &Stream{r: r, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		tw := tar.NewWriter(w)
		err := Add(tw, u.source, u.name, AddOptions{KeepOwner: u.keep})
		if err == nil {
			err = tw.Close()
		}
		w.CloseWithError(err)
	}()
	return s
}

// AddOptions of Add.
type AddOptions struct {
	KeepOwner bool
	Count     *int64                                        // bytes of files are added to it
	Skip      func(rel string, d fs.DirEntry) (bool, error) // leave out; may return fs.SkipDir
}

// Add writes the tree at root to tw under name ("." or "" for its content alone).
func Add(tw *tar.Writer, root, name string, o AddOptions) error {
	return filepath.WalkDir(strings.TrimSuffix(root, "/."), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(strings.TrimSuffix(root, "/."), p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if o.Skip != nil && rel != "." {
			skip, err := o.Skip(rel, d)
			if err != nil || skip {
				return err
			}
		}
		return addOne(tw, p, path.Join(name, rel), o)
	})
}

func addOne(tw *tar.Writer, p, name string, o AddOptions) error {
	fi, err := os.Lstat(p)
	if err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSocket != 0 {
		return nil // a tar can't hold it
	}
	link := ""
	if fi.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return err
	}
	h.Name = name
	if fi.IsDir() {
		h.Name += "/"
	}
	// Whole seconds, as docker: a fraction would take a record of its own.
	h.Format, h.ModTime, h.AccessTime, h.ChangeTime = tar.FormatPAX, h.ModTime.Truncate(time.Second), time.Time{}, time.Time{}
	if !o.KeepOwner {
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	}
	if !fi.Mode().IsRegular() {
		return tw.WriteHeader(h)
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	// The header has promised this many bytes; a file that grows meanwhile is cut.
	n, err := io.Copy(tw, io.LimitReader(f, h.Size))
	if o.Count != nil {
		*o.Count += n
	}
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s: became shorter while it was read", p)
	}
	return err
}
