package container

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/shim"
	"gantry/internal/store"
	"gantry/internal/volume"
)

// start launches a container: everything is prepared, then the clients that
// attached before are connected, then the process is let go. An error leaves
// nothing behind.
func (c *core) start(ctx context.Context, a *actor, rec *Record, from *shim.Checkpoint) (*launch.Running, error) {
	in, err := c.input(rec)
	if err != nil {
		return nil, err
	}
	in.Restore = from
	if err := (shipping{c}).check(rec); err != nil {
		return nil, err
	}
	unlock, err := a.files.claim(ctx)
	if err != nil {
		return nil, err
	}
	r, err := c.o.Launcher.Prepare(ctx, in)
	unlock()
	if err != nil {
		return nil, err
	}
	if err := a.late.open(ctx, r.Client); err != nil {
		c.log.Debug("client could not be attached before the start", "id", rec.ID, "error", err)
	}
	if err := c.o.Launcher.Release(ctx, r); err != nil {
		a.late.end()
		return nil, err
	}
	return r, nil
}

// plainInput is input without the containers it joins.
func (c *core) plainInput(rec *Record) launch.Input {
	in := launch.Input{ID: rec.ID, Name: rec.Name, Plan: rec.Plan, Lower: rec.Image.Lower, Whole: rec.Image.Whole}
	for target, i := range rec.Images {
		if in.Images == nil {
			in.Images = map[string][]string{}
		}
		in.Images[target] = i.Lower
	}
	return in
}

// input says what to launch for a record, with the containers it joins.
func (c *core) input(rec *Record) (launch.Input, error) {
	in := c.plainInput(rec)
	if d := c.o.Defaults(); rec.Plan.Runtime != d.Runtime && !slices.Contains(d.Runtimes, rec.Plan.Runtime) {
		// The configuration has changed since the create.
		return in, errs.New(errs.Invalid, "unknown or invalid runtime name: %s", rec.Plan.Runtime)
	}
	var err error
	if in.Linked, in.LinkEnv, err = (links{c}).linked(rec, c.o.Defaults().LinkEnv); err != nil {
		return in, err
	}
	in.Reaches = links{c}.reaches(rec)
	ns := rec.Plan.Namespaces
	if ns.Network.Mode == plan.Container {
		a, err := c.joined(ns.Network.Container, "network")
		if err != nil {
			return in, err
		}
		in.Joins.Network, in.Joins.NetworkPID = a.rec.ID, a.pid
	}
	for _, j := range []struct {
		of   plan.Namespace
		kind string
		pid  *int
	}{{ns.PID, "PID", &in.Joins.PID}, {ns.IPC, "IPC", &in.Joins.IPC}, {ns.UTS, "UTS", &in.Joins.UTS}} {
		if j.of.Mode != plan.Container {
			continue
		}
		s, err := c.joined(j.of.Container, j.kind)
		if err != nil {
			return in, err
		}
		if j.kind == "IPC" && s.rec.Plan.Namespaces.IPC.Mode != plan.Shareable {
			return in, errs.New(errs.Invalid, "cannot join IPC of a container (%s): non-shareable IPC (hint: use IpcMode:shareable for the donor container)", s.rec.ID)
		}
		*j.pid = s.pid
	}
	return in, nil
}

// joined finds a container whose namespace of the given kind is to be joined.
func (c *core) joined(ref, kind string) (*snapshot, error) {
	a, err := c.table.find(ref)
	if err != nil {
		return nil, errs.New(errs.Unknown, "joining %s namespace of container: %w", kind, err)
	}
	s := a.view()
	switch {
	case s.state.Phase == Restarting:
		return nil, errs.New(errs.Conflict, "cannot join %s namespace of container: container %s is restarting, wait until the container is running", kind, s.rec.Name)
	case !s.state.Phase.live():
		return nil, errs.New(errs.Conflict, "cannot join %s namespace of a non running container: container %s is %s", kind, s.rec.Name, s.status())
	}
	return s, nil
}

// removeAll removes everything that a container owns. Each part may be gone
// already, so that a removal which a crash interrupted can be done again. The
// record goes last: as long as it is there somebody owns the rest.
func (c *core) removeAll(ctx context.Context, rec *Record, volumes bool) error {
	if err := c.o.Launcher.Teardown(ctx, rec.ID); err != nil {
		return err
	}
	shipping{c}.forget(ctx, rec)
	// The files are many and small, the claims are written durably: the one
	// needs the processor, the other the disk.
	files := make(chan error, 1)
	go func() { files <- c.o.Launcher.Destroy(ctx, rec.ID) }()
	err := c.releaseClaims(ctx, rec, volumes)
	if err := errors.Join(<-files, err); err != nil {
		return err
	}
	return c.o.Store.Update(func(tx *store.Tx) error {
		if owner, err := names.Get(tx, rec.Name); err == nil && owner == rec.ID {
			if err := names.Delete(tx, rec.Name); err != nil {
				return err
			}
		}
		return records.Delete(tx, rec.ID)
	})
}

// releaseClaims gives up what a container holds of volumes and of its image, and
// removes its anonymous volumes if volumes is set.
func (c *core) releaseClaims(ctx context.Context, rec *Record, volumes bool) error {
	anonymous, err := c.o.Volumes.Forget(ctx, rec.ID)
	if err != nil {
		return err
	}
	if volumes {
		for _, name := range anonymous {
			if err := c.o.Volumes.Remove(ctx, name, volume.RemoveOptions{}); err != nil && !errs.Is(err, errs.NotFound) {
				c.log.Warn("anonymous volume stays", "id", rec.ID, "volume", name, "error", err)
			}
		}
	}
	return c.o.Images.Unpin(ctx, rec.ID)
}

func (c *core) putRecord(rec *Record) error {
	return c.o.Store.Update(func(tx *store.Tx) error {
		if !records.Has(tx, rec.ID) {
			return errs.New(errs.NotFound, "No such container: %s", rec.ID)
		}
		return records.Put(tx, rec.ID, *rec)
	})
}

// dir is the container's directory below the data root.
func (c *core) dir(id string) string { return filepath.Join(c.o.Root, "containers", id) }

// runDir is the container's directory below the run root, where its shim's
// socket and exit record are.
func (c *core) runDir(id string) string { return filepath.Join(c.o.RunDir, "c", id) }
