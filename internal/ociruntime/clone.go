package ociruntime

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file starts a process in namespaces that exist already, a user namespace
// among them, without C. A Go program has several threads, and setns(2) refuses
// a user namespace to a process with threads; but the child of a bare clone(2)
// has one thread only. It runs a few raw system calls on its copy of the
// goroutine's stack and executes the child half. docs/adr/0002 says more.
//
// In such a child nothing of the Go runtime may run: no allocation, no stack
// growth, no lock, no signal handler. Hence nosplit, RawSyscall, values that
// were made before the clone, and all signals blocked.

// syncFd is where the child half finds its socket, and how the raw child knows
// it: descriptors of the parent are above it.
const syncFd = 3

// A plan of what a raw child does, in order.
type cloneArgs struct {
	flags    uintptr // CLONE_NEW* of the first clone
	cgroupFD int     // v2: the group to be born in; -1 for the parent's

	// Namespaces that the parent's thread is in while it clones: a pid
	// namespace takes only children, and with a new user namespace the child
	// itself would lack the rights.
	threadJoins []nsJoin
	// Namespaces that the child joins by itself.
	joins  [8]nsJoin
	njoins int
	// unshare are namespaces (CLONE_NEW*) that the child makes after it has
	// joined those.
	unshare uintptr

	askMaps    bool    // ask the parent to write id maps
	becomeRoot bool    // become id 0 of the user namespace
	timeNS     bool    // make a time namespace and ask for its offsets
	second     bool    // clone once more, as a sibling, with flags2
	flags2     uintptr // CLONE_NEW* of the second clone
	pause      bool    // wait for the end of the socket and exit; for a bare namespace

	sock, exe int // both above syncFd
	peer      int // the parent's end of sock, for the child to close

	argv, envp []*byte
	empty      *byte // ""
	frame      [headerSize]byte
	pad        [headerSize]byte
}

type nsJoin struct{ fd, flag uintptr }

// Steps of a raw child, for frameRaw.
const (
	rawJoin = iota
	rawUnshare
	rawAsk
	rawSetID
	rawTime
	rawClone2
	rawDup
	rawExec
)

var rawSteps = [...]string{
	rawJoin: "join a namespace", rawUnshare: "make a namespace", rawAsk: "wait for the id maps", rawSetID: "become root of the user namespace",
	rawTime: "make a time namespace", rawClone2: "clone into new namespaces", rawDup: "pass the socket", rawExec: "execute the runtime's child half",
}

func rawStep(n uint32) string {
	if int(n) < len(rawSteps) {
		return rawSteps[n]
	}
	return "start"
}

// clone runs the plan and returns the pid of the (first) child. It borrows a
// thread: the namespaces that the thread joins are left again, and if that
// fails the thread is never used for anything else.
func clone(a *cloneArgs) (int, error) {
	type result struct {
		pid int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		pid, err, clean := cloneOnThread(a)
		if clean {
			runtime.UnlockOSThread()
		}
		done <- result{pid, err}
	}()
	r := <-done
	runtime.KeepAlive(a)
	return r.pid, r.err
}

// cloneOnThread is clone on a locked thread. clean says that the thread is in
// the namespaces it was in before.
func cloneOnThread(a *cloneArgs) (pid int, err error, clean bool) { //nolint:revive // clean belongs to the thread, not the error
	back := make([]nsJoin, 0, len(a.threadJoins))
	defer func() {
		for _, b := range back {
			if e := unix.Setns(int(b.fd), int(b.flag)); e != nil {
				clean = false
			}
			unix.Close(int(b.fd))
		}
	}()
	clean = true
	for _, j := range a.threadJoins {
		own, err := unix.Open("/proc/thread-self/ns/"+nsFile(uint32(j.flag)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("open own %s namespace: %w", nsFile(uint32(j.flag)), err), clean
		}
		back = append(back, nsJoin{uintptr(own), j.flag})
		if err := unix.Setns(int(j.fd), int(j.flag)); err != nil {
			return 0, fmt.Errorf("join %s namespace: %w", nsFile(uint32(j.flag)), err), clean
		}
	}
	var all, old [1]uint64
	all[0] = ^uint64(0)
	sigmask(&all, &old)
	n, errno := rawClone(a)
	sigmask(&old, nil)
	if errno != 0 {
		return 0, fmt.Errorf("clone: %w", errno), clean
	}
	return int(n), nil, clean
}

// sigmask sets the thread's signal mask (rt_sigprocmask(2)).
func sigmask(set, old *[1]uint64) {
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
}

// clone3Args is the kernel's struct clone_args (clone(2)).
type clone3Args struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

const cloneIntoCgroup = 0x200000000

//go:norace
//go:noinline
func rawClone(a *cloneArgs) (uintptr, syscall.Errno) {
	var pid uintptr
	var errno syscall.Errno
	if a.cgroupFD >= 0 {
		args := clone3Args{flags: uint64(a.flags) | cloneIntoCgroup, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(a.cgroupFD)}
		pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	} else {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, a.flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	}
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	rawChild(a)
	return 0, 0
}

// rawChild never returns.
//
//go:norace
//go:nosplit
//go:noinline
func rawChild(a *cloneArgs) {
	// Else our own copy would keep the socket from ending with the parent.
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(a.peer), 0, 0)
	for i := 0; i < a.njoins; i++ {
		if _, _, e := syscall.RawSyscall(unix.SYS_SETNS, a.joins[i].fd, a.joins[i].flag, 0); e != 0 {
			rawFail(a, rawJoin, e)
		}
	}
	if a.unshare != 0 {
		if _, _, e := syscall.RawSyscall(unix.SYS_UNSHARE, a.unshare, 0, 0); e != 0 {
			rawFail(a, rawUnshare, e)
		}
	}
	if a.askMaps {
		rawAskParent(a, frameMaps)
	}
	if a.pause {
		syscall.RawSyscall(unix.SYS_READ, uintptr(a.sock), uintptr(unsafe.Pointer(&a.pad)), headerSize)
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	if a.becomeRoot {
		// Without a map for groups that the parent may write, setgroups is
		// denied; then there is nothing to give up either.
		syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); e != 0 {
			rawFail(a, rawSetID, e)
		}
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); e != 0 {
			rawFail(a, rawSetID, e)
		}
	}
	if a.timeNS {
		if _, _, e := syscall.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWTIME, 0, 0); e != 0 {
			rawFail(a, rawTime, e)
		}
		rawAskParent(a, frameTime)
	}
	if a.second {
		pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, a.flags2|unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if e != 0 {
			rawFail(a, rawClone2, e)
		}
		if pid != 0 {
			rawSend(a, framePid, 0, uint64(pid))
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_DUP3, uintptr(a.sock), syncFd, 0); e != 0 {
		rawFail(a, rawDup, e)
	}
	_, _, e := syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(a.exe), uintptr(unsafe.Pointer(a.empty)),
		uintptr(unsafe.Pointer(unsafe.SliceData(a.argv))), uintptr(unsafe.Pointer(unsafe.SliceData(a.envp))), unix.AT_EMPTY_PATH, 0)
	rawFail(a, rawExec, e)
}

// rawAskParent sends a question and waits for the answer.
//
//go:norace
//go:nosplit
func rawAskParent(a *cloneArgs, kind uint32) {
	rawSend(a, kind, 0, 0)
	n, _, e := syscall.RawSyscall(unix.SYS_READ, uintptr(a.sock), uintptr(unsafe.Pointer(&a.pad)), headerSize)
	if e != 0 || n != headerSize {
		rawFail(a, rawAsk, e)
	}
}

//go:norace
//go:nosplit
func rawSend(a *cloneArgs, kind, aux uint32, size uint64) {
	*(*uint32)(unsafe.Pointer(&a.frame[0])) = kind
	*(*uint32)(unsafe.Pointer(&a.frame[4])) = aux
	*(*uint64)(unsafe.Pointer(&a.frame[8])) = size
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(a.sock), uintptr(unsafe.Pointer(&a.frame)), headerSize)
}

//go:norace
//go:nosplit
func rawFail(a *cloneArgs, step uint32, e syscall.Errno) {
	rawSend(a, frameRaw, step, uint64(e))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}

// nsFile is a namespace's name in /proc/<pid>/ns.
func nsFile(flag uint32) string {
	switch flag {
	case unix.CLONE_NEWPID:
		return "pid"
	case unix.CLONE_NEWNET:
		return "net"
	case unix.CLONE_NEWNS:
		return "mnt"
	case unix.CLONE_NEWIPC:
		return "ipc"
	case unix.CLONE_NEWUTS:
		return "uts"
	case unix.CLONE_NEWUSER:
		return "user"
	case unix.CLONE_NEWCGROUP:
		return "cgroup"
	case unix.CLONE_NEWTIME:
		return "time"
	}
	return "unknown"
}
