// Package execute runs the processes of builds: each in a container of package
// launch, confined like any other, over the files that BuildKit gives it.
//
// Package build makes one Executor and hands it to BuildKit. What a step writes
// goes where BuildKit says; the rest of its container (network, control group,
// run directory) has an ID like a container's that no record knows, so that
// whatever a killed daemon leaves of it is swept when the next one starts. The
// package must not know images, caches or the API.
package execute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"syscall"

	"github.com/moby/buildkit/executor"
	resources "github.com/moby/buildkit/executor/resources/types"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/wire"
)

// A Launcher is what an Executor needs of package launch.
type Launcher interface {
	Prepare(ctx context.Context, in launch.Input) (*launch.Running, error)
	Release(ctx context.Context, r *launch.Running) error
	Teardown(ctx context.Context, id string) error
	Destroy(ctx context.Context, id string) error
	Process(ctx context.Context, in launch.Input, pid int, e *plan.ExecPlan) (*launch.ExecProcess, error)
}

// Options is what an Executor works with.
type Options struct {
	Launcher Launcher
	Defaults func() plan.Defaults // asked anew for each process
	// Devices says which devices, by their full names, steps ask for; nil: there
	// are none. Whether they may have them is BuildKit's to decide.
	Devices func(...*pb.CDIDevice) ([]string, error)
}

// An Executor runs processes. It is an executor.Executor.
type Executor struct {
	o Options

	mu    sync.Mutex
	steps map[string]*step // by the name that BuildKit gave them
	ids   map[string]bool  // of the containers that there are

	tickets tickets
}

// New returns an executor. There is nothing to close: what it runs ends with the
// contexts of its callers.
func New(o Options) *Executor {
	return &Executor{o: o, steps: map[string]*step{}, ids: map[string]bool{}}
}

// A step is one container that runs.
type step struct {
	in      launch.Input
	running *launch.Running
	started chan struct{} // closed when its process runs, or never will
	err     error         // why it never will
}

// Run runs a process in a new container to its end. started, if it is not nil,
// is closed when it runs. The error for an exit code that is not wanted is a
// *gateway.ExitError.
func (e *Executor) Run(ctx context.Context, name string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resources.Recorder, error) {
	if name == "" {
		name = id.New()
	}
	if err := executor.ValidContainerID(name); err != nil {
		return nil, err
	}
	s := &step{started: make(chan struct{})}
	e.mu.Lock()
	e.steps[name] = s
	e.mu.Unlock()
	var once sync.Once
	begun := func() {
		once.Do(func() {
			close(s.started)
			if started != nil {
				close(started)
			}
		})
	}
	defer func() {
		e.mu.Lock()
		delete(e.steps, name)
		e.mu.Unlock()
		begun()
	}()
	err := e.run(ctx, s, root, mounts, p, begun)
	if err != nil {
		s.err = err
	}
	return nil, err
}

func (e *Executor) run(ctx context.Context, s *step, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, begun func()) (err error) {
	files, err := gather(ctx, root, mounts)
	defer func() { err = join(err, files.release()) }()
	if err != nil {
		return err
	}
	own := id.New()
	d := e.o.Defaults()
	if d.UsernsRemap && p.Meta.SecurityMode != pb.SecurityMode_INSECURE {
		if t, ok := takeApart(files.root.Upper); ok {
			files.root = t
		}
	}
	on, err := e.tickets.network(p.Meta)
	if err != nil {
		return err
	}
	if s.in, err = input(own, p, files, on, d); err != nil {
		return err
	}
	if err := e.devices(&s.in, p.Meta); err != nil {
		return err
	}
	e.own(own)
	defer e.disown(own)
	clean := stubs(s.in, p.Meta.RemoveMountStubsRecursive)
	down := context.WithoutCancel(ctx)
	defer func() {
		err = join(err, e.o.Launcher.Destroy(down, s.in.ID))
		clean()
	}()
	if s.running, err = e.o.Launcher.Prepare(ctx, s.in); err != nil {
		return exitError(ctx, p.Meta, -1, err)
	}
	c := s.running.Client
	stream, err := c.Attach(ctx, streams(p))
	if err != nil {
		s.running.Client.Close()
		return errors.Join(err, e.o.Launcher.Teardown(down, s.in.ID))
	}
	defer stream.Close()
	if err := e.o.Launcher.Release(ctx, s.running); err != nil {
		return exitError(ctx, p.Meta, -1, err)
	}
	begun()
	done := make(chan struct{})
	go control(ctx, c, p, done)
	out := pump(stream, p)
	exit, err := c.Wait(down)
	if err == nil {
		err = <-out
	}
	close(done)
	// What tells it to end may find it gone.
	_ = c.Shutdown(down)
	c.Close()
	if downErr := e.o.Launcher.Teardown(down, s.in.ID); downErr != nil {
		err = errors.Join(err, downErr)
	}
	if err != nil {
		return err
	}
	var cause error
	if exit.OOMKilled && exit.Code != 0 {
		cause = fmt.Errorf("exit code: %d: out of memory", exit.Code)
	}
	return exitError(ctx, p.Meta, exit.Code, cause)
}

// devices gives a container the devices that its step asks for.
func (e *Executor) devices(in *launch.Input, m executor.Meta) error {
	if e.o.Devices == nil || len(m.CDIDevices) == 0 {
		return nil
	}
	names, err := e.o.Devices(m.CDIDevices...)
	if err != nil || len(names) == 0 {
		return err
	}
	in.Plan.DeviceRequests = []wire.DeviceRequest{{Driver: "cdi", DeviceIDs: names}}
	return nil
}

// own notes that a container begins, disown that it has gone.
func (e *Executor) own(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ids[id] = true
}

func (e *Executor) disown(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.ids, id)
}

// Containers returns the IDs of the containers that there are.
func (e *Executor) Containers() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.ids))
}

// join adds what went wrong afterwards to an error; without that it stays as it
// is.
func join(err, after error) error {
	if after == nil {
		return err
	}
	return errors.Join(err, after)
}

// exitError is what BuildKit wants to hear of a process that has ended with
// code, or that could not be run (-1) since err.
func exitError(ctx context.Context, m executor.Meta, code int, err error) error {
	e := &gateway.ExitError{ExitCode: uint32(code), Err: err}
	if code < 0 {
		e.ExitCode = gateway.UnknownExitStatus
	}
	valid := m.ValidExitCodes
	if valid == nil {
		valid = []int{0}
	}
	for _, c := range valid {
		if c == code {
			return nil
		}
	}
	if ctx.Err() != nil {
		e.Err = fmt.Errorf("%s: %w", e.Error(), context.Cause(ctx))
	}
	return e
}

// A process is what signals and sizes go to.
type process interface {
	Signal(ctx context.Context, sig int) error
	Resize(ctx context.Context, height, width uint16) error
}

// control passes on what happens to a process from outside, until done. The end
// of ctx kills it.
func control(ctx context.Context, c process, p executor.ProcessInfo, done <-chan struct{}) {
	// A process that has ended meanwhile takes neither signals nor sizes.
	live, dead := context.WithoutCancel(ctx), ctx.Done()
	for {
		select {
		case <-done:
			return
		case <-dead:
			_ = c.Signal(live, int(syscall.SIGKILL))
			dead = nil
		case sig, ok := <-p.Signal:
			if !ok {
				p.Signal = nil
				continue
			}
			_ = c.Signal(live, int(sig))
		case size, ok := <-p.Resize:
			if !ok {
				p.Resize = nil
				continue
			}
			_ = c.Resize(live, uint16(size.Rows), uint16(size.Cols))
		}
	}
}

// Exec runs a further process in the container that Run has called name.
func (e *Executor) Exec(ctx context.Context, name string, p executor.ProcessInfo) error {
	e.mu.Lock()
	s := e.steps[name]
	e.mu.Unlock()
	if s == nil {
		return errs.New(errs.NotFound, "container %s not found", name)
	}
	select {
	case <-s.started:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.running == nil || s.err != nil {
		return errs.New(errs.NotFound, "container %s has stopped", name)
	}
	ep, err := plan.Exec(execRequest(p), s.in.Plan, s.in.Plan.Hostname(s.in.ID))
	if err != nil {
		return err
	}
	c := s.running.Client
	job, err := e.o.Launcher.Process(ctx, s.in, c.Pid(), ep)
	if err != nil {
		return err
	}
	x, err := c.Exec(ctx, id.New(), job, streams(p))
	if err != nil {
		return err
	}
	defer x.Close()
	if err := x.Start(ctx); err != nil {
		return exitError(ctx, p.Meta, -1, err)
	}
	done := make(chan struct{})
	defer close(done)
	go control(ctx, x, p, done)
	out := pump(x.Stream(), p)
	exit, err := x.Wait(context.WithoutCancel(ctx))
	if err == nil {
		err = <-out
	}
	if err != nil {
		return err
	}
	return exitError(ctx, p.Meta, exit.Code, nil)
}

// pump moves what a process reads and writes. The channel gets one error, or
// nil, when all of its output has been written.
func pump(s io.ReadWriter, p executor.ProcessInfo) <-chan error {
	done := make(chan error, 1)
	if p.Stdin != nil {
		go func() {
			// Its end, for whatever reason, is the end of the process's input.
			_, _ = io.Copy(s, p.Stdin)
			if c, ok := s.(interface{ CloseWrite() error }); ok {
				_ = c.CloseWrite()
			}
		}()
	}
	go func() { done <- split(s, p) }()
	return done
}
