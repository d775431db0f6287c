package ocicli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ociruntime"
)

// start is the command of that name.
func (c *cli) start(_ options, args []string) error {
	ct, status, err := c.find(args)
	if err != nil {
		return err
	}
	if status != specs.StateCreated {
		return errs.New(errs.Conflict, "cannot start a container that is %s", status)
	}
	return ct.release()
}

// find loads the one container that is named and says how it is.
func (c *cli) find(args []string) (*container, specs.ContainerState, error) {
	id, err := one(args)
	if err != nil {
		return nil, "", err
	}
	ct, err := c.load(id)
	if err != nil {
		return nil, "", err
	}
	status, err := ct.status()
	return ct, status, err
}

// release lets the waiting init go on, and runs what has to run after it.
func (ct *container) release() error {
	if err := ociruntime.ReleaseFifo(ct.fifo()); err != nil {
		return err
	}
	if err := os.Remove(ct.fifo()); err != nil {
		return err
	}
	hooks := ct.job.Hooks.Poststart
	if len(hooks) == 0 {
		return nil
	}
	return ociruntime.RunHooks(hooks, ociruntime.HookState(ct.job, "running", ct.record.Pid))
}

// kill is the command of that name.
func (c *cli) kill(o options, args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return errs.New(errs.Invalid, "a container ID and a signal are needed")
	}
	sig := unix.SIGTERM
	if len(args) == 2 {
		var err error
		if sig, err = parseSignal(args[1]); err != nil {
			return err
		}
	}
	ct, status, err := c.find(args[:1])
	if err != nil {
		return err
	}
	if o.has("all") {
		g, err := ct.needGroup()
		if err != nil {
			return err
		}
		pids, err := g.Procs()
		for _, pid := range pids {
			if e := unix.Kill(pid, sig); e != nil && e != unix.ESRCH {
				err = errors.Join(err, fmt.Errorf("signal process %d: %w", pid, e))
			}
		}
		return err
	}
	if status == specs.StateStopped {
		return errs.New(errs.Conflict, "container not running")
	}
	return ct.signal(sig)
}

// signal reaches the container's init by a pidfd that is made before it is
// looked at again, so that no other process can be hit.
func (ct *container) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(ct.record.Pid, 0)
	if err != nil {
		return errs.New(errs.Conflict, "container not running: %w", err)
	}
	defer unix.Close(fd)
	if start, _, err := processStat(ct.record.Pid); err != nil || start != ct.record.StartTime {
		return errs.New(errs.Conflict, "container not running")
	}
	switch err := unix.PidfdSendSignal(fd, sig, nil, 0); err {
	case nil:
		return nil
	case unix.ESRCH: // it was reaped since it was looked at
		return errs.New(errs.Conflict, "container not running")
	default:
		return fmt.Errorf("signal container %s: %w", ct.record.ID, err)
	}
}

func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > 64 {
			return 0, errs.New(errs.Invalid, "signal %d does not exist", n)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, errs.New(errs.Invalid, "unknown signal %q", s)
}

// delete is the command of that name.
func (c *cli) delete(o options, args []string) error {
	ct, status, err := c.find(args)
	if errs.Is(err, errs.NotFound) && o.has("force") {
		return c.deleteRest(args)
	}
	if err != nil {
		return err
	}
	if status == specs.StateRunning || status == "paused" {
		if !o.has("force") {
			return errs.New(errs.Conflict, "cannot delete container %s that is not stopped: %s", ct.record.ID, status)
		}
	}
	if status != specs.StateStopped {
		if err := ct.end(c.ctx); err != nil {
			return err
		}
	}
	return ct.destroy()
}

// deleteRest removes the directory of a container whose creation was cut off.
func (c *cli) deleteRest(args []string) error {
	id, err := one(args)
	if err == nil {
		err = checkID(id)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(c.root, id))
}

// endWithin is how long a killed container may take to end.
const endWithin = 10 * time.Second

// end kills the container and waits until it is gone.
func (ct *container) end(ctx context.Context) error {
	if g, err := ct.group(); err == nil && g != nil {
		g.Kill()
	}
	if err := ct.signal(unix.SIGKILL); err != nil && !errs.Is(err, errs.Conflict) {
		return err
	}
	if _, err := os.Stat(filepath.Join(ct.dir, pausedFile)); err == nil {
		if err := ct.freeze(ctx, thaw); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(endWithin); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if status, err := ct.status(); err != nil || status == specs.StateStopped {
			return err
		}
	}
	return errs.New(errs.Unavailable, "container %s does not end", ct.record.ID)
}

// destroy removes everything of a container that has ended.
func (ct *container) destroy() error {
	g, err := ct.group()
	if err != nil {
		return err
	}
	if g != nil {
		if ct.job.Namespace(unix.CLONE_NEWPID) == nil || ct.job.Namespace(unix.CLONE_NEWPID).Path != "" {
			g.Kill() // what the end of a namespace has not
		}
		if err := g.Remove(); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(ct.dir); err != nil {
		return err
	}
	if len(ct.job.Hooks.Poststop) == 0 {
		return nil
	}
	if err := ociruntime.RunHooks(ct.job.Hooks.Poststop, ociruntime.HookState(ct.job, "stopped", 0)); err != nil {
		// The spec wants a warning and no failure.
		fmt.Fprintln(os.Stderr, "warning: poststop hook:", err)
	}
	return nil
}

type freezeHow uint8

const (
	freeze freezeHow = iota
	thaw
)

func (ct *container) freeze(ctx context.Context, how freezeHow) error {
	g, err := ct.needGroup()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	mark := filepath.Join(ct.dir, pausedFile)
	if how == thaw {
		if err := g.Thaw(ctx); err != nil {
			return err
		}
		return os.Remove(mark)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if err := g.Freeze(ctx); err != nil {
		return errors.Join(err, g.Thaw(ctx), os.Remove(mark))
	}
	return nil
}

// pause is the command of that name.
func (c *cli) pause(_ options, args []string) error {
	ct, status, err := c.find(args)
	if err != nil {
		return err
	}
	if status != specs.StateRunning && status != specs.StateCreated {
		return errs.New(errs.Conflict, "cannot pause a container that is %s", status)
	}
	return ct.freeze(c.ctx, freeze)
}

// resume is the command of that name.
func (c *cli) resume(_ options, args []string) error {
	ct, status, err := c.find(args)
	if err != nil {
		return err
	}
	if status != "paused" {
		return errs.New(errs.Conflict, "cannot resume a container that is %s", status)
	}
	return ct.freeze(c.ctx, thaw)
}
