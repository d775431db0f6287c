package ocicli

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sendConsole passes a terminal's master to whoever listens on the unix socket
// at path, as runc does: the descriptor with its name as data.
func sendConsole(path string, master *os.File) error {
	if path == "" || master == nil {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("connect to the console socket %s: %w", path, err)
	}
	// Whoever reads it will set what it needs; a file that does not block
	// surprises most.
	if err := unix.SetNonblock(int(master.Fd()), false); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err := unix.Sendmsg(fd, []byte("/dev/ptmx"), unix.UnixRights(int(master.Fd())), nil, 0); err != nil {
		return fmt.Errorf("send the terminal to %s: %w", path, err)
	}
	return master.Close()
}

// A tty connects our own terminal, or streams, with a container's.
type tty struct {
	master *os.File
	saved  *unix.Termios
	done   chan struct{}
}

func serveTTY(master *os.File) (*tty, error) {
	t := &tty{master: master, done: make(chan struct{})}
	if saved, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		t.saved = saved
		raw := *saved
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Oflag &^= unix.OPOST
		raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		if err := unix.IoctlSetTermios(0, unix.TCSETS, &raw); err != nil {
			return nil, os.NewSyscallError("ioctl", err)
		}
	}
	t.resize()
	go io.Copy(master, os.Stdin) // ends with this process
	go func() {
		defer close(t.done)
		io.Copy(os.Stdout, master) // ends with EIO
	}()
	return t, nil
}

// resize makes the container's terminal as large as ours.
func (t *tty) resize() {
	if t == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, size)
	}
}

// close shows the rest of the output and restores our terminal.
func (t *tty) close() {
	<-t.done
	if t.saved != nil {
		unix.IoctlSetTermios(0, unix.TCSETS, t.saved)
	}
	t.master.Close()
}
