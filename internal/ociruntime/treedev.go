package ociruntime

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
	"gantry/internal/rootpath"
)

// devLinks are the links that the spec wants in /dev (config-linux.md, "Default
// Devices" and "/dev symbolic links").
var devLinks = []struct{ path, text string }{
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"},
	{"/dev/ptmx", "pts/ptmx"},
}

func (t *tree) devices() error {
	old := unix.Umask(0)
	defer unix.Umask(old)
	for i := range t.job.Devices {
		d := &t.job.Devices[i]
		if err := t.device(d); err != nil {
			return fmt.Errorf("make device %s: %w", d.Path, err)
		}
	}
	for _, l := range devLinks {
		if err := t.link(l.path, l.text); err != nil {
			return fmt.Errorf("make link %s: %w", l.path, err)
		}
	}
	return nil
}

// parent opens the directory of a path, made if missing.
func (t *tree) parent(p string) (dirfd int, base string, err error) {
	dirfd, base, err = t.root.Parent(p)
	if !errors.Is(err, os.ErrNotExist) {
		return dirfd, base, err
	}
	dir := p[:len(p)-len(base)-1]
	if dirfd, err = t.root.MkdirAll(dir, 0o755); err != nil {
		return -1, "", err
	}
	return dirfd, base, nil
}

func (t *tree) device(d *job.Device) error {
	dir, base, err := t.parent(d.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if t.s.userNS {
		return t.bindDevice(d)
	}
	number := unix.Mkdev(d.Major, d.Minor)
	err = unix.Mknodat(dir, base, d.Mode, int(number))
	switch err {
	case nil:
	case unix.EEXIST:
		var st unix.Stat_t
		if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != d.Mode&unix.S_IFMT || st.Rdev != number && d.Mode&unix.S_IFMT != unix.S_IFIFO {
			return errors.New("something else is there")
		}
		return nil
	case unix.EPERM:
		return t.bindDevice(d)
	default:
		return err
	}
	if d.UID|d.GID == 0 {
		return nil
	}
	return unix.Fchownat(dir, base, int(d.UID), int(d.GID), unix.AT_SYMLINK_NOFOLLOW)
}

// bindDevice takes the host's device of the same name where device nodes can't
// be made (in a user namespace), if it has the right number.
func (t *tree) bindDevice(d *job.Device) error {
	source, err := openTree(unix.AT_FDCWD, d.Path, unix.OPEN_TREE_CLONE|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("open the host's: %w", err)
	}
	defer unix.Close(source)
	if err := checkDevice(source, d.Mode&unix.S_IFMT, unix.Mkdev(d.Major, d.Minor)); err != nil {
		return fmt.Errorf("the host's: %w", err)
	}
	target, err := t.root.Target(d.Path, rootpath.TargetOptions{Perm: 0o600})
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return attach(source, target, 0)
}

func checkDevice(fd int, typ uint32, number uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != typ || st.Rdev != number {
		return fmt.Errorf("is not device %d:%d", unix.Major(number), unix.Minor(number))
	}
	return nil
}

// link makes a symbolic link if nothing is there.
func (t *tree) link(p, text string) error {
	dir, base, err := t.parent(p)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Symlinkat(text, dir, base); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// openPtmx opens the multiplexer of the devpts that was mounted for the
// container, by that mount's descriptor; for a joined container, of what is at
// /dev/pts, if that is a devpts.
func (t *tree) openPtmx() (int, error) {
	const how = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	if t.devpts >= 0 {
		return unix.Openat(t.devpts, "ptmx", how|unix.O_NOFOLLOW, 0)
	}
	dir, err := t.root.OpenFd("/dev/pts", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return -1, errors.New("/dev/pts is no devpts")
	}
	node, err := unix.Openat(dir, "ptmx", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(node)
	if err := checkDevice(node, unix.S_IFCHR, unix.Mkdev(5, 2)); err != nil {
		return -1, err
	}
	// Entries of a devpts can't be replaced, so the name still means the node.
	return unix.Openat(dir, "ptmx", how|unix.O_NOFOLLOW, 0)
}

// mountConsole shows the terminal as /dev/console.
func (t *tree) mountConsole(slave int) error {
	source, err := openTree(slave, "", unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	target, err := t.root.Target("/dev/console", rootpath.TargetOptions{Perm: 0o666, NoFollow: true})
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return attach(source, target, 0)
}
