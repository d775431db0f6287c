package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// A launch is the parent half while one process is prepared. It owns the
// descriptors in held and closes them all.
type launch struct {
	o    Options
	job  *job.Job // nil for Exec
	into int      // pid of the target of Exec
	proc *job.Process
	edit *edit // nil but for Mount and Unmount; job and proc are nil then

	args   cloneArgs
	setup  setup
	fds    []int // that go with the setup; setup's fields are indexes
	held   []int // to close at the end
	sock   int   // our end
	procfs int   // a private procfs mount, -1 until needed
}

func (l *launch) close() {
	closeAll(l.held)
	if l.procfs >= 0 {
		unix.Close(l.procfs)
	}
}

// hold keeps fd open until the launch is over.
func (l *launch) hold(fd int) int {
	l.held = append(l.held, fd)
	return fd
}

// pass sends fd with the setup and returns its index.
func (l *launch) pass(fd int) int32 {
	l.fds = append(l.fds, fd)
	return int32(len(l.fds) - 1)
}

// run clones the child and brings it to readiness.
func (l *launch) run() (i *Init, err error) {
	child, err := l.prepareClone()
	if err != nil {
		return nil, err
	}
	i = &Init{pidfd: -1, sock: l.sock}
	defer func() {
		if err != nil {
			i.kill()
			i.Close()
		}
	}()
	i.pid, err = clone(&l.args)
	unix.Close(child)
	if err != nil {
		return i, err
	}
	if err := l.serveRaw(i); err != nil {
		return i, err
	}
	if i.pidfd, err = unix.PidfdOpen(i.pid, 0); err != nil {
		return i, fmt.Errorf("open pidfd: %w", err)
	}
	// Joining a cgroup can take milliseconds and the child half takes one to
	// start: all of that and the mounts go on at once.
	joined := make(chan error, 1)
	go func() {
		if l.o.Joined == nil {
			joined <- nil
			return
		}
		joined <- l.o.Joined(i.pid)
	}()
	err = l.fillSetup(i.pid)
	if joinErr := <-joined; joinErr != nil {
		return i, fmt.Errorf("join cgroup: %w", joinErr)
	}
	if err != nil {
		return i, err
	}
	if err := send(l.sock, frameSetup, l.setup.encode(), l.fds...); err != nil {
		// The child has said why it went, if it could.
		if f, rerr := recv(l.sock); rerr == nil {
			return i, frameErr(f)
		}
		return i, fmt.Errorf("send the job to the container's init: %w", err)
	}
	return i, l.serve(i)
}

// prepareClone makes the socket and everything the raw child needs, and returns
// the child's end.
func (l *launch) prepareClone() (child int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make the sync socket: %w", err)
	}
	l.sock = pair[0]
	defer func() {
		if err != nil {
			unix.Close(pair[0])
		}
	}()
	child, err = above(pair[1])
	unix.Close(pair[1])
	if err != nil {
		return -1, err
	}
	exe, err := l.exe()
	if err != nil {
		unix.Close(child)
		return -1, err
	}
	l.args.sock, l.args.peer, l.args.exe = child, l.sock, exe
	l.args.cgroupFD = -1
	if l.o.CgroupFD > 0 {
		l.args.cgroupFD = l.o.CgroupFD
	}
	name, _ := unix.BytePtrFromString(initName)
	empty, _ := unix.BytePtrFromString("")
	// One thread is enough for the child half, and it never lives long
	// enough to collect garbage.
	one, _ := unix.BytePtrFromString("GOMAXPROCS=1")
	off, _ := unix.BytePtrFromString("GOGC=off")
	l.args.argv = []*byte{name, nil}
	// …and it need not look for its CPU limit in the cgroup file system.
	debug, _ := unix.BytePtrFromString("GODEBUG=containermaxprocs=0,updatemaxprocs=0")
	l.args.envp = []*byte{one, off, debug, nil}
	l.args.empty = empty
	return child, nil
}

// above duplicates fd to a number that the child's own use of low numbers can't
// touch.
func above(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return -1, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return n, nil
}

func (l *launch) exe() (int, error) {
	f := l.o.Exe
	if f == nil {
		self, err := SealSelf()
		if err != nil {
			return -1, err
		}
		defer self.Close()
		f = self
	}
	fd, err := above(int(f.Fd()))
	if err != nil {
		return -1, err
	}
	return l.hold(fd), nil
}

// serveRaw answers the raw child until it executes the child half; its pid may
// change by the way.
func (l *launch) serveRaw(i *Init) error {
	if !l.args.askMaps && !l.args.timeNS && !l.args.second {
		return nil
	}
	steps := []byte{}
	if l.args.askMaps {
		steps = append(steps, frameMaps)
	}
	if l.args.timeNS {
		steps = append(steps, frameTime)
	}
	if l.args.second {
		steps = append(steps, framePid)
	}
	for _, want := range steps {
		f, err := recv(l.sock)
		if err != nil {
			return fmt.Errorf("the container's init died: %w", err)
		}
		if f.kind != want {
			closeAll(f.fds)
			return frameErr(f)
		}
		switch f.kind {
		case frameMaps:
			err = l.writeMaps(i.pid, l.job.UIDMap, l.job.GIDMap)
		case frameTime:
			err = l.writeTime(i.pid)
		case framePid:
			i.Wait() // the first child is done
			i.pid = int(f.size)
			continue
		}
		if err != nil {
			return err
		}
		if err := send(l.sock, f.kind, nil); err != nil {
			return fmt.Errorf("the container's init died: %w", err)
		}
	}
	return nil
}

func (l *launch) writeMaps(pid int, uids, gids []job.IDMap) error {
	for _, m := range []struct {
		file string
		maps []job.IDMap
	}{{"uid_map", uids}, {"gid_map", gids}} {
		var b strings.Builder
		for _, x := range m.maps {
			fmt.Fprintf(&b, "%d %d %d\n", x.Inside, x.Outside, x.Size)
		}
		if err := l.writeProc(pid, m.file, b.String()); err != nil {
			return err
		}
	}
	return nil
}

func (l *launch) writeTime(pid int) error {
	if len(l.job.TimeOffsets) == 0 {
		return nil
	}
	var b strings.Builder
	for _, t := range l.job.TimeOffsets {
		fmt.Fprintf(&b, "%s %d %d\n", t.Clock, t.Secs, t.Nanos)
	}
	return l.writeProc(pid, "timens_offsets", b.String())
}

func (l *launch) writeProc(pid int, file, data string) error {
	if err := l.openProcfs(); err != nil {
		return err
	}
	return writeProcFile(l.procfs, strconv.Itoa(pid)+"/"+file, data)
}

func (l *launch) openProcfs() error {
	if l.procfs >= 0 {
		return nil
	}
	fd, err := privateProcfs()
	l.procfs = fd
	return err
}

// fillSetup opens everything that the child must not open itself.
func (l *launch) fillSetup(pid int) error {
	if l.edit != nil {
		return fillEdit(l)
	}
	if adj := l.proc.OOMScoreAdj; adj != nil {
		if err := l.writeProc(pid, "oom_score_adj", strconv.Itoa(int(*adj))); err != nil {
			return err
		}
	}
	if l.setup.userNS {
		if err := l.mapped(pid); err != nil {
			return err
		}
	}
	if err := l.passStdio(); err != nil {
		return err
	}
	for _, f := range l.o.ExtraFiles {
		l.setup.extra = append(l.setup.extra, l.pass(int(f.Fd())))
	}
	if l.o.Fifo != "" {
		// Open for both directions: opening never blocks, and reading never
		// ends because a writer went away.
		fd, err := unix.Open(l.o.Fifo, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", l.o.Fifo, err)
		}
		l.setup.fifo = l.pass(l.hold(fd))
		l.setup.gateFifo = true
	}
	l.setup.hooks = l.job != nil && len(l.job.Hooks.Prestart)+len(l.job.Hooks.CreateRuntime) > 0
	l.setup.exe = l.pass(l.args.exe)
	if l.job == nil || l.setup.joinMount {
		return nil
	}
	if err := l.openRoot(pid); err != nil {
		return err
	}
	return l.openMounts(pid)
}

func (l *launch) passStdio() error {
	if l.proc.Terminal {
		return nil
	}
	null := -1
	for n, f := range l.o.Stdio {
		if f != nil {
			l.setup.stdio[n] = l.pass(int(f.Fd()))
			continue
		}
		if null < 0 {
			fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open /dev/null: %w", err)
			}
			null = l.hold(fd)
		}
		l.setup.stdio[n] = l.pass(null)
	}
	return nil
}

// serve listens to the child half until it is ready.
func (l *launch) serve(i *Init) error {
	for {
		f, err := recv(l.sock)
		if err != nil {
			if errors.Is(err, errClosed) {
				return errors.New("the container's init died while it prepared the container")
			}
			return err
		}
		switch f.kind {
		case frameHooks:
			state := HookState(l.job, "creating", i.pid)
			if err := RunHooks(l.job.Hooks.Prestart, state); err != nil {
				return fmt.Errorf("prestart hook: %w", err)
			}
			if err := RunHooks(l.job.Hooks.CreateRuntime, state); err != nil {
				return fmt.Errorf("createRuntime hook: %w", err)
			}
			if err := send(l.sock, frameHooks, nil); err != nil {
				return fmt.Errorf("the container's init died: %w", err)
			}
		case frameConsole:
			if len(f.fds) != 1 || i.console != nil {
				closeAll(f.fds)
				return errors.New("the container's init sent no terminal")
			}
			unix.SetNonblock(f.fds[0], true) // so that reads go through the poller
			i.console = os.NewFile(uintptr(f.fds[0]), "console")
		case frameReady:
			i.mounts = decodeMountIDs(f.payload)
			if l.o.Fifo != "" {
				unix.Close(i.sock)
				i.sock = -1
			}
			return nil
		default:
			closeAll(f.fds)
			return frameErr(f)
		}
	}
}
