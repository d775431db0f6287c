// Package term handles the user's terminal: is it one, how big, raw mode and
// back, the detach keys, and the streams of a container. Package cli calls it.
// It changes the terminal's modes and nothing else, and must not know the API.
package term

import (
	"os"

	"golang.org/x/sys/unix"
)

// IsTerminal reports whether f is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Size is that of a terminal in character cells.
type Size struct{ Height, Width uint }

// SizeOf returns the size of terminal f; zero if it has none.
func SizeOf(f *os.File) Size {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return Size{}
	}
	return Size{Height: uint(ws.Row), Width: uint(ws.Col)}
}

// State is a terminal's modes, to be restored.
type State struct {
	fd   int
	mode unix.Termios
}

// RawInput puts terminal f into raw mode: no echo, no line editing, no signals
// from keys, no output processing (termios(3), cfmakeraw): the terminal inside
// the container does all of that.
func RawInput(f *os.File) (*State, error) {
	return change(f, func(t *unix.Termios) {
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cflag &^= unix.CSIZE | unix.PARENB
		t.Cflag |= unix.CS8
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	})
}

// NoEcho stops terminal f from showing what is typed (passwords).
func NoEcho(f *os.File) (*State, error) {
	return change(f, func(t *unix.Termios) { t.Lflag &^= unix.ECHO })
}

func change(f *os.File, set func(*unix.Termios)) (*State, error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	mode := *old
	set(&mode)
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &mode); err != nil {
		return nil, err
	}
	return &State{fd: fd, mode: *old}, nil
}

// Restore sets the modes back. It may be called more than once, and on nil.
func (s *State) Restore() error {
	if s == nil {
		return nil
	}
	return unix.IoctlSetTermios(s.fd, unix.TCSETS, &s.mode)
}
