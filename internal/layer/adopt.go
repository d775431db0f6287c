package layer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Adopt completes a layer that was unpacked blindly into dir, now that the
// directories of the layers below are there, topmost first: those of its
// directories that were only implied become like theirs.
func Adopt(dir string, implied []string, parents []string) error {
	if len(implied) == 0 || len(parents) == 0 {
		return nil
	}
	root, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	var below []int
	defer func() {
		for _, fd := range below {
			unix.Close(fd)
		}
	}()
	for _, p := range parents {
		fd, err := openDir(p)
		if err != nil {
			return err
		}
		below = append(below, fd)
	}
	for _, name := range implied {
		if err := adopt(root, name, below); err != nil {
			return fmt.Errorf("directory %q: %w", clip(name), err)
		}
	}
	return nil
}

// openBelow opens a directory below another one, through no link.
func openBelow(root int, name string) (int, error) {
	for {
		fd, err := unix.Openat2(root, name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

func adopt(root int, name string, below []int) error {
	fd, err := openBelow(root, name)
	if err != nil {
		return nil // a later entry replaced it
	}
	defer unix.Close(fd)
	for _, b := range below {
		like, err := openBelow(b, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil // not a directory there: this one replaces it
		}
		err = resemble(fd, like)
		unix.Close(like)
		return err
	}
	return nil
}

// resemble gives a directory owner, mode and times of another.
func resemble(fd, like int) error {
	var st unix.Stat_t
	if err := unix.Fstat(like, &st); err != nil {
		return err
	}
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
}
