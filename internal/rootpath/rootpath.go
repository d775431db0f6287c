// Package rootpath opens paths inside a directory tree that somebody hostile
// may be changing at the same moment: a container's root file system, an image
// being unpacked, a build context.
//
// A Root is a directory held by a descriptor. Every path given to it is taken
// from there as if that directory were "/": absolute symbolic links and ".."
// never lead out, and the magic links of procfs are refused. The kernel does
// this in one step (openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS,
// Linux 5.6); where it can't, walk.go goes component by component on
// descriptors. What a caller gets is a descriptor, never a string to be resolved
// again.
//
// The runtime, image unpacking, the archive API and the builder call it. It
// writes only what the create functions are asked for. It must not know what
// the trees are for. security.md rows S3, S7, S9, S12.
package rootpath

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrTooBig is the error of ReadFile for a file above its limit.
var ErrTooBig = errors.New("file is too big")

// ErrNotRegular is the error of ReadFile for anything but a regular file.
var ErrNotRegular = errors.New("not a regular file")

// A Root is a directory that paths are resolved in. Its methods may be called
// at once from several goroutines.
type Root struct {
	fd     int
	walk   bool // don't use openat2
	shared bool // fd is the caller's
}

// Open returns the root at dir, a path of the host.
func Open(dir string) (*Root, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Root{fd: fd}, nil
}

// At returns the root at an open directory (O_PATH is enough). The descriptor
// stays the caller's and must outlive the root.
func At(fd int) *Root { return &Root{fd: fd, shared: true} }

// Fd returns the root directory's descriptor; it is valid until Close.
func (r *Root) Fd() int { return r.fd }

// Close releases the root's descriptor, if it is the root's own.
func (r *Root) Close() error {
	if r.shared {
		return nil
	}
	return unix.Close(r.fd)
}

// OpenFd opens name as open(2) would with flags, inside the root. O_CREAT works
// as open(2)'s does and does not create directories. O_CLOEXEC is added. Errors
// are *os.PathError with a unix.Errno.
func (r *Root) OpenFd(name string, flags int, perm uint32) (int, error) {
	fd, err := r.resolve(name, flags|unix.O_CLOEXEC, perm)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Open is OpenFd for a file to read or write.
func (r *Root) Open(name string, flags int, perm uint32) (*os.File, error) {
	fd, err := r.OpenFd(name, flags, perm)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Stat describes what name leads to, links followed.
func (r *Root) Stat(name string) (unix.Stat_t, error) { return r.stat(name, unix.O_PATH) }

// Lstat describes name itself: its last component is not followed.
func (r *Root) Lstat(name string) (unix.Stat_t, error) {
	return r.stat(name, unix.O_PATH|unix.O_NOFOLLOW)
}

func (r *Root) stat(name string, flags int) (st unix.Stat_t, err error) {
	fd, err := r.OpenFd(name, flags, 0)
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return st, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return st, nil
}

// Parent opens the directory that name is in and returns it with name's last
// component, for the *at system calls: mknodat, renameat, unlinkat, linkat. The
// last component is never "", "." or ".."; a name that has none is EINVAL. The
// caller closes the descriptor.
func (r *Root) Parent(name string) (dirfd int, base string, err error) {
	dir, base := split(name)
	if base == "" {
		return -1, "", &os.PathError{Op: "open parent of", Path: name, Err: unix.EINVAL}
	}
	dirfd, err = r.OpenFd(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	return dirfd, base, err
}

// split cuts the last component off without cleaning the rest: "a/../b" is not
// "b" when a is a link.
func split(name string) (dir, base string) {
	name = strings.TrimRight(name, "/")
	dir, base = path.Split(name)
	if base == "." || base == ".." {
		return name, ""
	}
	if dir == "" {
		dir = "."
	}
	return dir, base
}

// MkdirAll makes the directory name and every missing one above it, with
// permissions perm (the process's umask applies), and opens it with O_PATH. A
// dangling link on the way is followed and its target made, inside the root. The
// caller closes the descriptor.
func (r *Root) MkdirAll(name string, perm uint32) (int, error) {
	fd, err := r.resolve(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		w := walker{root: r.fd, mkdir: true, perm: perm}
		fd, err = w.open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return fd, nil
}

// TargetOptions says what Target makes if there is nothing yet.
type TargetOptions struct {
	Dir      bool   // a directory; else an empty file
	Perm     uint32 // of what is made; directories above it get 0755
	NoFollow bool   // a link as the last component is the target itself
}

// Target opens with O_PATH what name leads to, for mounting over it, and makes
// it with the directories above it if it is missing. What exists is not changed
// and may be of the other kind: ENOTDIR or EISDIR then. The caller closes the
// descriptor.
func (r *Root) Target(name string, o TargetOptions) (int, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if o.NoFollow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := r.resolve(name, flags, 0)
	if err == unix.ENOENT {
		w := walker{root: r.fd, mkdir: true, perm: 0o755, leafPerm: o.Perm, makeLeaf: !o.Dir}
		fd, err = w.open(name, flags, 0)
	}
	if err == nil {
		err = checkKind(fd, o)
	}
	if err != nil {
		return -1, &os.PathError{Op: "make mount point", Path: name, Err: err}
	}
	return fd, nil
}

// checkKind closes fd if it is not what o wants.
func checkKind(fd int, o TargetOptions) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case err != nil:
	case o.Dir && !isDir:
		err = unix.ENOTDIR
	case !o.Dir && isDir:
		err = unix.EISDIR
	}
	if err != nil {
		unix.Close(fd)
	}
	return err
}

// ReadFile returns the content of the regular file that name leads to. A file
// above limit bytes is ErrTooBig; a device, FIFO or directory is ErrNotRegular
// and is not opened for reading, since opening one can block or act.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	before, err := r.Stat(name)
	if err != nil {
		return nil, err
	}
	fail := func(err error) ([]byte, error) { return nil, &os.PathError{Op: "read", Path: name, Err: err} }
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return fail(ErrNotRegular)
	}
	fd, err := r.OpenFd(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fail(ErrNotRegular)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return fail(ErrTooBig)
	}
	return data, nil
}

// maxRaces is how often a lookup that lost a race with a rename is repeated
// before the slower walk, which can't lose one, is used.
const maxRaces = 32

// resolve opens name with the kernel's help, or by walking.
func (r *Root) resolve(name string, flags int, perm uint32) (int, error) {
	if r.walk {
		w := walker{root: r.fd}
		return w.open(name, flags, perm)
	}
	how := unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		how.Mode = uint64(perm)
	}
	if name == "" {
		return -1, unix.ENOENT
	}
	for range maxRaces {
		fd, err := unix.Openat2(r.fd, name, &how)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.EAGAIN:
			continue
		case unix.ENOSYS, unix.EPERM:
			// EPERM: an old seccomp filter around this process. A real
			// EPERM comes back from the walk as well.
			w := walker{root: r.fd}
			return w.open(name, flags, perm)
		}
		return -1, err
	}
	w := walker{root: r.fd}
	return w.open(name, flags, perm)
}

// retry repeats a system call that a signal interrupted.
func retry(f func() (int, error)) (int, error) {
	for {
		fd, err := f()
		if err != unix.EINTR {
			return fd, err
		}
	}
}
