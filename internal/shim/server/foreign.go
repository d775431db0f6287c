package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim/protocol"
)

// foreign is another OCI runtime's program, such as runc, that isolates from a
// bundle. Its create leaves the container's first process to its nearest
// subreaper, which is the shim; so from there on all is as with our own.
type foreign struct {
	s      *server
	argv   []string // the program and its global options
	bundle string
	root   *job.Overlay // the root file system; nil if it is in the bundle already
	cgroup string       // the container's cgroup, that the runtime makes
	dir    string       // for the runtime's state and what is passed to it
	calls  atomic.Uint32
}

// file names a new file in the runtime's directory.
func (f *foreign) file(name string) string {
	return filepath.Join(f.dir, name+strconv.FormatUint(uint64(f.calls.Add(1)), 10))
}

// newForeign makes the directory that the runtime needs.
func (s *server) newForeign(r *protocol.Request, j *job.Job) (*foreign, error) {
	f := &foreign{s: s, argv: r.Runtime, bundle: r.Bundle, root: j.Root.Overlay, cgroup: j.Cgroup.Path, dir: filepath.Join(r.Dir, "oci")}
	if err := os.Mkdir(f.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return f, nil
}

// call runs the runtime's program once.
func (f *foreign) call(stdio [3]*os.File, args ...string) error {
	log := f.file("log")
	defer os.Remove(log)
	all := append(slices.Clone(f.argv[1:]), "--root", filepath.Join(f.dir, "state"), "--log", log, "--log-format", "json")
	cmd := exec.Command(f.argv[0], append(all, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	// A nil *os.File is no nil io.Writer.
	if stdio[0] != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio[0], stdio[1], stdio[2]
	}
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if text := lastError(log); text != "" {
		return runtimeError(text)
	}
	return fmt.Errorf("runtime %s: %s: %w", f.argv[0], args[0], err)
}

// lastError returns the last error in a runtime's log of JSON lines.
func lastError(path string) (text string) {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(data) {
		var e struct{ Level, Msg string }
		if json.Unmarshal(line, &e) == nil && (e.Level == "error" || e.Level == "fatal") {
			text = e.Msg
		}
	}
	return text
}

// runtimeError tells the user's mistakes from the rest, as engines do: by the
// text.
func runtimeError(text string) error {
	// runc's own preface, which the engine gives to any runtime's error.
	for _, p := range []string{"runc create failed: ", "exec failed: ", "unable to start container process: "} {
		text = strings.TrimPrefix(text, p)
	}
	switch {
	case strings.Contains(text, "executable file not found") || strings.Contains(text, "no such file or directory") && strings.Contains(text, "exec"):
		return &protocol.StartError{ExitCode: 127, Text: text}
	case strings.Contains(text, "permission denied") && strings.Contains(text, "exec"):
		return &protocol.StartError{ExitCode: 126, Text: text}
	}
	return errors.New(text)
}

// launch is create and exec: it returns the pid that the runtime writes down,
// and the terminal that it sends, if there are no files.
func (f *foreign) launch(stdio [3]*os.File, args ...string) (pid int, master *os.File, err error) {
	pidFile := f.file("pid")
	defer os.Remove(pidFile)
	more := []string{"--pid-file", pidFile}
	var l *consoleListener
	if stdio[0] == nil {
		if l, err = listenConsole(); err != nil {
			return 0, nil, err
		}
		defer l.close()
		more = append(more, "--console-socket", l.path)
	}
	if err := f.call(stdio, slices.Insert(slices.Clone(args), 1, more...)...); err != nil {
		return 0, nil, err
	}
	if l != nil {
		if master, err = l.receive(); err != nil {
			return 0, nil, err
		}
	}
	data, err := os.ReadFile(pidFile)
	if err == nil {
		pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	if err != nil {
		return 0, nil, fmt.Errorf("pid from runtime %s: %w", f.argv[0], err)
	}
	return pid, master, nil
}

func (f *foreign) create(stdio [3]*os.File) (task, error) {
	if f.cgroup != "" {
		host, err := cgroup.Detect()
		if err != nil {
			return nil, err
		}
		if f.s.group, err = groupAt(host, f.cgroup); err != nil {
			return nil, err
		}
	}
	var pid int
	var master *os.File
	err := f.withRoot(func() (err error) {
		pid, master, err = f.launch(stdio, "create", "--bundle", f.bundle, f.s.id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if f.s.group != nil {
		f.s.watchOOM()
	}
	return &foreignTask{f: f, pid: pid, console: master}, nil
}

// exec only takes note: these runtimes have no prepared exec.
func (f *foreign) exec(p *job.Process, stdio [3]*os.File) (task, error) {
	t := &foreignTask{f: f, process: p}
	for i, file := range stdio {
		if file == nil {
			continue
		}
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(t.stdio[:])
			return nil, os.NewSyscallError("fcntl", err)
		}
		t.stdio[i] = os.NewFile(uintptr(fd), "stdio")
	}
	return t, nil
}

func (f *foreign) remove() {
	f.s.reaper.spawn(func() (int, error) { return 0, f.call([3]*os.File{}, "delete", "--force", f.s.id) }, nil)
	os.RemoveAll(f.dir)
}

// foreignTask is a process that another runtime starts.
type foreignTask struct {
	f       *foreign
	process *job.Process // of an exec, until it is started
	stdio   [3]*os.File  // the same

	mu      sync.Mutex
	pid     int // 0 for an exec that is not started
	console *os.File
}

func (t *foreignTask) Pid() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pid
}

func (t *foreignTask) Console() *os.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.console
}

func (t *foreignTask) Start() error {
	if t.process == nil {
		return t.f.call([3]*os.File{}, "start", t.f.s.id)
	}
	defer t.drop()
	wire, err := processJSON(t.process)
	if err != nil {
		return err
	}
	file := t.f.file("process")
	defer os.Remove(file)
	if err := os.WriteFile(file, wire, 0o600); err != nil {
		return err
	}
	pid, master, err := t.f.launch(t.stdio, "exec", "--detach", "--process", file, t.f.s.id)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pid, t.console = pid, master
	return nil
}

// drop closes what an exec keeps until its start.
func (t *foreignTask) drop() {
	closeAll(t.stdio[:])
	t.stdio = [3]*os.File{}
}

// A consoleListener is the socket over which a runtime sends a terminal.
type consoleListener struct {
	fd        int
	dir, path string
}

// listenConsole makes it in a directory of its own with a short path: a socket's
// may have 107 bytes only, and the runtime is given it as it is.
func listenConsole() (*consoleListener, error) {
	dir, err := os.MkdirTemp("/run", "gantry-tty-*")
	if err != nil {
		return nil, err
	}
	l := &consoleListener{dir: dir, path: filepath.Join(dir, "s")}
	if l.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		os.RemoveAll(dir)
		return nil, os.NewSyscallError("socket", err)
	}
	if err = unix.Bind(l.fd, &unix.SockaddrUnix{Name: l.path}); err == nil {
		err = unix.Listen(l.fd, 1)
	}
	if err != nil {
		l.close()
		return nil, os.NewSyscallError("bind", err)
	}
	return l, nil
}

func (l *consoleListener) close() {
	unix.Close(l.fd)
	os.RemoveAll(l.dir)
}

// receive takes the terminal of a runtime that has ended: it must be there.
func (l *consoleListener) receive() (*os.File, error) {
	if err := unix.SetNonblock(l.fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	c, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "the runtime has sent no terminal: %w", err)
	}
	defer unix.Close(c)
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(c, make([]byte, 256), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, errs.New(errs.Unavailable, "the runtime has sent no terminal")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errs.New(errs.Unavailable, "the runtime has sent no terminal")
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

// mounts: only the runtime knows what it has made.
func (f *foreign) mounts() *mounts { return nil }
