package layer

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"
)

// drop removes what the layers below have put at base; what this layer has
// brought stays.
func (a *applier) drop(parent int, dir, base string) error {
	full := path.Join(dir, base)
	if !a.mine[full] {
		return a.remove(parent, base)
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return a.uncover(fd, full)
}

// uncover removes what the layers below have put into the open directory dir.
func (a *applier) uncover(fd int, dir string) error {
	names, err := list(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := a.drop(fd, dir, name); err != nil {
			return err
		}
	}
	return nil
}

// list returns the names in an open directory.
func list(fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return nil, err
	}
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
