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

func (c *child) devices() error {
	old := unix.Umask(0)
	defer unix.Umask(old)
	for i := range c.job.Devices {
		d := &c.job.Devices[i]
		if err := c.device(d); err != nil {
			return fmt.Errorf("make device %s: %w", d.Path, err)
		}
	}
	for _, l := range devLinks {
		if err := c.link(l.path, l.text); err != nil {
			return fmt.Errorf("make link %s: %w", l.path, err)
		}
	}
	return nil
}

// parent opens the directory of a path, made if missing.
func (c *child) parent(p string) (dirfd int, base string, err error) {
	dirfd, base, err = c.root.Parent(p)
	if !errors.Is(err, os.ErrNotExist) {
		return dirfd, base, err
	}
	dir := p[:len(p)-len(base)-1]
	if dirfd, err = c.root.MkdirAll(dir, 0o755); err != nil {
		return -1, "", err
	}
	return dirfd, base, nil
}

func (c *child) device(d *job.Device) error {
	dir, base, err := c.parent(d.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if c.s.userNS {
		return c.bindDevice(d)
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
		return c.bindDevice(d)
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
func (c *child) bindDevice(d *job.Device) error {
	source, err := openTree(unix.AT_FDCWD, d.Path, unix.OPEN_TREE_CLONE|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("open the host's: %w", err)
	}
	defer unix.Close(source)
	if err := checkDevice(source, d.Mode&unix.S_IFMT, unix.Mkdev(d.Major, d.Minor)); err != nil {
		return fmt.Errorf("the host's: %w", err)
	}
	target, err := c.root.Target(d.Path, rootpath.TargetOptions{Perm: 0o600})
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
func (c *child) link(p, text string) error {
	dir, base, err := c.parent(p)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Symlinkat(text, dir, base); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// Major numbers of pseudo-terminal slaves (Documentation/admin-guide/devices.txt).
const (
	ptsMajorFirst = 136
	ptsMajorLast  = 143
)

// openConsole opens a terminal in the container's own devpts and sends its
// master to the parent. The slave is opened through the master (TIOCGPTPEER),
// never by a name (security.md row S5, CVE-2025-52565).
func (c *child) openConsole() error {
	master, err := c.openPtmx()
	if err != nil {
		return fmt.Errorf("open a terminal: %w", err)
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock the terminal: %w", err)
	}
	slave, err := ptPeer(master)
	if err != nil {
		return fmt.Errorf("open the terminal's slave: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(slave, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR ||
		unix.Major(st.Rdev) < ptsMajorFirst || unix.Major(st.Rdev) > ptsMajorLast {
		return errors.New("the terminal's slave is no pseudo-terminal")
	}
	if c.proc.ConsoleHeight != 0 || c.proc.ConsoleWidth != 0 {
		ws := unix.Winsize{Row: c.proc.ConsoleHeight, Col: c.proc.ConsoleWidth}
		if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &ws); err != nil {
			return fmt.Errorf("set the terminal's size: %w", err)
		}
	}
	c.console = slave
	return send(c.sock, frameConsole, nil, master)
}

// openPtmx opens the multiplexer of the devpts that was mounted for the
// container, by that mount's descriptor; for a joined container, of what is at
// /dev/pts, if that is a devpts.
func (c *child) openPtmx() (int, error) {
	const how = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	if c.devpts >= 0 {
		return unix.Openat(c.devpts, "ptmx", how|unix.O_NOFOLLOW, 0)
	}
	dir, err := c.root.OpenFd("/dev/pts", unix.O_PATH|unix.O_DIRECTORY, 0)
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
func (c *child) mountConsole() error {
	source, err := openTree(c.console, "", unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	target, err := c.root.Target("/dev/console", rootpath.TargetOptions{Perm: 0o666, NoFollow: true})
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return attach(source, target, 0)
}

// ptPeer opens the slave of a master (ioctl_tty(2), TIOCGPTPEER).
func ptPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
