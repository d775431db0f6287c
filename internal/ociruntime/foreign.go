package ociruntime

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// foreignSource splits "/proc/<pid>/root/<path>", the form in which a job names
// something in the mount namespace of another container.
func foreignSource(source string) (pid int, path string, ok bool) {
	rest, ok := strings.CutPrefix(source, "/proc/")
	if !ok {
		return 0, "", false
	}
	number, path, ok := strings.Cut(rest, "/root/")
	pid, err := strconv.Atoi(number)
	return pid, path, ok && err == nil && pid > 0
}

// openForeign is openTree for something in the mount namespace of a process:
// open_tree(2) clones what is in the caller's own only. The path is resolved
// below the process's root, without magic links.
func openForeign(procfs, pid int, path string, flags uint) (fd int, err error) {
	ns, err := unix.Openat(procfs, strconv.Itoa(pid)+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the mount namespace of process %d: %w", pid, err)
	}
	defer unix.Close(ns)
	root, err := unix.Openat(procfs, strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the root of process %d: %w", pid, err)
	}
	defer unix.Close(root)
	at, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	fd = -1
	err = onLostThread(func() error {
		// Threads share their root and working directory until told not to,
		// and setns(2) wants its own.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("join the mount namespace of process %d: %w", pid, err)
		}
		fd, err = openTree(at, "", flags|unix.AT_EMPTY_PATH)
		return err
	})
	return fd, err
}

// onLostThread runs f on a thread that ends with it. The process's first thread
// never is that one: its namespaces are what others take for the process's.
func onLostThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onLostThread(f)
			return
		}
		done <- f() // and end locked, which ends the thread
	}()
	return <-done
}
