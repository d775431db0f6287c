package rootfs

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"gantry/internal/overlay"
)

// ImageOptions say how an image is mounted.
type ImageOptions struct {
	At    string   // directory of the host, which is made
	Lower []string // its layers, topmost first
	Users *Users   // nil for the owners as they are
	// Upper and Work are where what is written goes; empty for read-only.
	Upper, Work string
}

// Users is an open user namespace, and what its root is on the host.
type Users struct{ FD, UID, GID int }

// MountImage mounts an image's files on a directory of the host.
func MountImage(o ImageOptions) error {
	if err := os.MkdirAll(o.At, 0o700); err != nil {
		return err
	}
	lower := o.Lower
	if len(lower) < 2 && o.Upper == "" { // overlayfs takes two or more if nothing is to be written
		lower = append([]string{}, lower...)
		for _, name := range []string{"empty", "empty2"}[len(lower):] {
			none := filepath.Join(filepath.Dir(filepath.Dir(o.At)), name)
			if err := os.MkdirAll(none, 0o755); err != nil {
				return err
			}
			lower = append(lower, none)
		}
	}
	l := overlay.Layers{Lower: lower, Upper: o.Upper, Work: o.Work, Options: Options()}
	attrs := uint64(unix.MOUNT_ATTR_RDONLY)
	if o.Upper != "" {
		attrs = 0
	}
	if o.Users != nil {
		l.Mapped = &overlay.Mapped{UserNS: o.Users.FD, UID: o.Users.UID, GID: o.Users.GID}
	}
	fd, err := overlay.Mount(l, attrs)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, o.At, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
