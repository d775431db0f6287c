package container

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/shim"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// observed is what of a container's state nobody could tell again: when it ran
// and how it ended. It is a file in the container's directory, replaced without
// waiting for the disk, since losing it loses no decision.
type observed struct {
	Ran                   bool
	Restarts              int           `json:",omitempty"`
	Pause                 time.Duration `json:",omitempty"`
	StartedAt, FinishedAt time.Time
	ExitCode              int    `json:",omitempty"`
	OOMKilled             bool   `json:",omitempty"`
	Error                 string `json:",omitempty"`
	// Up says that its process ran when this was written, Paused that it was
	// frozen, Waiting that it waited for a restart by policy.
	Up, Paused, Waiting bool    `json:",omitempty"`
	Lost                logLost `json:",omitzero"`
	// Health is that of the last start, at its last change.
	Health *wire.Health `json:",omitempty"`
}

const observedFile = "state.json"

// save writes what only this daemon has seen.
func (a *actor) save() {
	s := a.now.state
	data, err := json.Marshal(observed{
		Ran: s.Ran, Restarts: s.Restarts, Pause: s.Pause, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt,
		ExitCode: s.ExitCode, OOMKilled: s.OOMKilled, Error: s.Error,
		Up: s.Phase.live(), Paused: s.Phase == Paused, Waiting: s.Phase == Restarting,
		Health: a.now.health, Lost: a.now.lost,
	})
	if err == nil {
		err = durable.Replace(filepath.Join(a.core.dir(a.id), observedFile), data, 0o600)
	}
	if errors.Is(err, fs.ErrNotExist) {
		// No launch has made the directory: it failed before its first step.
		if err = os.MkdirAll(a.core.dir(a.id), 0o700); err == nil {
			err = durable.Replace(filepath.Join(a.core.dir(a.id), observedFile), data, 0o600)
		}
	}
	if err != nil {
		a.core.log.Warn("can't note a container's state", "id", a.id, "error", err)
	}
}

// remembered reads what save wrote. What can't be read was never seen.
func (c recovery) remembered(rec *Record) (State, observed) {
	var o observed
	data, err := os.ReadFile(filepath.Join(c.dir(rec.ID), observedFile))
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("can't read a container's last state", "id", rec.ID, "error", err)
	}
	s := State{
		Phase: Created, Ran: o.Ran, StopAsked: rec.StopAsked, Restarts: o.Restarts, Pause: o.Pause,
		StartedAt: o.StartedAt, FinishedAt: o.FinishedAt, ExitCode: o.ExitCode, OOMKilled: o.OOMKilled, Error: o.Error,
	}
	switch {
	case o.Ran && o.Waiting:
		s.Phase = Restarting
	case o.Ran:
		s.Phase = Exited
	}
	return s, o
}

// recovery is what an engine does when it opens.
type recovery struct{ *core }

// run brings the table in line with the store and with what runs.
func (c recovery) run(ctx context.Context) error {
	recs, err := c.load()
	if err != nil {
		return err
	}
	done := make(chan struct{})
	boot := make([]*actor, 0, len(recs))
	for _, rec := range recs {
		s, o := c.remembered(rec)
		a := newActor(c.core, rec, s)
		a.now.lost = o.Lost
		a.publish()
		if o.Health != nil && rec.Plan.Health != nil {
			a.now.health, a.healthSince = o.Health, o.StartedAt
			a.publish()
		}
		c.table.add(a, rec.Name)
		boot = append(boot, a)
		go func() {
			defer func() { done <- struct{}{} }()
			c.find(ctx, a, o)
		}()
	}
	for range boot {
		<-done
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := c.sweep(ctx); err != nil {
		return err
	}
	for _, a := range boot {
		c.resumeEdit(ctx, a)
		c.resumeMembers(ctx, a)
		c.resume(a)
	}
	return nil
}

// resume goes on with what policy wants of a container that is down.
func (c recovery) resume(a *actor) {
	s, p := a.view().state, policyOf(a.view().rec.Plan)
	if !s.Phase.live() {
		shipping(c).rest(a)
	}
	switch {
	case s.Phase == Restarting:
		a.post(letter{fact: Fact{Kind: RestartDue, At: time.Now()}})
	case s.Phase != Exited:
	case p.AutoRemove:
		a.post(letter{fact: Fact{Kind: AskRemove, At: time.Now(), Volumes: true}})
	case p.wantsBoot(s):
		a.post(letter{fact: Fact{Kind: AskStart, At: time.Now(), Boot: true}})
	}
}

// load reads every record. One that can't be read is reported and left alone.
func (c recovery) load() ([]*Record, error) {
	var recs []*Record
	err := c.o.Store.View(func(tx *store.Tx) error {
		for _, key := range records.Keys(tx) {
			rec, err := records.Get(tx, key)
			if err == nil && (rec.Version > recordVersion || rec.Plan == nil) {
				err = errs.New(errs.Unsupported, "written by a newer program")
			}
			if err != nil {
				c.log.Error("container can't be read", "id", key, "error", err)
				continue
			}
			recs = append(recs, &rec)
		}
		return nil
	})
	return recs, err
}

// find asks what became of one container while no daemon looked: its shim
// answers, or has left a record of its end, or neither.
func (c recovery) find(ctx context.Context, a *actor, o observed) {
	r, err := c.o.Launcher.Adopt(ctx, a.id)
	if err == nil && o.Up {
		a.now.state.Phase = Running
		a.publish()
		if err := a.late.open(ctx, r.Client); err != nil {
			c.log.Warn("can't attach to a container that was found", "id", a.id, "error", err)
		}
		(&Execs{c.core}).adopt(ctx, a, r)
		a.post(letter{fact: Fact{Kind: Adopted, Frozen: o.Paused}, running: r})
		if _, err := shim.ReadExit(c.runDir(a.id)); err == nil {
			c.settle(ctx, a) // it has ended, and its shim is about to say so
		}
		return
	}
	if err == nil {
		// A start that nobody was told of: undo it.
		if err := r.Client.Close(); err != nil {
			c.log.Debug("close shim", "id", a.id, "error", err)
		}
	}
	(&Execs{c.core}).adopt(ctx, a, nil)
	if !o.Up {
		if err := c.o.Launcher.Teardown(ctx, a.id); err != nil {
			c.log.Warn("left-overs of a container stay", "id", a.id, "error", err)
		}
		return
	}
	exit, err := shim.ReadExit(c.runDir(a.id))
	if err != nil {
		exit = shim.Exit{Code: 128 + int(syscall.SIGKILL), At: time.Now()} // lost
	}
	// It was up: let it end as if it had been adopted just before.
	a.now.state.Phase = Running
	a.publish()
	a.post(letter{fact: Fact{Kind: HasExited, At: exit.At, Code: exit.Code, OOM: exit.OOMKilled}})
	c.settle(ctx, a)
}

// settle waits until the end of a found container has been dealt with, so that
// the sweep does not meet it half done.
func (c recovery) settle(ctx context.Context, a *actor) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if p := a.view().state.Phase; !p.live() && p != Ending && p != Removing {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweep removes what no record owns: left by a crash in the middle of a create
// or a removal, or by a daemon whose records are lost.
func (c recovery) sweep(ctx context.Context) error {
	var known, up []string
	owned := map[string]bool{}
	for _, a := range c.table.all() {
		known = append(known, a.id)
		owned[a.id] = true
		if a.view().state.Phase.live() {
			up = append(up, a.id)
		}
	}
	if c.o.Others != nil {
		others := c.o.Others()
		known, up = append(known, others...), append(up, others...)
	}
	if err := c.o.Launcher.Sweep(ctx, known, up); err != nil {
		c.log.Warn("left-overs stay", "error", err)
	}
	pinned, err := c.o.Images.Pinned(ctx)
	if err != nil {
		return err
	}
	claimants, err := c.o.Volumes.Claimants(ctx)
	if err != nil {
		return err
	}
	for _, id := range append(pinned, claimants...) {
		if owned[id] {
			continue
		}
		if err := c.dropClaims(ctx, id); err != nil {
			c.log.Warn("claims of a container that does not exist stay", "id", id, "error", err)
		}
	}
	return nil
}
