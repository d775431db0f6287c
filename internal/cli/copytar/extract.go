package copytar

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"gantry/internal/errs"
)

// Target says how a stream from a container becomes files here.
type Target struct {
	Source      string // path in the container: decides about /. and names
	SourceIsDir bool
	Path        string // what the user named
	KeepOwner   bool
}

// place decides on the directory to extract into and the name that the stream's
// first entry gets there ("" keeps the content alone).
func (t Target) place() (dir, name string, err error) {
	base := path.Base(path.Clean("/" + t.Source))
	fi, err := os.Stat(t.Path)
	switch {
	case err == nil && fi.IsDir():
		if contentOnly(t.Source) || base == "/" {
			return t.Path, "", nil
		}
		return t.Path, base, nil
	case err == nil && t.SourceIsDir:
		return "", "", errs.New(errs.Invalid, "cannot copy directory")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", "", err
	case err != nil && trailing(t.Path) && !t.SourceIsDir:
		return "", "", errs.New(errs.Invalid, "no such directory")
	}
	p := filepath.Clean(t.Path)
	if _, err := os.Stat(filepath.Dir(p)); err != nil {
		return "", "", errs.New(errs.NotFound, "invalid output path: directory %q does not exist", filepath.Dir(p))
	}
	return filepath.Dir(p), filepath.Base(p), nil
}

// Extract writes the stream's files and returns the bytes of files written.
func Extract(r io.Reader, t Target) (int64, error) {
	dir, name, err := t.place()
	if err != nil {
		return 0, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	x := extractor{root: root, name: name, keep: t.KeepOwner}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return x.n, x.finishDirs()
		}
		if err != nil {
			return x.n, err
		}
		if err := x.entry(tr, h); err != nil {
			return x.n, err
		}
	}
}

type extractor struct {
	root *os.Root
	name string
	keep bool
	n    int64
	dirs []*tar.Header // modes and times are set last, when nothing is written any more
}

// rename puts the local name in place of the first part of an entry's name, which
// is a dot if the content of a directory was asked for, and a slash for the root.
func (x *extractor) rename(entry string) string {
	rest := strings.TrimPrefix(path.Clean("/"+entry), "/")
	if !strings.HasPrefix(entry, "./") && !strings.HasPrefix(entry, "/") {
		_, rest, _ = strings.Cut(rest, "/")
	}
	if p := path.Join(x.name, rest); p != "" {
		return p
	}
	return "."
}

func (x *extractor) entry(r io.Reader, h *tar.Header) error {
	name := x.rename(h.Name)
	mode := fs.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		if err := x.root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		d := *h
		d.Name = name
		x.dirs = append(x.dirs, &d)
		return x.owner(name, h)
	case tar.TypeReg:
		if err := x.file(r, name, mode); err != nil {
			return err
		}
	case tar.TypeSymlink:
		x.replace(name)
		if err := x.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return x.owner(name, h)
	case tar.TypeLink:
		x.replace(name)
		return x.root.Link(x.rename(h.Linkname), name)
	default:
		return nil // devices and pipes are of no use outside
	}
	if err := x.owner(name, h); err != nil {
		return err
	}
	return x.root.Chtimes(name, h.ModTime, h.ModTime)
}

// replace removes what is in the way of a link; a directory stays, and the error
// comes from making the link.
func (x *extractor) replace(name string) {
	if fi, err := x.root.Lstat(name); err == nil && !fi.IsDir() {
		_ = x.root.Remove(name)
	}
}

func (x *extractor) file(r io.Reader, name string, mode fs.FileMode) error {
	// A link in the way is replaced, as it could lead anywhere inside.
	if fi, err := x.root.Lstat(name); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		_ = x.root.Remove(name)
	}
	f, err := x.root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	x.n += n
	if err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}

func (x *extractor) owner(name string, h *tar.Header) error {
	if !x.keep {
		return nil
	}
	return x.root.Lchown(name, h.Uid, h.Gid)
}

func (x *extractor) finishDirs() error {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		d := x.dirs[i]
		if d.Name == "." {
			continue // the user's own directory keeps its mode
		}
		if err := x.root.Chmod(d.Name, fs.FileMode(d.Mode).Perm()); err != nil {
			return err
		}
		if err := x.root.Chtimes(d.Name, d.ModTime, d.ModTime); err != nil {
			return err
		}
	}
	return nil
}
