package ociruntime

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// NewUserNamespace makes a user namespace with the given maps, and a network
// namespace that belongs to it, without any process. They last as long as the
// files, or what else holds them. Who calls it may have threads: a child is
// cloned into them, and ends when they are open.
func NewUserNamespace(uids, gids []job.IDMap) (user, net *os.File, err error) {
	l := &launch{procfs: -1}
	defer l.close()
	a := &cloneArgs{flags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET}
	fds, err := l.bareNamespaces(a, func(pid int) error { return l.writeMaps(pid, uids, gids) }, unix.CLONE_NEWUSER, unix.CLONE_NEWNET)
	if err != nil {
		return nil, nil, fmt.Errorf("make a user namespace: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "user namespace"), os.NewFile(uintptr(fds[1]), "network namespace"), nil
}

// JoinUserNamespace is NewUserNamespace with the user namespace of a process:
// only the network namespace is new.
func JoinUserNamespace(pid int) (user, net *os.File, err error) {
	l := &launch{procfs: -1}
	defer l.close()
	theirs, err := ownUserNamespace(l, pid)
	if err != nil {
		return nil, nil, err
	}
	user = os.NewFile(uintptr(theirs), "user namespace")
	a := &cloneArgs{njoins: 1, unshare: unix.CLONE_NEWNET}
	a.joins[0] = nsJoin{uintptr(theirs), unix.CLONE_NEWUSER}
	fds, err := l.bareNamespaces(a, func(int) error { return nil }, unix.CLONE_NEWNET)
	if err != nil {
		user.Close()
		return nil, nil, fmt.Errorf("join the user namespace of process %d: %w", pid, err)
	}
	return user, os.NewFile(uintptr(fds[0]), "network namespace"), nil
}

// bareNamespaces clones a child that makes and joins namespaces as a says, calls
// prepare with its pid, and opens those of the given types.
func (l *launch) bareNamespaces(a *cloneArgs, prepare func(pid int) error, types ...uint32) (fds []int, err error) {
	if err := l.openProcfs(); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[0])
	a.cgroupFD, a.askMaps, a.pause, a.sock, a.peer = -1, true, true, pair[1], pair[0]
	pid, err := clone(a)
	unix.Close(pair[1])
	if err != nil {
		return nil, err
	}
	i := &Init{pid: pid, pidfd: -1, sock: -1}
	defer i.kill()
	switch f, err := recv(pair[0]); {
	case err != nil:
		return nil, fmt.Errorf("the child in new namespaces died: %w", err)
	case f.kind != frameMaps:
		return nil, frameErr(f)
	}
	if err := prepare(pid); err != nil {
		return nil, err
	}
	for _, t := range types {
		fd, err := unix.Openat(l.procfs, strconv.Itoa(pid)+"/ns/"+nsFile(t), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll(fds)
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}
