package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/archive"
	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/layer"
	"gantry/internal/tree"
	"gantry/internal/volume/local"
	"gantry/internal/wire"
)

// Labels of a volume that Snapshot made.
const (
	SnapshotOf = "gantry.snapshot.of" // the volume's name
	SnapshotAt = "gantry.snapshot.at" // RFC 3339
)

// Transfers carry what volumes hold in and out. Each claims its volumes under an
// id of its own, as a container would: nothing is removed under its hands, and
// what a crash leaves claimed is swept like a lost container's.
type Transfers struct{ Volumes *Volumes }

// with calls fn with the directory of a volume that is mounted meanwhile. The
// volume must exist.
func (t Transfers) with(ctx context.Context, name string, fn func(dir string, m Mounted) error) (err error) {
	v := t.Volumes
	r, err := v.get(name)
	if err != nil {
		return err
	}
	owner := id.New()
	if _, err := v.Claim(ctx, owner, Claim{Name: name, Driver: r.Driver}); err != nil {
		return err
	}
	defer func() {
		_, ferr := v.Forget(context.WithoutCancel(ctx), owner)
		err = errors.Join(err, ferr)
	}()
	m, err := v.Mount(ctx, owner, name)
	if err != nil {
		return err
	}
	if m.File != nil {
		defer m.File.Close()
	}
	return fn(m.dir(), m)
}

func openDir(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", dir, err)
	}
	return fd, nil
}

// Export writes what a volume holds as a tar. begin is called when nothing but
// reading can fail any more. errs.NotFound if there is no such volume.
func (t Transfers) Export(ctx context.Context, name string, begin func() io.Writer) error {
	return t.with(ctx, name, func(dir string, _ Mounted) error {
		fd, err := openDir(dir)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return archive.Of(fd).PackAll(ctx, begin(), nil)
	})
}

// Import unpacks a tar, of any compression, into a volume, which is made if there
// is none. One that holds something is errs.Conflict. Runs of zeros become holes.
// If it fails a volume that it made is removed.
func (t Transfers) Import(ctx context.Context, name string, r io.Reader) (_ wire.VolumeCopied, err error) {
	v := t.Volumes
	var out wire.VolumeCopied
	_, missing := v.get(name)
	if missing != nil {
		if !errs.Is(missing, errs.NotFound) {
			return out, missing
		}
		if _, err := v.Create(ctx, wire.VolumeCreate{Name: name}); err != nil {
			return out, err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, v.Remove(context.WithoutCancel(ctx), name, RemoveOptions{Force: true}))
			}
		}()
	}
	out.Name = name
	err = t.with(ctx, name, func(dir string, _ Mounted) error {
		empty, err := local.Empty(dir)
		if err != nil {
			return err
		}
		if !empty {
			return errs.New(errs.Conflict, "import %s: the volume holds something already", name)
		}
		fd, err := openDir(dir)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		s, err := layer.Extract(ctx, fd, r, layer.ExtractOptions{Dir: ".", Shown: name})
		if err != nil {
			return fmt.Errorf("import %s: %w", name, err)
		}
		out.Files, out.Bytes = int(s.Entries), s.Bytes
		if err := tree.Dig(ctx, fd); err != nil {
			return fmt.Errorf("import %s: %w", name, err)
		}
		return v.MarkUsed(ctx, name)
	})
	return out, err
}

// Clone makes a volume with what another holds: by sharing its blocks where the
// file system can, which takes no time and no space until one of them changes,
// else by copying. The copy is of this host whatever keeps the original, has its
// labels and its bound. If To exists it is errs.Conflict. What containers write
// meanwhile may be in it by half. told, which may be nil, gets the bytes of each
// file.
func (t Transfers) Clone(ctx context.Context, c wire.VolumeClone, told func(bytes int64)) (_ wire.VolumeCopied, err error) {
	v := t.Volumes
	var out wire.VolumeCopied
	r, err := v.get(c.From)
	if err != nil {
		return out, err
	}
	now := time.Now().UTC()
	labels := maps.Clone(r.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	delete(labels, Anonymous)
	if c.Snapshot {
		labels[SnapshotOf], labels[SnapshotAt] = c.From, now.Format(time.RFC3339)
		if c.To == "" {
			c.To = c.From + "-" + now.Format("20060102-150405")
		}
	}
	if c.To == "" {
		return out, errs.New(errs.Invalid, "clone %s: the copy needs a name", c.From)
	}
	if _, err := v.get(c.To); !errs.Is(err, errs.NotFound) {
		return out, errors.Join(err, errs.New(errs.Conflict, "clone %s: a volume named %s exists already", c.From, c.To))
	}
	made := wire.VolumeCreate{Name: c.To, Labels: labels}
	if size := r.Options["size"]; size != "" && r.local() {
		made.DriverOpts = map[string]string{"size": size}
	}
	if _, err := v.Create(ctx, made); err != nil {
		return out, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Remove(context.WithoutCancel(ctx), c.To, RemoveOptions{Force: true}))
		}
	}()
	err = t.with(ctx, c.From, func(from string, m Mounted) error {
		return t.with(ctx, c.To, func(to string, _ Mounted) error {
			src, err := openDir(from)
			if err != nil {
				return err
			}
			dst, err := openDir(to)
			if err != nil {
				unix.Close(src)
				return err
			}
			got, err := tree.CopyWith(ctx, src, dst, tree.Options{Told: told})
			if err != nil {
				return fmt.Errorf("clone %s: %w", c.From, err)
			}
			out = wire.VolumeCopied{Name: c.To, Files: got.Files, Bytes: got.Bytes, Shared: got.Shared}
			if r.Used || !m.Fresh {
				return v.MarkUsed(ctx, c.To)
			}
			return nil
		})
	})
	return out, err
}
