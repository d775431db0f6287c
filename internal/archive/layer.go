package archive

import (
	"archive/tar"
	"context"
	"io"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names of whiteouts in the tar of a layer (OCI image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// WriteLayer writes what u holds as the tar of an image layer: what it has that
// those below have not, and whiteouts for what it hides of them. It returns the
// number of entries; none is an image's layer of nothing. A file whose name is
// that of a whiteout has no form in such a tar, and is left out. owner may be
// nil. The tar is streamed: it takes no more memory than its longest directory.
func (u Upper) WriteLayer(ctx context.Context, w io.Writer, owner Owner) (entries int, err error) {
	k := newPacker(ctx, w, owner)
	k.upper = true
	now := time.Now()
	put := func(d *diff) error {
		name := strings.TrimPrefix(d.path, "/")
		if strings.HasPrefix(path.Base(name), whiteoutPrefix) {
			return nil
		}
		entries++
		if d.kind == Deleted {
			dir, base := path.Split(name)
			return k.write(whiteout(dir+whiteoutPrefix+base, now))
		}
		if err := k.single(d, name); err != nil {
			return err
		}
		if d.opaque {
			entries++
			return k.write(whiteout(name+"/"+opaqueName, now))
		}
		return nil
	}
	if err := u.walk(ctx, put, walkOptions{}); err != nil {
		return entries, err
	}
	return entries, k.tw.Close()
}

func whiteout(name string, at time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: at.Truncate(time.Second), Format: tar.FormatPAX}
}

// single writes one file, without what is below it.
func (k *packer) single(d *diff, name string) error {
	h, err := k.header(d.fd, &d.st, name)
	if err != nil || h == nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return k.file(d.fd, h)
	case tar.TypeDir:
		dir, err := unix.Openat(d.fd, ".", dirFlags, 0)
		if err != nil {
			return err
		}
		h.PAXRecords, err = xattrs(dir)
		unix.Close(dir)
		if err != nil {
			return err
		}
	}
	return k.write(h)
}
