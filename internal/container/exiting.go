package container

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"time"
)

// exitWait bounds how long the end of a process that is exiting may take to be
// known.
const exitWait = 5 * time.Second

// exiting reports whether a process has begun to exit: the kernel marks it before
// it closes its descriptors, so that whoever has read the end of its output finds
// the mark.
func exiting(pid int) bool {
	if pid <= 0 {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || exitingStat(stat)
}

// exitingStat reads a line of /proc/<pid>/stat (proc(5)): the state and the
// kernel's flags, of which PF_EXITING is one.
func exitingStat(stat []byte) bool {
	const pfExiting = 0x4
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return false
	}
	f := bytes.Fields(stat[i+1:]) // state ppid pgrp session tty tpgid flags
	if len(f) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(string(f[6]), 10, 64)
	return err == nil && flags&pfExiting != 0 || f[0][0] == 'Z' || f[0][0] == 'X'
}

// awaitDown returns when the container has no process any more, or after a while.
func awaitDown(ctx context.Context, a *actor) error {
	limit := time.After(exitWait)
	for {
		changed := a.core.bell.next()
		if !a.view().state.Phase.live() {
			return nil
		}
		select {
		case <-changed:
		case <-limit:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
