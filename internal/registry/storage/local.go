package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gantry/internal/durable"
	"gantry/internal/errs"
)

// Local keeps objects as files below a directory of this machine. The directory
// belongs to one process.
type Local struct{ root string }

// incoming is where objects are written before they get their names. No key can
// be in there.
const incoming = ".tmp-incoming"

// NewLocal returns the objects below root, which is made if it does not exist.
func NewLocal(root string) (*Local, error) {
	if err := os.MkdirAll(filepath.Join(root, incoming), 0o700); err != nil {
		return nil, err
	}
	return &Local{root: root}, nil
}

// Recover removes what a process that has ended left half written. Nobody else
// may be using the directory.
func (l *Local) Recover(context.Context) error {
	dir := filepath.Join(l.root, incoming)
	list, err := os.ReadDir(dir)
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

type localObject struct {
	*os.File
	info Info
}

func (o *localObject) Info() Info { return o.info }

// File returns the file behind an object, for the kernel to send from.
func (o *localObject) Descriptor() *os.File { return o.File }

func (l *Local) path(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	return filepath.Join(l.root, filepath.FromSlash(key)), nil
}

// Open opens an object.
func (l *Local) Open(_ context.Context, key string) (Object, error) {
	p, err := l.path(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "no object %s", key)
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errs.New(errs.NotFound, "no object %s", key)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &localObject{f, Info{key, fi.Size(), fi.ModTime()}}, nil
}

// Put makes or replaces an object.
func (l *Local) Put(ctx context.Context, key string, data []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(l.root, incoming), "put-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = l.Take(ctx, key, f.Name())
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(f.Name()))
	}
	return nil
}

// Take moves a file into the store. It must be on the same file system.
func (l *Local) Take(_ context.Context, key, file string) error {
	p, err := l.path(key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("sync %s: %w", key, err)
	}
	return l.place(p, func() error {
		if err := os.Rename(file, p); err != nil {
			return err
		}
		err := durable.SyncDir(filepath.Dir(p))
		if errors.Is(err, fs.ErrNotExist) { // it was there, and somebody has deleted it
			return nil
		}
		return err
	})
}

// place runs write when the directory of path exists. Delete removes empty
// directories, perhaps between the two: then it is tried again.
func (l *Local) place(path string, write func() error) error {
	for try := 0; ; try++ {
		if err := l.ensureDir(filepath.Dir(path)); err != nil {
			return err
		}
		err := write()
		if err == nil || !errors.Is(err, fs.ErrNotExist) || try == 100 {
			return err
		}
	}
}

// ensureDir makes a directory and what it lacks above it, durably.
func (l *Local) ensureDir(dir string) error {
	if _, err := os.Stat(dir); err == nil || dir == l.root {
		return err
	}
	parent := filepath.Dir(dir)
	if err := l.ensureDir(parent); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) { // the parent has just been removed
		return l.ensureDir(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := durable.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Delete removes an object, and directories that it leaves empty.
func (l *Local) Delete(_ context.Context, key string) error {
	p, err := l.path(key)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(p)
	if err := durable.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for ; dir != l.root && filepath.Dir(dir) != l.root; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break
		}
	}
	return nil
}

// List tells of the objects below prefix.
func (l *Local) List(ctx context.Context, prefix string, tell func(Info) error) error {
	dir, err := l.path(strings.TrimSuffix(prefix, "/"))
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() || strings.HasPrefix(d.Name(), ".tmp-") {
			return nil
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(l.root, path)
		if err != nil {
			return err
		}
		return tell(Info{filepath.ToSlash(rel), fi.Size(), fi.ModTime()})
	})
}
