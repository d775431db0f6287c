// Package durable writes small files so that a power cut at any moment leaves
// either the old content or the new, never a mixture, and locks directories so
// that one process owns them. It names the boot in which something was written.
//
// It owns no directory itself. It must not be given a path inside a container's
// root file system: those belong to package rootpath.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// WriteFile replaces the content of path with data and permissions perm. When
// it returns nil the new content is on disk under its name: file and directory
// have been synced (fsync(2)).
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return write(path, data, perm, true)
}

// Replace is WriteFile without the syncs: atomic for readers and for a crash of
// the process, but a power cut may bring the old content back. For facts that
// can be derived again.
func Replace(path string, data []byte, perm fs.FileMode) error {
	return write(path, data, perm, false)
}

func write(path string, data []byte, perm fs.FileMode, sync bool) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if _, err = f.Write(data); err != nil {
		return err
	}
	if sync {
		if err = f.Sync(); err != nil {
			return err
		}
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	if sync {
		return SyncDir(dir)
	}
	return nil
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// A Lock is a directory held by this process.
type Lock struct{ f *os.File }

// LockDir creates dir with mode 0700 if it does not exist and takes an
// exclusive lock on it (flock(2)). It does not wait: a directory that another
// process holds is a Conflict that names it. The kernel drops the lock when the
// process ends, however it ends.
func LockDir(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errs.New(errs.Conflict, "lock %s: another process uses this directory", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return &Lock{f}, nil
}

// InheritLock makes a Lock of the descriptor of one that another program held
// before it was replaced by this one (File).
func InheritLock(f *os.File) *Lock { return &Lock{f} }

// File returns the file that holds the lock.
func (l *Lock) File() *os.File { return l.f }

// Close gives the directory up.
func (l *Lock) Close() error { return l.f.Close() }
