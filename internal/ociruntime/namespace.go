package ociruntime

import (
	"errors"
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
	fds, err := l.bareNamespaces(uids, gids, unix.CLONE_NEWUSER, unix.CLONE_NEWNET)
	if err != nil {
		return nil, nil, fmt.Errorf("make a user namespace: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "user namespace"), os.NewFile(uintptr(fds[1]), "network namespace"), nil
}

// bareNamespaces makes namespaces of the given types, the first of them a user
// namespace with the given maps, and opens them.
func (l *launch) bareNamespaces(uids, gids []job.IDMap, types ...uint32) (fds []int, err error) {
	if err := l.openProcfs(); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[0])
	a := &cloneArgs{cgroupFD: -1, askMaps: true, pause: true, sock: pair[1], peer: pair[0]}
	for _, t := range types {
		a.flags |= uintptr(t)
	}
	pid, err := clone(a)
	unix.Close(pair[1])
	if err != nil {
		return nil, err
	}
	i := &Init{pid: pid, pidfd: -1, sock: -1}
	defer i.kill()
	if f, err := recv(pair[0]); err != nil || f.kind != frameMaps {
		return nil, errors.New("the child of a new user namespace failed")
	}
	if err := l.writeMaps(pid, uids, gids); err != nil {
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
