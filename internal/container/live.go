package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/volume"
	"gantry/internal/wire"
)

// changeWait bounds each part of a change to a running container: meanwhile it
// hears nothing else.
const changeWait = 10 * time.Second

// An edit is a change of a container under way:
//
//	decide   the new plan is checked and stored, with the old one as Before
//	claim    volumes that it needs are claimed, and filled from the image
//	apply    the running container is brought in line; on failure, back again
//	release  volumes that it needs no more are given up
//	finish   Before is forgotten: the record says only what is
//
// Each part may be done twice, so that after a crash anywhere recovery does
// them all again, and after a failure they are done with from and to exchanged.
type edit struct {
	a        *actor
	from, to *plan.Plan
	running  *launch.Running // nil: it did not run when the edit was decided
	stored   bool            // Before has been stored
}

// Update changes limits and the restart policy of a container, and with
// req.Gantry its published ports, mounts, environment and labels: of one that
// runs at once, as far as that is possible. Either all of it is done or nothing.
func (c *Control) Update(ctx context.Context, ref string, req wire.UpdateRequest) (wire.UpdateResponse, error) {
	var out wire.UpdateResponse
	a, err := c.table.find(ref)
	if err != nil {
		return out, err
	}
	err = editing(ctx, a, func() error {
		e := &edit{a: a}
		if out.Warnings, err = e.decide(ctx, req); err != nil || !e.stored {
			return err
		}
		// What is stored must be brought to an end whether or not the client
		// waits.
		if err := e.carryOut(context.WithoutCancel(ctx)); err != nil {
			return errs.New(errs.KindOf(err), "Cannot update container %s: %w", a.id, err)
		}
		return nil
	})
	return out, err
}

// decide waits until the container is in a state that can be changed, and stores
// what it shall be.
func (e *edit) decide(ctx context.Context, req wire.UpdateRequest) (warnings []string, err error) {
	for {
		busy := false
		err = e.a.as(ctx, func() error {
			switch e.a.now.state.Phase {
			case Removing, Removed, Dead:
				return errs.New(errs.Conflict, "Cannot update container %s: %w", e.a.id, refuse(MarkedRemoval, e.a.view()))
			case Starting, Ending:
				busy = true
				return nil
			}
			warnings, err = e.decideNow(req)
			return err
		})
		if !busy || err != nil {
			return warnings, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// decideNow is decide for a container that rests or runs. It is called as the
// actor.
func (e *edit) decideNow(req wire.UpdateRequest) ([]string, error) {
	a, c := e.a, e.a.core
	old := a.now.rec
	p, warnings, err := plan.Update(old.Plan, a.id, req.UpdateConfig, c.o.Defaults())
	if err != nil {
		return nil, err
	}
	p, more, err := plan.Edit(p, req.Gantry, c.o.Defaults())
	if err != nil {
		return nil, err
	}
	p = withNames(p)
	d := plan.Compare(old.Plan, p)
	live := a.now.state.Phase.live() && a.running != nil
	if err := checkChange(old.Plan, d, live); err != nil {
		return nil, errs.New(errs.KindOf(err), "Cannot update container %s: %w", a.id, err)
	}
	rec := *old
	rec.Plan = p
	if e.stored = live && !d.Empty() || len(d.Add)+len(d.Remove) > 0; e.stored {
		rec.Before = old.Plan
	}
	if err := c.putRecord(&rec); err != nil {
		return nil, err
	}
	a.now.rec = &rec
	e.from, e.to = old.Plan, p
	if live {
		e.running = a.running
	}
	if !e.stored {
		a.announce("update")
	}
	if warnings = append(warnings, more...); len(warnings) == 0 {
		return nil, nil
	}
	return warnings, nil
}

// withNames gives the anonymous volumes of p that have none their names.
func withNames(p *plan.Plan) *plan.Plan {
	names := map[string]string{}
	for _, m := range p.Mounts {
		if m.Type == "volume" && m.Anonymous && m.Name == "" {
			names[m.Target] = id.New()
		}
	}
	return p.WithVolumeNames(names)
}

// checkChange finds what can't be done to a container that runs, and sources
// that do not exist.
func checkChange(from *plan.Plan, d plan.Difference, live bool) error { //nolint:revive // live is a fact of the container
	if err := checkSources(&plan.Plan{Mounts: d.Add}); err != nil {
		return err
	}
	if !live {
		return nil
	}
	for _, m := range append(d.Remove, d.Add...) {
		if below, ok := from.Hides(m.Target, d.Remove); ok {
			return errs.New(errs.Conflict, "mount %s: the mount at %s lies below it and would vanish; remove that one first", m.Target, below.Target)
		}
	}
	return nil
}

// carryOut does what has been decided. When it fails the container is as it was
// before, in its record as in the kernel.
func (e *edit) carryOut(ctx context.Context) error {
	err := e.claim(ctx)
	if err == nil {
		err = e.apply(ctx)
	}
	if e.a.core.ctx.Err() != nil {
		return err // the daemon ends: the next one finds Before
	}
	if err != nil {
		e.from, e.to = e.to, e.from // what is to be given up, and what stays
	}
	if relErr := e.release(ctx, err); relErr != nil {
		// It stays claimed: nothing is lost, and the next edit or the
		// removal of the container gives it up.
		e.a.core.log.Warn("a volume stays in use", "id", e.a.id, "error", relErr)
	}
	return errors.Join(err, e.finish(ctx, err))
}

// claim claims the volumes that are new in the plan. Those of a container that
// runs are filled from the image here, where it hinders nobody.
func (e *edit) claim(ctx context.Context) error {
	for _, m := range plan.Compare(e.from, e.to).Add {
		if m.Type != "volume" {
			continue
		}
		v := volume.Claim{Name: m.Name, Driver: m.Driver, Options: m.DriverOptions, Labels: m.VolumeLabels, Anonymous: m.Anonymous}
		if _, err := e.a.core.o.Volumes.Claim(ctx, e.a.id, v); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
		if e.running == nil {
			continue
		}
		s, err := e.source(ctx, e.to, m)
		if err != nil {
			return err
		}
		s.Close()
	}
	return nil
}

func (e *edit) source(ctx context.Context, p *plan.Plan, m plan.Mount) (*launch.Source, error) {
	rec := *e.a.view().rec
	rec.Plan = p
	s, err := e.a.core.o.Launcher.Source(ctx, e.a.core.plainInput(&rec), m)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", m.Target, err)
	}
	return s, nil
}

// apply brings the process that ran when the edit was decided in line. One that
// has been started since is what the record says already.
func (e *edit) apply(ctx context.Context) error {
	if e.running == nil {
		return nil
	}
	return e.a.as(ctx, func() error {
		if !e.a.now.state.Phase.live() || e.a.running != e.running {
			return nil
		}
		err := e.become(ctx, e.from, e.to)
		if err == nil || errors.Is(err, fs.ErrNotExist) && e.a.late.over(ctx) {
			return nil // or it has just ended, and nothing is left to change
		}
		if undo := e.become(ctx, e.to, e.from); undo != nil && !errs.Is(undo, errs.Unavailable) {
			err = errs.With(errs.KindOf(err), errors.Join(err, fmt.Errorf("and it could not be undone: %w", undo)))
		}
		return err
	})
}

// become makes of a container that was launched by one plan, or is on the way
// from there, what another says. It is called as the actor.
func (e *edit) become(ctx context.Context, from, to *plan.Plan) error {
	d := plan.Compare(from, to)
	if d.Limits {
		if err := e.a.core.o.Launcher.Limit(ctx, e.a.id, to); err != nil {
			return err
		}
	}
	if d.Ports {
		if err := e.publish(ctx, to); err != nil {
			return err
		}
	}
	if len(d.Remove)+len(d.Add) == 0 {
		return nil
	}
	ask, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	have, err := e.running.Client.Mounts(ask)
	if err != nil {
		return fmt.Errorf("mounts: %w", err)
	}
	for _, m := range d.Remove {
		// What has no tag was made at the start.
		if tag, there := have[m.Target]; there && (tag == "" || tag == m.Tag()) {
			if err := e.running.Client.Unmount(ask, m.Target); err != nil {
				return fmt.Errorf("mount %s: %w", m.Target, err)
			}
			delete(have, m.Target)
		}
	}
	for _, m := range d.Add {
		if _, there := have[m.Target]; there {
			continue
		}
		if err := e.mount(ctx, to, m); err != nil {
			return err
		}
	}
	return nil
}

func (e *edit) mount(ctx context.Context, p *plan.Plan, m plan.Mount) error {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	s, err := e.source(ctx, p, m)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := e.running.Client.Mount(ctx, m.Tag(), &s.Mount); err != nil {
		return fmt.Errorf("mount %s: %w", m.Target, err)
	}
	return nil
}

func (e *edit) publish(ctx context.Context, p *plan.Plan) error {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	rec := *e.a.now.rec
	rec.Plan = p
	in := e.a.core.plainInput(&rec)
	in.Reaches = links{e.a.core}.reaches(&rec)
	sandbox, err := e.a.core.o.Launcher.Publish(ctx, in)
	if err != nil {
		return err
	}
	if sandbox != nil {
		e.running.Sandbox = sandbox
		e.a.observe()
	}
	return nil
}

// release gives up the volumes that the container does not have any more. Those
// that nobody named stay, too, since they hold data, unless they were made for
// an edit that has failed.
func (e *edit) release(ctx context.Context, failed error) error {
	vols := e.a.core.o.Volumes
	var all []error
	kept := map[string]bool{}
	for _, m := range e.to.Mounts {
		kept[m.Name] = true
	}
	for _, m := range e.from.Mounts {
		if m.Type != "volume" || kept[m.Name] {
			continue
		}
		err := vols.Unclaim(ctx, e.a.id, m.Name)
		if err == nil && failed != nil && m.Anonymous {
			err = vols.Remove(ctx, m.Name, volume.RemoveOptions{})
		}
		if !errs.Is(err, errs.NotFound) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// finish stores that the container is what e.to says.
func (e *edit) finish(ctx context.Context, failed error) error {
	return e.a.as(ctx, func() error {
		rec := *e.a.now.rec
		rec.Plan, rec.Before = e.to, nil
		e.a.now.rec = &rec
		if err := e.a.core.putRecord(&rec); err != nil {
			return err
		}
		if failed == nil {
			e.a.announce("update")
		}
		return nil
	})
}

// resumeEdit ends an edit that an earlier daemon has begun: forwards if that is
// possible.
func (c recovery) resumeEdit(ctx context.Context, a *actor) {
	rec := a.view().rec
	if rec.Before == nil {
		return
	}
	e := &edit{a: a, from: rec.Before, to: rec.Plan, stored: true}
	err := a.as(ctx, func() error {
		if a.now.state.Phase.live() {
			e.running = a.running
		}
		return nil
	})
	if err == nil {
		err = e.carryOut(ctx)
	}
	if err != nil {
		c.log.Warn("a change of a container was taken back", "id", a.id, "error", err)
	}
}
