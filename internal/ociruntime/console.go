package ociruntime

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Major numbers of pseudo-terminal slaves (Documentation/admin-guide/devices.txt).
const (
	ptsMajorFirst = 136
	ptsMajorLast  = 143
)

// openConsole opens a terminal in the container's own devpts and sends its
// master to the parent. The slave is opened through the master (TIOCGPTPEER),
// never by a name (security.md row S5, CVE-2025-52565).
func (c *child) openConsole() error {
	master, err := c.tree.openPtmx()
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

// ptPeer opens the slave of a master (ioctl_tty(2), TIOCGPTPEER).
func ptPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
