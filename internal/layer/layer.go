// Package layer turns the tar of one image layer into a directory that overlay
// file systems take as a lower layer, whatever is in the tar.
//
// The stores call it with a fresh directory of their own; image import and
// archive readers use its decompressor. A tar is written by strangers: every
// name is resolved by descriptors below the directory (openat2,
// RESOLVE_IN_ROOT), nothing outside is read or written, no foreign program
// runs, and what unpacks to more than Limits allow is an error before it is a
// full disk. The package knows neither images nor stores.
//
// Format: OCI image-spec, layer.md (tar, whiteouts as .wh. files); the result
// is in overlayfs's terms (whiteout = character device 0:0, opaque directory =
// xattr trusted.overlay.opaque), Documentation/filesystems/overlayfs.rst, or,
// with Options.Whole, a tree as a container sees it.
package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Limits bound what a layer may unpack to. A zero field means its default.
type Limits struct {
	Entries   int64 // entries of the tar; default 5 million
	Bytes     int64 // unpacked size, holes included; default 512 GiB
	Ratio     int64 // unpacked over packed size, once RatioFrom is unpacked; default 400
	RatioFrom int64 // bytes; default 1 GiB
	Depth     int   // directories above an entry; default 256
}

func (l Limits) withDefaults() Limits {
	set := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Entries, 5_000_000)
	set(&l.Bytes, 512<<30)
	set(&l.Ratio, 400)
	set(&l.RatioFrom, 1<<30)
	if l.Depth == 0 {
		l.Depth = 256
	}
	return l
}

// Options say how to unpack.
type Options struct {
	Limits Limits
	// Parents are the directories of the layers below, topmost first. A
	// directory that the tar only implies takes its owner, mode and times
	// from there. Without any, the layer is the lowest and whiteouts, which
	// have nothing to hide, are left out.
	Parents []string
	// Blind is a layer with others below that are not there yet. Adopt
	// completes it when they are.
	Blind bool
	// Whole is for a directory that holds a copy of the layers below: what
	// the layer hides is removed from it, and Parents are not needed. Files
	// that are there are replaced, never written in place.
	Whole bool
	// Decompressors are those that are used, and may be used by others; nil
	// for new ones.
	Decompressors *Decompressors
}

// Stats is what a layer held.
type Stats struct {
	Entries int64
	Bytes   int64    // sum of the sizes of regular files
	Implied []string // with Options.Blind: directories for Adopt
}

// Apply unpacks the tar of r, uncompressed, into dir, which is empty or holds
// what the same tar has put there (or, with Options.Whole, the layers below). Entries that contradict each other are
// settled as by Docker: the last one wins.
//
// errs.Invalid is a tar that is broken or refused; the text names the entry.
// After an error dir is to be thrown away. Nothing is synced.
func Apply(ctx context.Context, dir string, r io.Reader, o Options) (Stats, error) {
	a, err := newApplier(dir, o)
	if err != nil {
		return Stats{}, err
	}
	defer a.close()
	named := func(name string, err error) error { return fmt.Errorf("layer entry %q: %w", clip(name), err) }
	if err := a.entries(ctx, r, named); err != nil {
		return a.stats, err
	}
	err = a.finish()
	a.stats.Implied = slices.Sorted(maps.Keys(a.implied)) // parents come first
	return a.stats, err
}

// entries applies every entry of a tar. An error of one is what failed makes of
// it.
func (a *applier) entries(ctx context.Context, r io.Reader, failed func(name string, err error) error) error {
	tr := tar.NewReader(r)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return tarError(err)
		}
		if err := a.entry(hdr, tr); err != nil {
			return failed(hdr.Name, err)
		}
	}
}

// tarError gives the errors of a tar reader their kind; those of the stream
// below keep theirs.
func tarError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return errs.With(errs.Invalid, err)
	}
	return err
}

// clip shortens a stranger's name for an error text.
func clip(name string) string {
	const most = 200
	if len(name) > most {
		return name[:most] + "…"
	}
	return name
}

// applier is one unpacking.
type applier struct {
	limits  Limits
	parents []int // descriptors of Options.Parents
	blind   bool
	implied map[string]bool // directories for Adopt
	dirs    *dirs
	into    *ExtractOptions // of Extract; nil for a layer
	whole   bool
	mine    map[string]bool // with whole: what this layer has brought
	stats   Stats
	times   []dirTime // of directories, to be set when nothing is added any more
	buf     []byte
}

type dirTime struct {
	path         string
	atime, mtime unix.Timespec
}

func newApplier(dir string, o Options) (a *applier, err error) {
	a = &applier{limits: o.Limits.withDefaults(), blind: o.Blind, implied: map[string]bool{}, whole: o.Whole, mine: map[string]bool{}, buf: make([]byte, 128<<10)}
	root, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	a.dirs = newDirs(root, a.imply)
	for _, p := range o.Parents {
		fd, err := openDir(p)
		if err != nil {
			a.close()
			return nil, err
		}
		a.parents = append(a.parents, fd)
	}
	return a, nil
}

func openDir(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", dir, err)
	}
	return fd, nil
}

func (a *applier) close() {
	a.dirs.close()
	for _, fd := range a.parents {
		unix.Close(fd)
	}
}

// entry unpacks one entry.
func (a *applier) entry(hdr *tar.Header, body io.Reader) error {
	a.stats.Entries++
	if a.stats.Entries > a.limits.Entries {
		return errs.New(errs.Invalid, "more than %d entries", a.limits.Entries)
	}
	if hdr.Size < 0 || hdr.Size > a.limits.Bytes-a.stats.Bytes {
		return errs.New(errs.Invalid, "layer unpacks to more than %d bytes: refused", a.limits.Bytes)
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(hdr.Name, a.limits.Depth)
	if err != nil {
		return err
	}
	if err := checkHeader(hdr); err != nil {
		return err
	}
	if a.into != nil {
		return a.extract(name, hdr, body)
	}
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return errs.New(errs.Invalid, "the root is not a directory")
		}
		return a.dirMeta(a.dirs.root, ".", hdr)
	}
	dir, base := path.Split(name)
	dir = path.Clean("./" + dir)
	if strings.HasPrefix(dir, metaPrefix) || strings.Contains(dir, "/"+metaPrefix) {
		return nil // below a directory of AUFS's own
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return a.whiteout(dir, base)
	}
	parent, err := a.dirs.open(dir)
	if err != nil {
		return err
	}
	if err := a.create(parent, dir, base, hdr, body); err != nil {
		return err
	}
	if a.whole {
		a.mine[path.Join(dir, base)] = true
	}
	return nil
}

// cleanName returns name as a clean relative path, or errs.Invalid if it leads
// out of the root, is deeper than depth, or can't be a file name.
func cleanName(name string, depth int) (string, error) {
	name = strings.TrimLeft(name, "/")
	up, n := 0, 0
	for elem := range strings.SplitSeq(name, "/") {
		switch {
		case elem == "" || elem == ".":
		case elem == "..":
			if up--; up < 0 {
				return "", errs.New(errs.Invalid, "leads out of the layer")
			}
		case len(elem) > 255:
			return "", errs.New(errs.Invalid, "name longer than 255 bytes")
		default:
			up++
			n = max(n, up)
		}
	}
	if n > depth {
		return "", errs.New(errs.Invalid, "deeper than %d directories", depth)
	}
	if len(name) > 4096 || strings.ContainsRune(name, 0) {
		return "", errs.New(errs.Invalid, "not a file name")
	}
	return path.Clean("./" + name), nil
}

// maxID is the highest user or group id; one more means "leave it" to chown(2).
const maxID = 1<<32 - 2

func checkHeader(hdr *tar.Header) error {
	if hdr.Uid < 0 || hdr.Gid < 0 || hdr.Uid > maxID || hdr.Gid > maxID {
		return errs.New(errs.Invalid, "owner %d:%d is out of range", hdr.Uid, hdr.Gid)
	}
	switch hdr.Typeflag {
	case tar.TypeReg, 0, tar.TypeCont, tar.TypeGNUSparse, tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return nil
	}
	return errs.New(errs.Invalid, "unknown type %q", hdr.Typeflag)
}

// finish sets the times of the directories, last, because every entry added to
// a directory changes them.
func (a *applier) finish() error {
	for _, t := range a.times {
		if err := a.setTimes(t); err != nil {
			return fmt.Errorf("layer entry %q: set times: %w", clip(t.path), err)
		}
	}
	return nil
}

func (a *applier) setTimes(t dirTime) error {
	dir, base := path.Split(t.path)
	fd, err := a.dirs.find(path.Clean("./" + dir))
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil // a later entry replaced it
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil
	}
	return unix.UtimesNanoAt(fd, base, []unix.Timespec{t.atime, t.mtime}, unix.AT_SYMLINK_NOFOLLOW)
}
