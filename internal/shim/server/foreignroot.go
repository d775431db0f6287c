package server

import (
	"fmt"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
	"gantry/internal/overlay"
)

// withRoot calls fn, which starts another runtime's program, where that finds
// the container's root file system in the bundle. The overlay is mounted in a
// mount namespace that only one thread of the shim has: the runtime inherits it
// and makes the container's from it. So it is not in the host's table of mounts,
// and goes away with the container, whatever crashes.
//
// Mounts of the host reach that namespace; what the container mounts on a bind
// with shared propagation does not come back.
func (f *foreign) withRoot(fn func() error) error {
	if f.root == nil {
		return fn()
	}
	return onOwnThread(func() error {
		if err := f.mountRoot(); err != nil {
			return err
		}
		return fn()
	})
}

func (f *foreign) mountRoot() error { return mountRootAt(f.root, filepath.Join(f.bundle, "rootfs")) }

// mountRootAt gives the calling thread a mount namespace with an overlay in it.
func mountRootAt(o *job.Overlay, at string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace for the runtime: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("mount namespace for the runtime: %w", err)
	}
	fd, err := overlay.Mount(overlay.Layers{Lower: o.Lower, Upper: o.Upper, Work: o.Work, Options: o.Options, Bounded: o.Bounded}, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount root file system at %s: %w", at, err)
	}
	return nil
}

// onOwnThread calls fn on a thread that ends afterwards, so that what fn does to
// it is nobody else's. That is never the process's first thread: it can't end
// alone, and is what others see of the process in /proc.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer goruntime.UnlockOSThread()
			done <- onOwnThread(fn)
			return
		}
		done <- fn() // and end with the thread locked, which ends it
	}()
	return <-done
}
