package build

import (
	"context"
	"sync"

	"github.com/moby/buildkit/client"

	"gantry/internal/build/execute"
	"gantry/internal/errs"
)

// A Request is a build that the daemon itself asks for.
type Request struct {
	// ID is the name by which Cancel ends the build; empty for none.
	ID string
	// Options say what to solve; sessions, exports and all else are as for
	// every client of BuildKit.
	Options client.SolveOpt
}

// A Result is what a build has come to.
type Result = client.SolveResponse

// A Network is what the steps of a build are on.
type Network = execute.Network

// A Status is news of a build under way.
type Status = client.SolveStatus

// running are the builds that can be cancelled.
type running struct {
	guard sync.Mutex
	ends  map[string]context.CancelCauseFunc
}

// Solve builds. status, which it closes, gets what happens, and must be read to
// its end.
func (b *Builder) Solve(ctx context.Context, r Request, status chan *Status) (*Result, error) {
	c, err := b.Client(ctx)
	if err != nil {
		close(status)
		return nil, err
	}
	defer c.Close()
	ctx, done, err := b.Begin(ctx, r.ID)
	if err != nil {
		close(status)
		return nil, err
	}
	defer done()
	return c.Solve(ctx, nil, r.Options, status)
}

// Begin makes a build known to Cancel, which ends the context that it returns.
// done must be called.
func (r *running) Begin(ctx context.Context, id string) (_ context.Context, done func(), _ error) {
	ctx, cancel := context.WithCancelCause(ctx)
	if id == "" {
		return ctx, func() { cancel(nil) }, nil
	}
	r.guard.Lock()
	defer r.guard.Unlock()
	if r.ends == nil {
		r.ends = map[string]context.CancelCauseFunc{}
	}
	if _, ok := r.ends[id]; ok {
		cancel(nil)
		return nil, nil, errs.New(errs.Conflict, "build ID %s exists", id)
	}
	r.ends[id] = cancel
	return ctx, func() {
		r.guard.Lock()
		defer r.guard.Unlock()
		delete(r.ends, id)
		cancel(nil)
	}, nil
}

// Cancel ends a build that Solve does. One that is not there is no error, since
// it may have ended.
func (r *running) Cancel(_ context.Context, id string) error {
	r.guard.Lock()
	defer r.guard.Unlock()
	if cancel, ok := r.ends[id]; ok {
		cancel(context.Canceled)
	}
	return nil
}

// OnNetwork lets the steps of a build be on a network that BuildKit has no word
// for: entry goes into the hosts of the build ("name=address"). It is good until
// done is called.
func (b *Builder) OnNetwork(ctx context.Context, n Network) (entry string, done func(), err error) {
	e, err := b.open(ctx)
	if err != nil {
		return "", nil, err
	}
	entry, done = e.executor.Network(n)
	return entry, done, nil
}
