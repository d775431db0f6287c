package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/shim"
)

// CheckpointOptions says where a checkpoint is, and how to make one.
type CheckpointOptions struct {
	Name string
	Dir  string // absolute, of the user's choice; empty for the container's own
	// LeaveRunning lets the container go on when it has been written.
	LeaveRunning bool
}

// Checkpoints are containers on the disk, as criu(8) writes them. They lie in
//
//	<data root>/containers/<id>/checkpoints/<name>/    or <Dir>/<name>/
//
// and one that is being written has a leading dot in its name.
type Checkpoints struct{ *core }

// at is where a checkpoint is.
func (c *Checkpoints) at(a *actor, o CheckpointOptions) (string, error) {
	if !validName(o.Name) {
		return "", errs.New(errs.Invalid, "Invalid checkpoint ID (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", o.Name)
	}
	dir, err := c.base(a, o.Dir)
	return filepath.Join(dir, o.Name), err
}

func (c *Checkpoints) base(a *actor, dir string) (string, error) {
	switch {
	case dir == "":
		return filepath.Join(c.dir(a.id), "checkpoints"), nil
	case !filepath.IsAbs(dir):
		return "", errs.New(errs.Invalid, "checkpoint directory %s is not an absolute path", dir)
	}
	return filepath.Clean(dir), nil
}

// criu is the path of the program.
func criu() (string, error) {
	path, err := exec.LookPath("criu")
	if err != nil {
		return "", errs.New(errs.Unsupported, "checkpoints need the program criu, which is not installed on this host (Debian package criu): %w", err)
	}
	return path, nil
}

// Create writes the processes of a running container to the disk; unless they
// are left running, the container is down then. errs.Conflict: it does not run,
// or there is one of this name.
func (c *Checkpoints) Create(ctx context.Context, ref string, o CheckpointOptions) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	if err := editing(ctx, a, func() error { return c.create(ctx, a, o) }); err != nil {
		return errs.New(errs.KindOf(err), "Cannot checkpoint container %s: %w", ref, err)
	}
	return nil
}

func (c *Checkpoints) create(ctx context.Context, a *actor, o CheckpointOptions) error {
	dir, err := c.at(a, o)
	if err != nil {
		return err
	}
	program, err := criu()
	if err != nil {
		return err
	}
	var running *launch.Running
	err = a.as(ctx, func() error {
		if a.now.state.Phase != Running || a.running == nil {
			return refuse(NotRunning, a.view())
		}
		running = a.running
		if err := freezable(a.now.rec.Plan); err != nil {
			return err
		}
		return inHostUsers(running.Client.Pid())
	})
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dir); err == nil {
		return errs.New(errs.Conflict, "checkpoint with name %s already exists for container %s", o.Name, a.view().rec.Name)
	}
	unfinished := filepath.Join(filepath.Dir(dir), "."+o.Name)
	if err := errors.Join(os.RemoveAll(unfinished), os.MkdirAll(unfinished, 0o700)); err != nil {
		return err
	}
	if !o.LeaveRunning {
		if err := wantDown(ctx, a); err != nil { // else policy would start it again
			return err
		}
	}
	if err := running.Client.Checkpoint(ctx, shim.Checkpoint{Program: program, Dir: unfinished, LeaveRunning: o.LeaveRunning}); err != nil {
		if !o.LeaveRunning {
			err = errors.Join(err, wantUp(context.WithoutCancel(ctx), a))
		}
		return err // the log stays, for whoever wants to know more
	}
	if err := complete(unfinished, dir); err != nil {
		return err
	}
	if !o.LeaveRunning {
		ended, err := (&Query{c.core}).Wait(ctx, a.id, "not-running")
		if err != nil {
			return err
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.ctx.Done():
			return errs.New(errs.Unavailable, "the daemon is ending")
		}
	}
	return a.as(ctx, func() error { a.announce("checkpoint"); return nil })
}

// freezable refuses what criu can't make again. The first text is Docker's. Pure.
func freezable(p *plan.Plan) error {
	switch {
	case p.Process.TTY:
		return errs.New(errs.Unknown, "checkpoint not support on containers with tty")
	case p.Init:
		return errs.New(errs.Unsupported, "checkpoints of containers with --init are not supported: the first process is Gantry's own, which criu can not open again; run the container without --init")
	}
	return nil
}

// inHostUsers refuses a process in another user namespace than the daemon's.
func inHostUsers(pid int) error {
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return errs.New(errs.Conflict, "look at the user namespace: %w", err)
	}
	if ours, err := os.Readlink("/proc/self/ns/user"); err != nil || its != ours {
		return errs.New(errs.Unsupported, "checkpoints of containers in a user namespace (userns-remap, --userns) are not supported; run the container with --userns=host")
	}
	return nil
}

// wantDown notes that the user wants the container down, wantUp the opposite.
func wantDown(ctx context.Context, a *actor) error {
	return a.as(ctx, func() error { a.now.state.StopAsked = true; a.persist(); return nil })
}

func wantUp(ctx context.Context, a *actor) error {
	return a.as(ctx, func() error { a.now.state.StopAsked = false; a.persist(); return nil })
}

// complete gives a checkpoint its name when all of it is on the disk.
func complete(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	if err := errors.Join(durable.SyncDir(from), os.Rename(from, to)); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(to))
}

// editing calls fn while nobody else changes the container.
func editing(ctx context.Context, a *actor, fn func() error) error {
	select {
	case a.editing <- struct{}{}:
		defer func() { <-a.editing }()
		return fn()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// List returns the names of a container's checkpoints, in order.
func (c *Checkpoints) List(_ context.Context, ref, dir string) ([]string, error) {
	a, err := c.table.find(ref)
	if err != nil {
		return nil, err
	}
	base, err := c.base(a, dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names := []string{}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(base, e.Name(), "inventory.img")); err == nil && validName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Remove removes a checkpoint.
func (c *Checkpoints) Remove(_ context.Context, ref string, o CheckpointOptions) error {
	a, dir, err := c.find(ref, o)
	if err != nil {
		return err
	}
	gone := filepath.Join(filepath.Dir(dir), "."+o.Name+"."+a.id[:12])
	if err := os.Rename(dir, gone); err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

func (c *Checkpoints) find(ref string, o CheckpointOptions) (*actor, string, error) {
	a, err := c.table.find(ref)
	if err != nil {
		return nil, "", err
	}
	dir, err := c.at(a, o)
	if err != nil {
		return nil, "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "inventory.img")); err != nil {
		return nil, "", errs.New(errs.NotFound, "checkpoint %s does not exist for container %s", o.Name, a.view().rec.Name)
	}
	return a, dir, nil
}

// Restore starts a container that is down from a checkpoint.
func (c *Checkpoints) Restore(ctx context.Context, ref string, o CheckpointOptions) error {
	a, dir, err := c.find(ref, o)
	if err != nil {
		return err
	}
	program, err := criu()
	if err != nil {
		return err
	}
	return editing(ctx, a, func() error {
		if err := freezable(a.view().rec.Plan); err != nil {
			return err
		}
		if err := a.as(ctx, func() error { a.from = &shim.Checkpoint{Program: program, Dir: dir}; return nil }); err != nil {
			return err
		}
		err := a.ask(ctx, Fact{Kind: AskStart})
		return errors.Join(err, a.as(context.WithoutCancel(ctx), func() error { a.from = nil; return nil }))
	})
}
