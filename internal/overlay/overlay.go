// Package overlay mounts overlay file systems, detached: attached nowhere, in no
// mount table, gone with their descriptor. It is the one place that knows how
// each kernel wants to be told about layers.
//
// ociruntime calls it for a container's root, in the container's supervisor, and
// launch/rootfs for a view of it, in the daemon. It writes nothing but what
// overlayfs itself writes into a work directory. It must not know where layers
// come from.
package overlay

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Layers are the directories of an overlay (overlayfs,
// Documentation/filesystems/overlayfs.rst).
type Layers struct {
	Lower []string // read-only, topmost first, absolute; without any, Upper alone is what is mounted
	Upper string   // writable; empty for a read-only overlay
	Work  string   // scratch directory on Upper's file system
	// Options are further mount options, such as "index=off".
	Options []string
	// Bounded has the overlay write without CAP_SYS_RESOURCE, with which
	// project quotas of ext4 do not bind: it always writes as who mounts it.
	Bounded bool
	// Mapped, if set, shows the layers' owners through id maps (mapped.go).
	Mapped *Mapped
}

// Mount returns the descriptor of a new detached overlay with the given mount
// attributes (MOUNT_ATTR_*). It is of the caller's user namespace.
func Mount(l Layers, attrs uint64) (int, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return -1, err
	}
	if len(l.Lower) == 0 {
		return l.mountTree(attrs)
	}
	release := unix.ByteSliceToString(u.Release[:])
	if l.Mapped != nil {
		return mountMapped(l, attrs, atLeast(release, 6, 15))
	}
	if l.Bounded {
		return mountBounded(l, attrs, takesLayers(release))
	}
	// Asking the kernel instead would make an old one log a line for each try.
	if takesLayers(release) {
		return mountNew(l, attrs)
	}
	return mountOld(l, attrs, l.mountHere)
}

// mountTree mounts the upper directory itself, which is a whole tree: no overlay
// is needed, and none has to be possible on its file system.
func (l Layers) mountTree(attrs uint64) (int, error) {
	var fd int
	var err error
	if l.Mapped != nil {
		fd, err = l.Mapped.clone(l.Upper)
	} else {
		fd, err = unix.OpenTree(unix.AT_FDCWD, l.Upper, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	}
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", l.Upper, err)
	}
	// Private, as what fsmount(2) gives.
	a := unix.MountAttr{Attr_set: attrs, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mount %s: set its attributes: %w", l.Upper, err)
	}
	return fd, nil
}

// takesLayers says whether a kernel of that release takes layers one by one
// ("lowerdir+", Linux 6.8). Those that don't, and releases that can't be read,
// are served by mountOld, which works everywhere.
func takesLayers(release string) bool { return atLeast(release, 6, 8) }

// atLeast says whether a kernel's release is that version or a later one; of
// releases that can't be read it says no.
func atLeast(release string, wantMajor, wantMinor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	major, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	minor, err := strconv.Atoi(rest[:end])
	return err == nil && (major > wantMajor || major == wantMajor && minor >= wantMinor)
}

// mountNew tells the kernel everything with fsconfig(2).
func mountNew(l Layers, attrs uint64) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", "overlay"); err != nil {
		return -1, fsError(fs, "mount overlay", err)
	}
	for _, dir := range l.Lower {
		if err := setPath(fs, "lowerdir+", dir); err != nil {
			return -1, fsError(fs, "mount overlay: lower layer "+dir, err)
		}
	}
	if l.Upper != "" {
		if err := setPath(fs, "upperdir", l.Upper); err != nil {
			return -1, fsError(fs, "mount overlay: upper layer "+l.Upper, err)
		}
		if err := setPath(fs, "workdir", l.Work); err != nil {
			return -1, fsError(fs, "mount overlay: work directory "+l.Work, err)
		}
	}
	for _, opt := range l.Options {
		if err := setOption(fs, opt); err != nil {
			return -1, fsError(fs, "mount overlay: option "+opt, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, l.failure(), err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return -1, fsError(fs, "mount overlay", err)
	}
	return fd, nil
}

func (l Layers) failure() string {
	if l.Upper == "" {
		return fmt.Sprintf("mount overlay of %d layers", len(l.Lower))
	}
	return "mount overlay with upper layer " + l.Upper
}

// maxFsString is the longest value that fsconfig(2) takes.
const maxFsString = 255

// setPath gives a directory as a parameter. A path that is too long for
// fsconfig, or in which overlayfs would see escapes, goes through a descriptor's
// name.
func setPath(fs int, key, dir string) error {
	if len(dir) <= maxFsString && !strings.Contains(dir, `\`) {
		return unix.FsconfigSetString(fs, key, dir)
	}
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.FsconfigSetString(fs, key, fdName(fd))
}

func openDir(dir string) (int, error) {
	return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// fdName is a short path, with nothing to escape in it, for an open directory.
func fdName(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// setOption gives "key" or "key=value" to a file system.
func setOption(fs int, opt string) error {
	if key, value, ok := strings.Cut(opt, "="); ok {
		return unix.FsconfigSetString(fs, key, value)
	}
	return unix.FsconfigSetFlag(fs, opt)
}

// fsError adds what the file system said about an error: reading an fsopen(2)
// descriptor gives its messages, one a read, as "e text".
func fsError(fs int, what string, err error) error {
	var b [512]byte
	if n, rerr := unix.Read(fs, b[:]); rerr == nil && n > 2 {
		return fmt.Errorf("%s: %w (%s)", what, err, strings.TrimSpace(string(b[2:n])))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// mountOld uses mount(2), in a mount namespace of its own that lives as long as
// one thread, and takes the mount out of there by descriptor.
// here mounts it there.
func mountOld(l Layers, attrs uint64, here func() (int, error)) (int, error) {
	fd, err := Apart(here)
	if err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	if attrs == 0 {
		return fd, nil
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attrs}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mount overlay: set its attributes: %w", err)
	}
	return fd, nil
}

// Apart runs f on a thread that has a private copy of the mount namespace, and
// that ends with f. What f mounts there is seen nowhere else and gone when it
// returns, but for what it has detached into the descriptor that it returns.
func Apart(f func() (int, error)) (int, error) {
	return OnThread(func() (int, error) {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return -1, fmt.Errorf("make a mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			return -1, fmt.Errorf("make mounts slaves: %w", err)
		}
		return f()
	})
}

// OnThread runs f on a thread that ends with it, so that f may change what
// belongs to the thread, such as its mount namespace.
func OnThread(f func() (int, error)) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: so the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// A process's first thread never ends, and its namespaces are
			// what others take for the process's. Occupy it while another
			// thread is at work.
			fd, err := OnThread(f)
			runtime.UnlockOSThread()
			done <- result{fd, err}
			return
		}
		fd, err := f()
		done <- result{fd, err}
	}()
	r := <-done
	return r.fd, r.err
}

// mountHere mounts the overlay over its topmost layer in the thread's mount
// namespace and detaches it. Layers are named by descriptors, since mount(2)
// reads one page of options only; these are opened here, since the kernel takes
// directories of the current namespace alone.
func (l Layers) mountHere() (int, error) {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	name := func(what, dir string) (string, error) {
		fd, err := openDir(dir)
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", what, dir, err)
		}
		fds = append(fds, fd)
		return fdName(fd), nil
	}
	lower := make([]string, len(l.Lower))
	for i, dir := range l.Lower {
		var err error
		if lower[i], err = name("lower layer", dir); err != nil {
			return -1, err
		}
	}
	opts := append([]string{"lowerdir=" + strings.Join(lower, ":")}, l.Options...)
	if l.Upper != "" {
		upper, err := name("upper layer", l.Upper)
		if err != nil {
			return -1, err
		}
		work, err := name("work directory", l.Work)
		if err != nil {
			return -1, err
		}
		opts = append(opts, "upperdir="+upper, "workdir="+work)
	}
	data := strings.Join(opts, ",")
	if len(data) >= os.Getpagesize() {
		return -1, fmt.Errorf("%d layers are too many for this kernel", len(l.Lower))
	}
	at := l.Lower[0]
	if err := unix.Mount("overlay", at, "overlay", 0, data); err != nil {
		return -1, fmt.Errorf("%s: %w", l.failure(), err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("detach it: %w", err)
	}
	// Private, as what fsmount(2) gives.
	a := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make it private: %w", err)
	}
	return fd, nil
}
