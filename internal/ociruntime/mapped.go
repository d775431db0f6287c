package ociruntime

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
	"gantry/internal/overlay"
)

// This file is what the parent does for a process in a user namespace, since
// that one lacks the rights on the host.

// mountOverlay mounts the root file system.
func mountOverlay(l *launch, o *job.Overlay, pid int) (int, error) {
	layers := overlay.Layers{Lower: o.Lower, Upper: o.Upper, Work: o.Work, Options: o.Options, Bounded: o.Bounded}
	if o.Mapped {
		ns, err := ownUserNamespace(l, pid)
		if err != nil {
			return -1, err
		}
		defer unix.Close(ns)
		uid, gid := l.job.HostRoot()
		layers.Mapped = &overlay.Mapped{UserNS: ns, UID: uid, GID: gid}
	}
	return overlay.Mount(layers, 0)
}

// ownUserNamespace opens the user namespace of the child.
func ownUserNamespace(l *launch, pid int) (int, error) {
	if err := l.openProcfs(); err != nil {
		return -1, err
	}
	ns, err := unix.Openat(l.procfs, strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the user namespace: %w", err)
	}
	return ns, nil
}

// mapped sets the child's limits, which only root of the host may raise (the
// child sets them again, since its Go runtime has changed a soft one), and
// gives its standard streams to its root: a process must be able to open
// /dev/stdout again.
func (l *launch) mapped(pid int) error {
	for _, r := range l.proc.Rlimits {
		lim := unix.Rlimit{Cur: r.Soft, Max: r.Hard}
		if err := unix.Prlimit(pid, r.Resource, &lim, nil); err != nil {
			return fmt.Errorf("limit %d to %d:%d: %w", r.Resource, r.Soft, r.Hard, err)
		}
	}
	if l.proc.Terminal {
		return nil
	}
	uid, gid, err := childRoot(l, pid)
	if err != nil || uid < 0 || gid < 0 {
		return err
	}
	for n, f := range l.o.Stdio {
		if f == nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		// Only what exists for this process alone: a file of the host that
		// the OCI command line was given stays its owner's.
		if t := st.Mode & unix.S_IFMT; t != unix.S_IFIFO && t != unix.S_IFSOCK || st.Uid != uint32(os.Geteuid()) {
			continue
		}
		if err := unix.Fchown(int(f.Fd()), uid, gid); err != nil {
			return fmt.Errorf("give descriptor %d to the container's root: %w", n, err)
		}
	}
	return nil
}

// childRoot is the host's ids of the child's root, -1 if it has none.
func childRoot(l *launch, pid int) (uid, gid int, err error) {
	if l.job != nil && len(l.job.UIDMap) > 0 {
		uid, gid = l.job.HostRoot()
		return uid, gid, nil
	}
	if l.into > 0 {
		pid = l.into // the child itself may not have joined yet
	}
	if uid, err = rootIn(l, pid, "uid_map"); err != nil {
		return -1, -1, err
	}
	gid, err = rootIn(l, pid, "gid_map")
	return uid, gid, err
}

// rootIn reads what 0 is on the host from a map of the child's.
func rootIn(l *launch, pid int, file string) (int, error) {
	if err := l.openProcfs(); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(l.procfs, strconv.Itoa(pid)+"/"+file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("read the id map: %w", err)
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return -1, fmt.Errorf("read the id map: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "0" {
			return strconv.Atoi(f[1])
		}
	}
	return -1, nil
}
