package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A Difference is a path that two trees have differently.
type Difference struct {
	Path     string // absolute in the trees
	Kind     Kind
	Old, New int64 // sizes in bytes of a regular file; 0 for none
}

// Precision is what Compare calls a difference.
type Precision uint8

// The precisions.
const (
	// Seen is what a program sees: kind, owner, mode and content, not the time.
	Seen Precision = iota
	// Exactly is all of it, also times, and overlayfs's own marks as files.
	Exactly
	// Packed is what is in the tar of a layer: times in seconds, and not the
	// directories that are only there for what is in them.
	Packed
)

// Compare lists how the tree at path now differs from the one at path before, by
// paths in order. Both are read only by descriptors.
func Compare(ctx context.Context, before, now string, p Precision) ([]Difference, error) {
	top, err := unix.Open(before, dirFlags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: before, Err: err}
	}
	defer unix.Close(top)
	var list []Difference
	u := Upper{Dir: now, Lower: []string{before}, Whole: true}
	err = u.walk(ctx, func(d *diff) error {
		c := Difference{Path: d.path, Kind: d.kind}
		if d.st.Mode&unix.S_IFMT == unix.S_IFREG {
			c.New = d.st.Size
		}
		if d.kind == Added {
			if p != Packed || d.st.Mode&unix.S_IFMT != unix.S_IFDIR {
				list = append(list, c)
			}
			return nil
		}
		old, err := openOld(top, d.path)
		if err != nil {
			return err
		}
		defer old.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(old.Fd()), &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			c.Old = st.Size
		}
		if d.kind == Modified && p != Exactly {
			equal, err := sameSeen(old, &st, d)
			if err != nil || equal && (p == Seen || st.Mtim.Sec == d.st.Mtim.Sec) {
				return err
			}
		}
		list = append(list, c)
		return nil
	}, walkOptions{unhidden: true, exact: p != Seen})
	return list, err
}

func openOld(top int, path string) (*os.File, error) {
	fd, err := unix.Openat2(top, "."+path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// sameSeen tells whether two files differ in their times alone.
func sameSeen(old *os.File, st *unix.Stat_t, d *diff) (bool, error) {
	if st.Mode != d.st.Mode || st.Uid != d.st.Uid || st.Gid != d.st.Gid || st.Rdev != d.st.Rdev {
		return false, nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		a, err := linkText(int(old.Fd()))
		if err != nil {
			return false, err
		}
		b, err := linkText(d.fd)
		return a == b, err
	case unix.S_IFREG:
		return sameContent(int(old.Fd()), d.fd, st.Size == d.st.Size)
	}
	return true, nil
}

func sameContent(a, b int, sized bool) (bool, error) { //nolint:revive // sized is a fact
	if !sized {
		return false, nil
	}
	x, err := os.Open(selfFd(a))
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := os.Open(selfFd(b))
	if err != nil {
		return false, err
	}
	defer y.Close()
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(x, p)
		m, err2 := io.ReadFull(y, q)
		if n != m || !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		if err != nil || err2 != nil {
			end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			if !end {
				return false, err
			}
			return true, nil
		}
	}
}
