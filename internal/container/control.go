package container

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gantry/internal/errs"
	"gantry/internal/plan"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// policyOf reads from a plan what Next needs.
func policyOf(p *plan.Plan) Policy {
	return Policy{
		Restart: string(p.Restart.Name), MaxRestarts: p.Restart.MaximumRetryCount,
		AutoRemove: p.AutoRemove, StopSignal: p.Stop.Signal, StopTimeout: time.Duration(p.Stop.Timeout) * time.Second,
	}
}

// Start starts a container that is down and returns when its process runs.
// errs.NoChange: it runs already.
func (c *Control) Start(ctx context.Context, ref string) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	return a.ask(ctx, Fact{Kind: AskStart})
}

// Stop asks a container to end, kills it when its time is over, and returns
// when it is down. errs.NoChange: it is not up.
func (c *Control) Stop(ctx context.Context, ref string, o StopOptions) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	if ph := a.view().state.Phase; !ph.Up() && ph != Starting {
		return errs.New(errs.NoChange, "container %s is already stopped", a.id)
	}
	f, err := stopFact(AskStop, a.view().rec.Plan.Stop, o)
	if err != nil {
		return errs.New(errs.Unknown, "cannot stop container: %s: %w", ref, err)
	}
	if err := a.ask(ctx, f); err != nil {
		if errs.Is(err, errs.Conflict) { // it ended by itself in between
			return errs.New(errs.NoChange, "container %s is already stopped", a.id)
		}
		return err
	}
	return nil
}

// Restart stops a container if it is up and starts it.
func (c *Control) Restart(ctx context.Context, ref string, o StopOptions) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	f, err := stopFact(AskRestart, a.view().rec.Plan.Stop, o)
	if err != nil {
		return errs.New(errs.Unknown, "Cannot restart container %s: %w", ref, err)
	}
	if err := a.ask(ctx, f); err != nil {
		return errs.New(errs.KindOf(err), "Cannot restart container %s: %w", ref, err)
	}
	return nil
}

// stopFact completes what the user said about ending with the container's own.
func stopFact(kind FactKind, own plan.Stop, o StopOptions) (Fact, error) {
	f := Fact{Kind: kind, Boot: o.Halt, Signal: own.Signal, Timeout: time.Duration(own.Timeout) * time.Second}
	if o.Timeout != nil {
		f.Timeout = time.Duration(*o.Timeout) * time.Second
	}
	if o.Signal != "" {
		n, err := plan.ParseSignal(o.Signal)
		if err != nil {
			return f, errs.With(errs.Unknown, err)
		}
		f.Signal = n
	}
	return f, nil
}

// Kill sends a signal, SIGKILL if none is named, to a container's first
// process. With SIGKILL it returns when the container is down.
func (c *Control) Kill(ctx context.Context, ref, signal string) error {
	if err := c.kill(ctx, ref, signal); err != nil {
		return errs.New(errs.KindOf(err), "cannot kill container: %s: %w", ref, err)
	}
	return nil
}

func (c *Control) kill(ctx context.Context, ref, signal string) error {
	n := int(syscall.SIGKILL)
	if signal != "" {
		var err error
		if n, err = plan.ParseSignal(signal); err != nil {
			if num, e := strconv.Atoi(signal); e == nil && num > 0 {
				return errs.New(errs.Invalid, "the linux daemon does not support signal %d", num)
			}
			return errs.With(errs.Invalid, err)
		}
	}
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	return a.ask(ctx, Fact{Kind: AskKill, Signal: n})
}

// Pause freezes a container's processes.
func (c *Control) Pause(ctx context.Context, ref string) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	return a.ask(ctx, Fact{Kind: AskPause})
}

// Unpause lets them run again.
func (c *Control) Unpause(ctx context.Context, ref string) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	return a.ask(ctx, Fact{Kind: AskUnpause})
}

// Remove removes a container, its directories and its name; with Force, one
// that is up too.
func (c *Control) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	if o.Link {
		return c.removeLink(ctx, ref)
	}
	ask := Fact{Kind: AskRemove, Force: o.Force, Volumes: o.Volumes}
	err = a.ask(ctx, ask)
	if errs.Is(err, errs.Conflict) && a.view().state.Phase == Running && exiting(a.view().pid) {
		// Its output has ended, and so has its user's patience; what is
		// missing is that we are told.
		if err := awaitDown(ctx, a); err != nil {
			return err
		}
		err = a.ask(ctx, ask)
	}
	if errs.Is(err, errs.Conflict) && !strings.HasPrefix(err.Error(), "removal of") {
		return errs.New(errs.Conflict, "cannot remove container %q: %w", a.view().rec.Name, err)
	}
	return err
}

// Rename gives a container another name.
func (c *Control) Rename(ctx context.Context, ref, name string) error {
	if ref == "" || name == "" {
		return errs.New(errs.Invalid, "Neither old nor new names may be empty")
	}
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	// Docker shows the slash in this text, and only here.
	shown := "/" + strings.TrimPrefix(name, "/")
	name = shown[1:]
	return a.as(ctx, func() error {
		old := a.now.rec
		if old.Name == name {
			return errs.New(errs.Invalid, "Renaming a container with the same name as its current name")
		}
		if !validName(name) {
			return errs.New(errs.Invalid, "Error when allocating new name: %w", badName(shown))
		}
		if p := a.now.state.Phase; p == Removing || p == Removed || p == Dead {
			return refuse(MarkedRemoval, a.view())
		}
		if _, err := (order{c.core}).checkAfter(name, old.Plan.After); err != nil {
			return errs.New(errs.KindOf(err), "Error when allocating new name: %w", err)
		}
		rec := *old
		rec.Name = name
		c.claim.Lock()
		defer c.claim.Unlock()
		if err := c.takeName(&rec, old.Name); err != nil {
			return errs.New(errs.KindOf(err), "Error when allocating new name: %w", err)
		}
		c.table.rename(a, old.Name, name)
		a.now.rec = &rec
		a.publish()
		a.announce("rename", "oldName", "/"+old.Name)
		if c.o.Networks == nil {
			return nil
		}
		if err := c.o.Networks.Rename(context.WithoutCancel(ctx), a.id, name); err != nil {
			c.log.Warn("the networks of a container still know it by its old name", "id", a.id, "error", err)
		}
		return nil
	})
}

// takeName stores rec under its name, which must be free, and gives old up.
func (c *core) takeName(rec *Record, old string) error {
	return c.o.Store.Update(func(tx *store.Tx) error {
		if owner, err := names.Get(tx, rec.Name); err == nil {
			return nameTaken(rec.Name, owner)
		}
		if old != "" {
			if err := names.Delete(tx, old); err != nil {
				return err
			}
		}
		if err := names.Put(tx, rec.Name, rec.ID); err != nil {
			return err
		}
		return records.Put(tx, rec.ID, *rec)
	})
}

func nameTaken(name, owner string) error {
	return errs.New(errs.Conflict, "Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, owner)
}

func badName(shown string) error {
	return errs.New(errs.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", shown)
}

// validName reports whether name is two or more of the allowed characters.
func validName(name string) bool {
	if len(name) < 2 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return true
}

// announce publishes an event of this container. extra are further attributes,
// as pairs.
func (a *actor) announce(action string, extra ...string) {
	rec, s := a.now.rec, a.now.state
	attrs := make(map[string]string, len(rec.Plan.Labels)+4)
	for k, v := range rec.Plan.Labels {
		attrs[k] = v
	}
	attrs["image"], attrs["name"] = rec.Plan.Config.Image, rec.Name
	if action == "die" {
		attrs["exitCode"] = strconv.Itoa(s.ExitCode)
		attrs["execDuration"] = strconv.Itoa(int(s.FinishedAt.Sub(s.StartedAt).Seconds()))
	}
	for i := 0; i+1 < len(extra); i += 2 {
		attrs[extra[i]] = extra[i+1]
	}
	a.core.o.Events.Publish(wire.Event{
		Type: "container", Action: wire.EventAction(action),
		Actor: wire.EventActor{ID: rec.ID, Attributes: attrs},
	})
}
