package container

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/shim"
	"gantry/internal/wire"
)

// execKept is how long the end of an exec can be inspected.
const execKept = 5 * time.Minute

// execStage is where an exec is in its life.
type execStage uint8

const (
	execCreated execStage = iota
	execStarting
	execRunning
	execEnded
)

// An execution is a further process in a container, asked for and perhaps started.
type execution struct {
	id    string
	actor *actor
	plan  *plan.ExecPlan
	job   *launch.ExecProcess
	noted bool          // the next daemon shall know of it
	ready chan struct{} // closed when it has been started, or has failed to
	over  chan struct{} // closed when it has ended

	mu    sync.Mutex
	stage execStage
	pid   int
	code  *int
	at    time.Time // of its end
	proc  shim.Exec // while it runs
}

// execTable holds the execs of all containers. They are no decisions: a daemon
// that starts anew knows none.
type execTable struct {
	mu sync.Mutex
	m  map[string]*execution
}

func newExecTable() *execTable { return &execTable{m: map[string]*execution{}} }

// add adds x and forgets those that ended long ago.
func (t *execTable) add(x *execution) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, old := range t.m {
		old.mu.Lock()
		if old.stage == execEnded && time.Since(old.at) > execKept {
			delete(t.m, key)
		}
		old.mu.Unlock()
	}
	t.m[x.id] = x
}

func (t *execTable) get(id string) (*execution, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.m[id]; x != nil {
		return x, nil
	}
	return nil, errs.New(errs.NotFound, "No such exec instance: %s", id)
}

// running lists the execs of a container that run, nil if none does.
func (t *execTable) running(containerID string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for key, x := range t.m {
		if x.actor.id != containerID {
			continue
		}
		x.mu.Lock()
		if x.stage == execRunning {
			out = append(out, key)
		}
		x.mu.Unlock()
	}
	slices.Sort(out)
	return out
}

// ended is told that a container is down: execs that never ran are gone, the
// others have been killed with it.
func (t *execTable) ended(containerID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, x := range t.m {
		if x.actor.id != containerID {
			continue
		}
		x.mu.Lock()
		if x.stage == execCreated {
			delete(t.m, key)
		}
		x.mu.Unlock()
	}
}

// removed is told that a container is gone, and its execs with it.
func (t *execTable) removed(containerID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.m, func(_ string, x *execution) bool { return x.actor.id == containerID })
}

// ExecCreate notes a process to be run in a running container.
func (c *Execs) ExecCreate(ctx context.Context, ref string, req wire.ExecCreate) (string, error) {
	a, err := c.table.find(ref)
	if err != nil {
		return "", err
	}
	s := a.view()
	if req.DetachKeys != "" {
		if _, err := plan.ParseDetachKeys(req.DetachKeys); err != nil {
			return "", errs.New(errs.Unknown, "Invalid escape keys (%s) provided", req.DetachKeys)
		}
	}
	p, err := plan.Exec(req, s.rec.Plan, s.rec.Plan.Hostname(s.rec.ID))
	if err != nil {
		return "", err
	}
	if err := execAllowed(s, s.rec.Name); err != nil {
		return "", err
	}
	x, err := c.newExec(ctx, a, p)
	if errs.Is(err, errs.Unknown) {
		err = errs.With(errs.Invalid, err) // such as an unknown user
	}
	if err != nil {
		return "", err
	}
	return x.id, nil
}

// execAllowed says why an exec can't be in a container; shown names it.
func execAllowed(s *snapshot, shown string) error {
	switch {
	case s.status() == "paused":
		return errs.New(errs.Conflict, "Container %s is paused, unpause the container before exec", shown)
	case s.state.Phase == Restarting:
		return errs.New(errs.Conflict, "Container %s is restarting, wait until the container is running", shown)
	case !s.state.Phase.live():
		return refuse(NotRunning, s)
	}
	return nil
}

// newExec decides all about a further process in a running container.
func (c *Execs) newExec(ctx context.Context, a *actor, p *plan.ExecPlan) (*execution, error) {
	client := a.late.process()
	if client == nil {
		return nil, refuse(NotRunning, a.view())
	}
	j, err := c.o.Launcher.Process(ctx, c.plainInput(a.view().rec), client.Pid(), p)
	if err != nil {
		return nil, err
	}
	x := &execution{id: id.New(), actor: a, plan: p, job: j, ready: make(chan struct{}), over: make(chan struct{})}
	c.execs.add(x)
	a.tellOf("exec_create: "+commandLine(p), "execID", x.id)
	return x, nil
}

func commandLine(p *plan.ExecPlan) string { return strings.Join(p.Process.Args, " ") }

// ExecStart runs a noted process. Detached, it returns nil when the process
// runs; else the client's end of its streams. A failure whose text belongs into
// that stream is a *StreamError.
func (c *Execs) ExecStart(ctx context.Context, execID string, o ExecStartOptions) (*Attached, error) {
	x, err := c.execs.get(execID)
	if err != nil {
		return nil, err
	}
	if s := x.actor.view(); s.status() == "paused" {
		return nil, execAllowed(s, s.rec.ID)
	}
	inStream := func(err error) error {
		if o.Detach {
			return err
		}
		return &StreamError{err}
	}
	if !x.begin() {
		return nil, inStream(errs.New(errs.Conflict, "exec command %s has already run", execID))
	}
	want := shim.Streams{}
	if !o.Detach {
		want = shim.Streams{Stdin: x.plan.AttachStdin, Stdout: x.plan.AttachStdout, Stderr: x.plan.AttachStderr}
	}
	if o.ConsoleSize != nil {
		x.job.ConsoleHeight, x.job.ConsoleWidth = uint16(min(o.ConsoleSize[0], 0xffff)), uint16(min(o.ConsoleSize[1], 0xffff))
	}
	x.noted = true
	stream, err := c.run(ctx, x, want)
	if err != nil {
		return nil, inStream(err)
	}
	if o.Detach {
		return nil, nil
	}
	if stream == nil {
		stream = ended{}
	}
	if keys := c.execKeys(x); x.plan.Process.TTY && want.Stdin {
		stream = newDetachable(stream, keys, func() { x.actor.tellOf("exec_detach", "execID", x.id) })
	}
	return &Attached{Stream: stream, TTY: x.plan.Process.TTY}, nil
}

func (c *Execs) execKeys(x *execution) []byte {
	if x.plan.DetachKeys != nil {
		return x.plan.DetachKeys
	}
	keys, err := parseDetachKeys(c.o.DetachKeys)
	if err != nil {
		return nil // checked by Open
	}
	return keys
}

// begin takes the one chance to start x.
func (x *execution) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.stage != execCreated {
		return false
	}
	x.stage = execStarting
	return true
}

// run starts x and watches it. Its streams are nil if none was wanted.
func (c *Execs) run(ctx context.Context, x *execution, want shim.Streams) (shim.Stream, error) {
	proc, err := c.prepare(ctx, x, want)
	if err == nil {
		if err = proc.Start(ctx); err != nil {
			proc.Close()
		}
	}
	var failed *shim.StartError
	switch {
	case err == nil:
	case errors.As(err, &failed):
		err = errs.New(errs.Invalid, "OCI runtime exec failed: exec failed: unable to start container process: %w", err)
	case ctx.Err() == nil && x.actor.late.over(ctx):
		err = refuse(NotRunning, x.actor.view())
	}
	if err != nil {
		x.finish(startCode(err), 0)
		close(x.ready)
		return nil, err
	}
	x.mu.Lock()
	x.stage, x.pid, x.proc = execRunning, proc.Pid(), proc
	x.mu.Unlock()
	if x.noted {
		c.note(x)
	}
	close(x.ready)
	x.actor.tellOf("exec_start: "+commandLine(x.plan), "execID", x.id)
	var client *execStream
	if s := proc.Stream(); s != nil {
		client = &execStream{Stream: s, over: x.over, closed: make(chan struct{})}
	}
	c.tasks.Go(func() {
		c.watch(x, proc)
		if c.ctx.Err() != nil {
			return
		}
		if client != nil {
			// What it wrote last may still be on its way to the client.
			select {
			case <-client.closed:
			case <-c.ctx.Done():
			}
		}
		proc.Close()
	})
	if client == nil {
		return nil, nil
	}
	return client, nil
}

// lastWord is how long the end of an exec's output waits for its exit code. A
// process may close its output and go on.
const lastWord = 2 * time.Second

// An execStream is the client's end of an exec's streams. Its reading ends when
// the exit code can be inspected, since clients ask for it then.
type execStream struct {
	shim.Stream
	over   <-chan struct{} // closed when the exec has ended
	once   sync.Once
	closed chan struct{}
}

func (s *execStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if errors.Is(err, io.EOF) {
		select {
		case <-s.over:
		case <-s.closed:
		case <-time.After(lastWord):
		}
	}
	return n, err
}

func (s *execStream) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Stream.Close()
}

// prepare has the shim make the process, short of running it.
func (c *Execs) prepare(ctx context.Context, x *execution, want shim.Streams) (shim.Exec, error) {
	client := x.actor.late.process()
	if client == nil {
		return nil, refuse(NotRunning, x.actor.view())
	}
	return client.Exec(ctx, x.id, x.job, want)
}

// finish notes the end of x.
func (x *execution) finish(code, pid int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stage, x.code, x.pid, x.at, x.proc = execEnded, &code, pid, time.Now(), nil
	close(x.over)
}

// exitCode is nil until x has ended.
func (x *execution) exitCode() *int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.code
}

// kill sends a signal to x if it runs.
func (x *execution) kill(ctx context.Context, sig syscall.Signal) {
	x.mu.Lock()
	proc := x.proc
	x.mu.Unlock()
	if proc != nil {
		// It may have ended by itself, which is what is wanted.
		_ = proc.Signal(ctx, int(sig))
	}
}

// ExecInspect tells what is known of an exec.
func (c *Execs) ExecInspect(_ context.Context, execID string) (wire.ExecInspect, error) {
	x, err := c.execs.get(execID)
	if err != nil {
		return wire.ExecInspect{}, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.plan
	privileged := p.Privileged
	return wire.ExecInspect{
		ID: x.id, Running: x.stage == execRunning, ExitCode: x.code, Pid: x.pid, ContainerID: x.actor.id,
		ProcessConfig: &wire.ExecProcess{
			Tty: p.Process.TTY, Entrypoint: p.Process.Args[0], Arguments: append([]string{}, p.Process.Args[1:]...),
			Privileged: &privileged, User: p.Request.User,
		},
		OpenStdin: p.AttachStdin, OpenStdout: p.AttachStdout, OpenStderr: p.AttachStderr, DetachKeys: p.DetachKeys,
	}, nil
}

// readyWait is how long a resize waits for its exec to be started, as Docker.
const readyWait = 10 * time.Second

// ExecResize sets the size of an exec's terminal. One that has not been started
// yet is waited for.
func (c *Execs) ExecResize(ctx context.Context, execID string, height, width uint16) error {
	x, err := c.execs.get(execID)
	if err != nil {
		return err
	}
	if s := x.actor.view(); !s.state.Phase.live() {
		return refuse(NotRunning, s)
	}
	select {
	case <-x.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(readyWait):
		return errs.New(errs.Unknown, "timeout waiting for exec session ready")
	}
	x.mu.Lock()
	proc := x.proc
	x.mu.Unlock()
	if proc == nil || !x.plan.Process.TTY {
		return nil
	}
	return proc.Resize(ctx, height, width)
}
