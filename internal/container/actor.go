package container

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/shim"
	"gantry/internal/wire"
)

// snapshot is what everybody else sees of a container: a value that is never
// changed once published.
type snapshot struct {
	rec     *Record
	state   State
	pid     int
	sandbox *launch.Sandbox // while it is up
	netIDs  map[string]string
	health  *wire.Health // nil: it has no health check, or never ran
	lost    logLost
}

// An actor is the only writer of one container. It has a goroutine while there
// is something to do, and none otherwise, so that a stopped container costs
// its record and nothing else.
type actor struct {
	core  *core
	id    string
	snap  atomic.Pointer[snapshot]
	late  gate // attached clients that wait for the process
	exit  waiters
	files access
	// editing holds a token while somebody changes the container.
	editing chan struct{}

	mu    sync.Mutex
	inbox []letter
	awake bool

	// What follows belongs to the goroutine.
	now     snapshot // what will be published next
	running *launch.Running
	from    *shim.Checkpoint   // what the next start is to restore, or nil
	cancel  context.CancelFunc // of the child that launches
	hurry   context.CancelFunc // of its wait for others
	stop    *time.Timer
	again   *time.Timer
	probing context.CancelFunc
	// healthSince is the start that now.health belongs to.
	healthSince time.Time
	lots        [3][]letter
	deferred    []letter
	follow      []letter // looked at before the inbox
	failed      error    // of the last effect that can fail
}

// A letter is a fact for an actor, with what belongs to it, or a function that
// shall run as the actor.
type letter struct {
	fact    Fact
	reply   chan error // nil: nobody waits; has room for the answer
	running *launch.Running
	err     error
	run     func()
}

func newActor(c *core, rec *Record, s State) *actor {
	a := &actor{core: c, id: rec.ID, editing: make(chan struct{}, 1)}
	a.now = snapshot{rec: rec, state: s}
	a.publish()
	return a
}

// view returns what is known of the container. It never waits.
func (a *actor) view() *snapshot { return a.snap.Load() }

// publish makes the present state visible.
func (a *actor) publish() {
	s := a.now
	a.snap.Store(&s)
}

// post hands the actor a letter. It never waits.
func (a *actor) post(l letter) {
	a.mu.Lock()
	a.inbox = append(a.inbox, l)
	start := !a.awake
	a.awake = true
	a.mu.Unlock()
	if start {
		a.core.tasks.Go(a.drain)
	}
}

// ask posts a request and waits for its answer. If ctx ends first the request
// stays: what the user asked for is done whether or not he waits.
func (a *actor) ask(ctx context.Context, f Fact) error {
	f.At = time.Now()
	reply := make(chan error, 1)
	a.post(letter{fact: f, reply: reply})
	return a.await(ctx, reply)
}

// await waits for the answer to a letter.
func (a *actor) await(ctx context.Context, reply <-chan error) error {
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.core.ctx.Done():
		return errs.New(errs.Unavailable, "the daemon is ending")
	}
}

// as runs fn as the actor and waits for it: fn may change a.now, which is then
// published.
func (a *actor) as(ctx context.Context, fn func() error) error {
	reply := make(chan error, 1)
	a.post(letter{run: func() {
		err := fn()
		a.publish()
		reply <- err
	}})
	return a.await(ctx, reply)
}

// drain is the actor's goroutine: it works until nothing is left.
func (a *actor) drain() {
	for {
		a.mu.Lock()
		if len(a.inbox) == 0 {
			a.awake = false
			a.inbox = nil
			a.mu.Unlock()
			return
		}
		l := a.inbox[0]
		a.inbox = a.inbox[1:]
		a.mu.Unlock()
		a.handle(l)
		for len(a.follow) > 0 {
			l, a.follow = a.follow[0], a.follow[1:]
			a.handle(l)
		}
	}
}

func (a *actor) handle(l letter) {
	if l.run != nil {
		l.run()
		return
	}
	if l.running != nil {
		a.running = l.running
	}
	before := a.now.state.Phase
	state, effects := Next(a.now.state, l.fact, policyOf(a.now.rec.Plan))
	a.now.state = state
	a.observe()
	a.publish()
	a.failed = nil
	for _, e := range effects {
		a.do(e, l)
	}
	if state.Phase != before {
		a.core.bell.ring()
	}
	if state.Phase != before && len(a.deferred) > 0 {
		a.follow = append(a.follow, a.deferred...)
		a.deferred = nil
	}
}

// observe brings what is shown of the process in line with the state.
func (a *actor) observe() {
	switch {
	case a.now.state.Phase.live() && a.running != nil:
		a.now.pid, a.now.sandbox = a.running.Client.Pid(), a.running.Sandbox
		if a.running.Sandbox != nil {
			ids := make(map[string]string, len(a.running.Sandbox.Endpoints))
			for _, e := range a.running.Sandbox.Endpoints {
				ids[e.NetworkName] = e.NetworkID
			}
			a.now.netIDs = ids
		}
	case a.now.state.Phase == Ending:
		a.now.pid = 0
	default:
		a.now.pid, a.now.sandbox = 0, nil
	}
}

// release lets go of a container that goes on without this engine.
func (a *actor) release() {
	a.late.fail()
	a.post(letter{run: func() {
		a.do(Effect{Do: CancelTimers}, letter{})
		a.endHealth()
		if a.now.health != nil && a.now.state.Phase.live() {
			a.save() // with the results since its status changed
		}
		if a.running != nil {
			if err := a.running.Client.Close(); err != nil {
				a.core.log.Debug("close shim", "id", a.id, "error", err)
			}
		}
	}})
}
