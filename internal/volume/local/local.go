// Package local keeps volumes as directories <dir>/<name>/_data, on which a
// volume of a device (tmpfs, bind, nfs, cifs …) is mounted while it is used.
//
// Package volume calls it with names that it has checked. It writes nothing but
// directories and mounts, and knows of neither records nor containers.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"gantry/internal/id"
	"gantry/internal/quota"
)

// removed begins the names of directories that are being removed; no volume's
// name begins with a dot.
const removed = ".removed-"

// Driver is the directory of all local volumes.
type Driver struct {
	dir   string
	quota *quota.Control
}

// Open makes the directory if need be and finishes interrupted removals.
func Open(dir string) (*Driver, error) {
	if err := os.MkdirAll(dir, 0o701); err != nil {
		return nil, err
	}
	old, err := filepath.Glob(filepath.Join(dir, removed+"*"))
	if err != nil {
		return nil, err
	}
	for _, d := range old {
		if err := os.RemoveAll(d); err != nil {
			return nil, err
		}
	}
	return &Driver{dir, quota.New(dir)}, nil
}

// Path returns the directory of a volume's content.
func (d *Driver) Path(name string) string { return filepath.Join(d.dir, name, "_data") }

// Create makes the directories, bounded if the options say so; those that exist
// are no error.
func (d *Driver) Create(name string, opts map[string]string) error {
	root := filepath.Join(d.dir, name)
	for _, p := range []struct {
		path string
		perm fs.FileMode
	}{{root, 0o701}, {d.Path(name), 0o755}} {
		err := os.Mkdir(p.path, p.perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = os.Chmod(p.path, p.perm) // whatever the umask
		}
		if err != nil {
			return fmt.Errorf("error while creating volume root path '%s': %w", root, err)
		}
	}
	return d.limit(name, opts)
}

// Remove removes a volume's directories. The name is free at once and for good:
// a crash in the middle leaves a directory that Open removes.
func (d *Driver) Remove(name string) error {
	if err := d.Unmount(name); err != nil {
		return err
	}
	// A bound that stays is no harm: without files its number is free.
	_ = d.quota.Release(d.Path(name))
	grave := filepath.Join(d.dir, removed+id.New())
	err := os.Rename(filepath.Join(d.dir, name), grave)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(grave)
}

// Empty reports whether a directory has nothing in it.
func Empty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// Size returns the bytes of the volume's files, each counted once however many
// names it has. Directories count nothing.
func (d *Driver) Size(ctx context.Context, name string) (int64, error) {
	var total int64
	seen := map[[2]uint64]bool{}
	err := filepath.WalkDir(d.Path(name), func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // removed by its container meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		if e.IsDir() {
			return ctx.Err()
		}
		fi, err := e.Info()
		if err != nil {
			return nil
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			k := [2]uint64{st.Dev, st.Ino}
			if seen[k] {
				return nil
			}
			seen[k] = true
		}
		total += fi.Size()
		return nil
	})
	return total, err
}

// Existing returns the names of all directories.
func (d *Driver) Existing() ([]string, error) {
	es, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range es {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Mount mounts the device that opts name on the volume's directory, once.
func (d *Driver) Mount(name string, opts map[string]string) error {
	if err := d.Create(name, opts); err != nil {
		return err
	}
	if opts["device"] == "" {
		return nil
	}
	at := d.Path(name)
	if mounted, err := isMount(at); err != nil || mounted {
		return err
	}
	m, err := parse(opts)
	if err != nil {
		return err
	}
	if err := resolve(&m); err != nil {
		return err
	}
	if err := unix.Mount(m.device, at, m.typ, m.flags, m.data); err != nil {
		return fmt.Errorf("failed to mount local volume: mount %s:%s, data: %s: %w", m.device, at, m.data, err)
	}
	const remount = unix.MS_BIND | unix.MS_REMOUNT
	if more := m.flags &^ (unix.MS_BIND | unix.MS_REC); m.flags&unix.MS_BIND != 0 && more != 0 {
		// A bind mount takes its flags by a second call only (mount(2)).
		if err := unix.Mount("", at, "", more|remount, ""); err != nil {
			return errors.Join(fmt.Errorf("mount %s: %w", at, err), d.Unmount(name))
		}
	}
	return nil
}

// Unmount takes the mounts off the volume's directory. None is no error.
func (d *Driver) Unmount(name string) error {
	for {
		err := unix.Unmount(d.Path(name), unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", d.Path(name), err)
		}
	}
}

// isMount reports whether something is mounted exactly at path (statx(2)).
func isMount(path string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st); err != nil {
		return false, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}
