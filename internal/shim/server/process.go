package server

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/logs/files"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim/protocol"
)

// A process is the container's first process or an exec, from its preparation
// until everybody knows how it ended.
type process struct {
	s    *server
	id   string // of an exec; "" for the first process
	task task
	tty  bool
	out  fanout
	log  *files.Writer // of the first process, or nil
	// feed is the pipe or terminal that attached clients write to, or nil.
	feed *os.File
	// feedOnce: feed ends with the first client that has it.
	feedOnce bool
	// wantInput: a terminal becomes feed.
	wantInput bool
	console   *os.File
	sources   []*os.File // what the pumps read
	pumps     sync.WaitGroup
	// ready is closed when feed and console are known: before an exec of
	// another runtime is started they are not.
	ready chan struct{}
	done  chan struct{} // closed when all is over

	mu        sync.Mutex
	started   bool
	failed    int // the exit code of a program that could not be executed
	exited    bool
	exit      protocol.Exit
	waiters   []waiter
	owner     *control // of an exec: who made it and has not forgotten it
	forgotten bool
	orphan    bool // its owner has gone: its end is written down
}

// A waiter is a call that is answered at the end.
type waiter struct {
	k    *control
	call uint32
}

func (s *server) newProcess(id string, j *job.Process) *process {
	return &process{s: s, id: id, tty: j.Terminal, out: fanout{tty: j.Terminal}, ready: make(chan struct{}), done: make(chan struct{})}
}

// stdio makes the three files for a process without a terminal: the pipes that
// want asks for, the null device for the others. The process's ends are
// returned; ours go into p.
func (p *process) stdio(want protocol.Streams) (theirs [3]*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(theirs[:])
		}
	}()
	for i, wanted := range [3]bool{want.Stdin, want.Stdout, want.Stderr} {
		if !wanted {
			if theirs[i], err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
				return theirs, err
			}
			continue
		}
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return theirs, os.NewSyscallError("pipe2", err)
		}
		mine, his := fds[0], fds[1]
		if i == 0 {
			mine, his = his, mine
		}
		theirs[i] = os.NewFile(uintptr(his), "stdio")
		f, _, err := polled(mine, "stdio")
		if err != nil {
			return theirs, err
		}
		if i == 0 {
			p.feed = f
		} else {
			p.sources = append(p.sources, f)
			p.pump(byte(i), f)
		}
	}
	return theirs, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// terminal takes the master side of the process's terminal.
func (p *process) terminal(master *os.File) error {
	fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	master.Close()
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	f, _, err := polled(fd, "terminal")
	if err != nil {
		return err
	}
	p.console = f
	if p.wantInput {
		p.feed = f
	}
	p.sources = append(p.sources, f)
	p.pump(streamOut, f)
	return nil
}

// pump starts the goroutine that carries one output stream to its end.
func (p *process) pump(stream byte, f *os.File) {
	p.pumps.Go(func() {
		raw, err := f.SyscallConn()
		if err != nil {
			return
		}
		for {
			buf, n, err := p.s.spare.read(raw)
			if err != nil || n == 0 {
				break // the end; of a terminal that is EIO
			}
			if p.log != nil {
				p.logged(p.log.Write(files.Stream(stream-1), buf[frameHeader:frameHeader+n], time.Now()))
			}
			p.out.write(stream, buf, n)
			p.s.spare.put(buf)
		}
		if p.log != nil {
			p.logged(p.log.End(files.Stream(stream-1), time.Now()))
		}
	})
}

// logged tells the daemon when the log can't be written, and when it can again.
func (p *process) logged(err error) {
	if f := p.s.trouble.note(err); f != "" {
		p.s.fact(f)
	}
}

// prepare has create make the process with the streams that want asks for, and
// sees to it that its end is noticed.
func (p *process) prepare(want protocol.Streams, create func([3]*os.File) (task, error)) (err error) {
	var theirs [3]*os.File
	p.wantInput = want.Stdin
	if !p.tty {
		if theirs, err = p.stdio(want); err != nil {
			p.closeFiles()
			return err
		}
	}
	err = p.s.reaper.spawn(func() (int, error) {
		t, err := create(theirs)
		if err != nil {
			return 0, err
		}
		p.task = t
		return p.born()
	}, p.died)
	closeAll(theirs[:])
	if err != nil {
		p.task = nil
		p.closeFiles()
	}
	return err
}

// died is told by the reaper.
func (p *process) died(st syscall.WaitStatus) { go p.reaped(st) }

// born takes the terminal of a process that there is now, and returns its pid.
// The exec of another runtime has 0 until it is started.
func (p *process) born() (int, error) {
	pid := p.task.Pid()
	if pid == 0 {
		return 0, nil
	}
	if p.tty {
		if err := p.terminal(p.task.Console()); err != nil {
			unix.Kill(pid, unix.SIGKILL) // it is not yet reaped
			return 0, err
		}
	}
	close(p.ready)
	return pid, nil
}

// start releases the prepared process.
func (p *process) start() error {
	p.mu.Lock()
	if p.started || p.exited {
		p.mu.Unlock()
		return errs.New(errs.Conflict, "the process has been started already")
	}
	p.started = true
	p.mu.Unlock()
	release := func() error {
		err := p.task.Start()
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.failed = 125
			var se *protocol.StartError
			if errors.As(err, &se) {
				p.failed = se.ExitCode
			}
		}
		return err
	}
	p.s.trim.later(&p.s.spare)
	if pid := p.task.Pid(); pid != 0 {
		err := p.s.reaper.start(pid, release)
		if err != nil {
			p.s.reaper.signal(pid, unix.SIGKILL) // usually it is dead by itself
		}
		return err
	}
	err := p.s.reaper.spawn(func() (int, error) {
		if err := release(); err != nil {
			return 0, err
		}
		return p.born()
	}, p.died)
	if err != nil {
		p.died(0) // there is no process
	}
	return err
}

// status reports how far the process is.
func (p *process) status() (started, exited bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started, p.exited
}

// wait answers a call when the process has ended.
func (p *process) wait(w waiter) {
	p.mu.Lock()
	if !p.exited {
		p.waiters = append(p.waiters, w)
		p.mu.Unlock()
		return
	}
	e := p.exit
	p.mu.Unlock()
	w.k.send(w.call, protocol.OpAnswer, e.Encode())
}

// settleOutput is how long output is waited for that others than the ended
// process may still write: its children that have its pipes. What the process
// itself has written is read in any case.
const settleOutput = 250 * time.Millisecond

// reaped is called once the process has ended. It blocks, so it gets a
// goroutine.
func (p *process) reaped(st syscall.WaitStatus) {
	e := protocol.Exit{Code: exitCode(st), At: time.Now()}
	if p == p.s.main && !p.s.ownPids && p.s.group != nil {
		// The namespace's end has not killed the rest of the container.
		p.s.group.Kill()
	}
	if t, ok := p.task.(*foreignTask); ok {
		t.drop() // ends the pipes of one that has never been
	}
	p.out.hurry()
	if p == p.s.main {
		close(p.s.dying)
	}
	p.drain()
	if p.log != nil {
		p.log.Close()
		if f := p.s.trouble.now(); f != "" {
			p.s.fact(f) // the last of what is lost
		}
	}
	p.s.late.Add(1) // finish is still to come
	p.closeInput()
	if p == p.s.main {
		e.OOMKilled = p.s.outOfMemory()
	}
	p.mu.Lock()
	if p.failed != 0 {
		e.Code = p.failed
	}
	started := p.started
	p.mu.Unlock()
	if p == p.s.main && started {
		p.s.mainExited(e)
	}
	p.mu.Lock()
	p.exit, p.exited = e, true
	waiters := p.waiters
	p.waiters = nil
	orphan, forgotten := p.orphan && started, p.forgotten || p.orphan
	p.mu.Unlock()
	if orphan {
		p.record(e) // before anybody hears of it, and removes the record
	}
	for _, w := range waiters {
		w.k.send(w.call, protocol.OpAnswer, e.Encode())
	}
	// After the exit code: who has read the output to its end and then asks
	// about the process shall find it ended.
	p.out.finish(&p.s.late)
	p.s.late.Done()
	if p == p.s.main {
		p.s.cleanUp()
	} else if forgotten {
		p.s.forget(p)
	}
	close(p.done)
	if p == p.s.main {
		p.s.settle()
	}
	p.s.trim.later(&p.s.spare)
}

// drain waits until the output has been read.
func (p *process) drain() {
	ended := make(chan struct{})
	go func() {
		p.pumps.Wait()
		for _, f := range p.sources {
			f.Close()
		}
		close(ended)
	}()
	for {
		select {
		case <-ended:
			return
		case <-time.After(settleOutput):
		}
		if p.nothingToRead() {
			// Others hold the pipes. An exec's may go on writing into
			// the void; the pump ends when they do.
			if p.id == "" {
				closeAll(p.sources)
				<-ended
			}
			return
		}
	}
}

func (p *process) nothingToRead() bool {
	for _, f := range p.sources {
		raw, err := f.SyscallConn()
		if err != nil {
			continue
		}
		n := 0
		raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		if n > 0 {
			return false
		}
	}
	return true
}

// closeInput ends standard input. A terminal stays open for its output.
func (p *process) closeInput() {
	if p.feed != nil && !p.tty {
		p.feed.Close()
	}
}

// closeFiles is for a process that could not be prepared.
func (p *process) closeFiles() {
	p.closeInput()
	closeAll(p.sources)
	p.pumps.Wait()
	if p.log != nil {
		p.log.Close()
	}
}

// resize sets the terminal's size. Without a terminal there is nothing to do.
func (p *process) resize(height, width uint16) error {
	select {
	case <-p.ready:
	default:
		return errs.New(errs.Conflict, "the process has not been started")
	}
	if p.console == nil {
		return nil
	}
	raw, err := p.console.SyscallConn()
	if err != nil {
		return err
	}
	var e error
	err = raw.Control(func(fd uintptr) {
		e = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
	if err = errors.Join(err, e); err != nil {
		return errs.New(errs.Conflict, "resize terminal: %w", err)
	}
	return nil
}
