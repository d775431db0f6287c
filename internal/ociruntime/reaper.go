package ociruntime

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaperMain is pid 1 of a container run with --init: it starts the program,
// forwards signals to it, reaps every orphan, and ends as the program ends. It
// runs as the container's user, behind its filter; its argv is
// /sbin/docker-init -- program arguments…, its descriptors are the program's and
// behind them the sync socket.
func reaperMain() int {
	runtime.GOMAXPROCS(1)
	sock := syncSocket()
	if len(os.Args) < 3 || os.Args[1] != "--" || sock < 0 {
		return 125 // not started by us
	}
	unix.CloseOnExec(sock)
	setName("docker-init")
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	pid, err := startReaped(os.Args[2:], sock)
	if err != nil {
		send(sock, frameError, append([]byte{byte(err.Code)}, err.Text...))
		return err.Code
	}
	unix.Close(sock)
	go forward(signals, pid)
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 125 // no children: can't be, ours was one
		case got == pid && (ws.Exited() || ws.Signaled()):
			return ExitCode(ws)
		}
	}
}

// syncSocket finds the last socket among the descriptors: behind it there may be
// what the Go runtime has opened to poll standard streams that do not block.
func syncSocket() int {
	sock := -1
	var st unix.Stat_t
	for fd := 3; unix.Fstat(fd, &st) == nil; fd++ {
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			sock = fd
		}
	}
	return sock
}

// startReaped starts the program in a process group of its own, which gets the
// terminal if there is one, so that the terminal's signals reach it.
func startReaped(args []string, sock int) (int, *ExecError) {
	c := &child{proc: processOf(args)}
	path, err := c.lookup()
	if err != nil {
		return 0, err.(*ExecError) //nolint:errorlint,forcetypeassert // lookup returns nothing else
	}
	files := make([]uintptr, sock)
	for i := range files {
		files[i] = uintptr(i)
	}
	_, err = unix.IoctlGetTermios(0, unix.TCGETS)
	attr := &syscall.ProcAttr{
		Env: os.Environ(), Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: err == nil},
	}
	pid, err := syscall.ForkExec(path, args, attr)
	if err != nil {
		return 0, execError(args[0], path, err)
	}
	return pid, nil
}

// forward passes signals on. Those that the kernel raises for this process's
// own doings are not meant for the program.
func forward(signals <-chan os.Signal, pid int) {
	for s := range signals {
		switch s {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE:
		case unix.SIGTTIN, unix.SIGTTOU:
		default:
			if n, ok := s.(syscall.Signal); ok {
				unix.Kill(pid, n)
			}
		}
	}
}
