// Package rootfs reads a container's root file system before the container
// runs: its writable directory over the image's layers, as overlayfs will show
// them. It finds files for the user's lookup, copies what the image has into
// fresh volumes, and makes the writable directory.
//
// Package launch calls it. It writes the container's upper directory and the
// volumes it is told to fill. Everything inside a root, and inside a volume, is
// reached by descriptor (package rootpath): both are written by strangers.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/overlay"
	"gantry/internal/rootpath"
	"gantry/internal/tree"
)

// MakeUpper makes a container's writable directory, with the owner and the
// permissions of the image's own root, since it is what the container's root
// shows. One that exists is left as it is.
func MakeUpper(upper, top string) error {
	var st unix.Stat_t
	if err := unix.Stat(top, &st); err != nil {
		return fmt.Errorf("layer %s: %w", top, err)
	}
	err := unix.Mkdir(upper, 0o700)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", upper, err)
	}
	if err := unix.Chown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("make %s: %w", upper, err)
	}
	// Last, since chown takes set-user-ID bits away.
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return fmt.Errorf("make %s: %w", upper, err)
	}
	return nil
}

// CloneTree makes a container's root out of the image's whole tree, and tells
// whether it was not there yet. What a crash has left of an earlier try goes.
func CloneTree(ctx context.Context, upper, image string) (fresh bool, err error) {
	if _, err := os.Lstat(upper); err == nil || !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	old, err := filepath.Glob(filepath.Join(filepath.Dir(upper), "."+filepath.Base(upper)+"-*"))
	if err != nil {
		return false, err
	}
	for _, dir := range old {
		if err := tree.Remove(dir); err != nil {
			return false, err
		}
	}
	return true, tree.Clone(ctx, image, upper)
}

// Mark makes the file by which programs tell that they are in a container.
func Mark(upper string) error {
	fd, err := unix.Open(filepath.Join(upper, ".dockerenv"), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, 0o755)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mark the root file system: %w", err)
	}
	return errors.Join(unix.Fchmod(fd, 0o755), unix.Close(fd))
}

// View is a read-only view of a root file system.
type View struct {
	root *rootpath.Root
	fd   int // of the detached mount; -1 if there is none
	// Fresh says that the writable directory is empty.
	Fresh bool
}

// Open returns the view of upper over the lower directories, topmost first. It
// is a detached mount, which no namespace shows and which ends with Close, or a
// plain directory if only one has anything in it.
func Open(upper string, lower []string) (*View, error) {
	dirs := slices.Clone(lower)
	empty, err := isEmpty(upper)
	if err != nil {
		return nil, err
	}
	if !empty || len(dirs) == 0 {
		dirs = append([]string{upper}, dirs...)
	}
	if len(dirs) == 1 {
		root, err := rootpath.Open(dirs[0])
		if err != nil {
			return nil, err
		}
		return &View{root, -1, empty}, nil
	}
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	fd, err := overlay.Mount(overlay.Layers{Lower: dirs, Options: Options()}, attrs)
	if err != nil {
		return nil, fmt.Errorf("view of the root file system: %w", err)
	}
	return &View{rootpath.At(fd), fd, empty}, nil
}

// Close ends the view.
func (v *View) Close() error {
	err := v.root.Close()
	if v.fd >= 0 {
		err = errors.Join(err, unix.Close(v.fd))
		v.fd = -1
	}
	return err
}

// ReadFile returns the content of a regular file of at most limit bytes.
func (v *View) ReadFile(name string, limit int64) ([]byte, error) {
	return v.root.ReadFile(name, limit)
}

// IsFile reports whether name is there, links in it followed, and no directory.
func (v *View) IsFile(name string) bool {
	st, err := v.root.Stat(name)
	return err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0, nil
}

// OpenLive returns the root of a running container, at /proc/<pid>/root.
func OpenLive(path string) (*rootpath.Root, error) { return rootpath.Open(path) }

// Sub opens what name leads to below dir, for mounting it elsewhere. Links are
// followed inside dir only.
func Sub(dir, name string) (*os.File, error) {
	root, err := rootpath.Open(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(name, unix.O_PATH, 0)
}

// Name is a path by which other processes of this machine find an open file, as
// long as it is open here.
func Name(f *os.File) string {
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(f.Fd()))
}

// Resolve returns the path without links of the directory that name leads to,
// and when it was changed; false if there is none.
func (v *View) Resolve(name string) (string, unix.Timespec, bool) {
	var st unix.Stat_t
	fd, err := v.root.OpenFd(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", st.Mtim, false
	}
	defer unix.Close(fd)
	top, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(v.root.Fd()))
	if err != nil {
		return "", st.Mtim, false
	}
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	rel, ok := strings.CutPrefix(at, strings.TrimSuffix(top, "/"))
	if err != nil || !ok || unix.Fstat(fd, &st) != nil {
		return "", st.Mtim, false
	}
	return path.Clean("/" + rel), st.Mtim, true
}
