package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Images is the way of the driver erofs: each layer is a file, home/layer.erofs,
// with a read-only file system in it, mounted on home/fs when it is needed. What
// is in it can't be changed by anybody, root included, and no layer takes more
// than one inode of the host.
type Images struct {
	program string // mkfs.erofs
	mu      sync.Mutex
	shown   map[string]bool
}

// NewImages is errs.Unsupported where the kernel or the program that makes such
// file systems is missing.
func NewImages() (*Images, error) {
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return nil, err
	}
	if !strings.Contains(string(known), "\terofs\n") {
		return nil, errs.New(errs.Unsupported, "storage driver erofs: the kernel does not have the file system erofs (modprobe erofs)")
	}
	program, err := exec.LookPath("mkfs.erofs")
	if err != nil {
		return nil, errs.New(errs.Unsupported, "storage driver erofs: there is no program mkfs.erofs (package erofs-utils)")
	}
	return &Images{program: program, shown: map[string]bool{}}, nil
}

const imageName = "layer.erofs"

// Make makes an empty directory: the image takes a layer's changes alone.
func (*Images) Make(_ context.Context, home, _ string) error {
	fs := filepath.Join(home, "fs")
	return makeTop(os.Mkdir(fs, 0o755), fs)
}

// Seal makes the image.
func (i *Images) Seal(ctx context.Context, home, _ string) (u snapshots.Usage, err error) {
	to := filepath.Join(home, imageName)
	if _, err := os.Stat(to); err == nil { // sealed before, and then not recorded
		return usedBy(to)
	}
	// Inodes of the larger form have times of their own.
	cmd := exec.CommandContext(ctx, i.program, "--quiet", "-Eforce-inode-extended", to+".new", filepath.Join(home, "fs"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return u, fmt.Errorf("mkfs.erofs: %w: %s", err, strings.TrimSpace(out.String()))
	}
	if err := syncFS(home); err != nil {
		return u, err
	}
	if err := os.Rename(to+".new", to); err != nil {
		return u, err
	}
	if err := syncFS(home); err != nil {
		return u, err
	}
	return usedBy(to)
}

func usedBy(file string) (snapshots.Usage, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return snapshots.Usage{}, &os.PathError{Op: "stat", Path: file, Err: err}
	}
	return snapshots.Usage{Size: st.Blocks * 512, Inodes: 1}, nil
}

// Show mounts the image, and removes what it was made of.
func (i *Images) Show(home string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.shown[home] {
		return nil
	}
	fs := filepath.Join(home, "fs")
	if !mounted(fs) {
		entries, err := os.ReadDir(fs)
		if errors.Is(err, os.ErrNotExist) { // it was damaged, see below
			err = os.Mkdir(fs, 0o755)
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(fs, e.Name())); err != nil {
				return err
			}
		}
		if err := mountImage(filepath.Join(home, imageName), fs); damaged(err) {
			// So that no container starts on an empty directory.
			return errs.With(errs.Corrupt, errors.Join(err, os.Remove(fs)))
		} else if err != nil {
			return err
		}
	}
	i.shown[home] = true
	return nil
}

// damaged tells whether it is the image that can't be mounted: there is none, it is
// no erofs, or one that makes no sense.
func damaged(err error) bool {
	for _, e := range []unix.Errno{unix.ENOENT, unix.EINVAL, unix.EUCLEAN, unix.EOPNOTSUPP, unix.EBADMSG, unix.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Replace makes an image of the tree that Make has begun at fresh, and puts it in the
// place of the layer at home, whatever has become of that. Containers that run keep
// the old one.
func (i *Images) Replace(ctx context.Context, fresh, home string) error {
	if _, err := i.Seal(ctx, fresh, ""); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	to, fs := filepath.Join(home, imageName), filepath.Join(home, "fs")
	if err := os.Rename(filepath.Join(fresh, imageName), to); err != nil {
		return err
	}
	if err := syncFS(home); err != nil {
		return err
	}
	if err := os.Mkdir(fs, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// On top of the old one: whoever looks meanwhile finds one of both.
	if err := mountImage(to, fs); err != nil {
		return err
	}
	i.shown[home] = true
	return nil
}

// mounted tells whether an erofs is mounted on a directory.
func mounted(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.EROFS_SUPER_MAGIC_V1
}

const mountFlags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID

// mountImage mounts a file, since Linux 6.12 as it is, else through a loop device
// that goes with the mount.
func mountImage(file, at string) error {
	err := unix.Mount(file, at, "erofs", mountFlags, "")
	if errors.Is(err, unix.ENOTBLK) {
		var device *os.File
		if device, err = loop(file); err == nil {
			err = unix.Mount(device.Name(), at, "erofs", mountFlags, "")
			device.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", file, err)
	}
	return nil
}

// loop attaches a file to a free loop device, which ends with its last user
// (loop(4)).
func loop(file string) (*os.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		c := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &c)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, fmt.Errorf("attach %s to a loop device: %w", file, err)
		}
	}
	return nil, errs.New(errs.Unavailable, "no loop device for %s", file)
}

// Hide unmounts all images below homes. Overlays that have them go on.
func (i *Images) Hide(homes string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.shown)
	entries, err := os.ReadDir(homes)
	if err != nil {
		return err
	}
	var all []error
	for _, e := range entries {
		all = append(all, unmount(filepath.Join(homes, e.Name(), "fs")))
	}
	return errors.Join(all...)
}

// unmount unmounts an image, and those that it was put on top of.
func unmount(dir string) error {
	for mounted(dir) {
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
	}
	return nil
}

// Drop unmounts and removes an image.
func (i *Images) Drop(home string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.shown, home)
	if err := unmount(filepath.Join(home, "fs")); err != nil {
		return err
	}
	return os.RemoveAll(home)
}

// ShowAll mounts all images below root, which other than its own driver may want
// for the containers that were made with it. There need not be any. What is damaged
// is left out: a container that needs it can't start, and it can be made anew.
func (i *Images) ShowAll(root string) error {
	files, err := filepath.Glob(filepath.Join(root, "snapshots", "*", imageName))
	for _, f := range files {
		if strings.HasPrefix(filepath.Base(filepath.Dir(f)), "new-") {
			continue
		}
		if serr := i.Show(filepath.Dir(f)); !errs.Is(serr, errs.Corrupt) {
			err = errors.Join(err, serr)
		}
	}
	return err
}
