package container

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gantry/internal/durable"
	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/plan"
	"gantry/internal/shim"
)

// execNote is what is written of an exec while it runs, so that the next daemon
// can tell of it: a file in the container's run directory, which goes with the
// container. Those of health checks are not written: the next daemon makes its
// own.
type execNote struct {
	ID   string
	Pid  int
	Plan *plan.ExecPlan
}

const execNotePrefix = "exec."

// execAsk bounds how long a shim may take to say whether an exec runs.
const execAsk = 5 * time.Second

func (c *Execs) notePath(x *execution) string {
	return filepath.Join(c.runDir(x.actor.id), execNotePrefix+x.id)
}

// note writes down that x runs. That a note is lost hurts no exec.
func (c *Execs) note(x *execution) {
	data, err := json.Marshal(execNote{x.id, x.pid, x.plan})
	if err == nil {
		err = durable.Replace(c.notePath(x), data, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("can't note an exec", "id", x.actor.id, "exec", x.id, "error", err)
	}
}

// forgetNote removes the note of x, if there is one, and the shim's of its end.
func (c *Execs) forgetNote(x *execution) {
	if _, err := shim.TakeExecExit(c.runDir(x.actor.id), x.id); err != nil && !errs.Is(err, errs.NotFound) {
		c.log.Warn("the end of an exec stays", "id", x.actor.id, "exec", x.id, "error", err)
	}
	if err := os.Remove(c.notePath(x)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("the note of an exec stays", "id", x.actor.id, "exec", x.id, "error", err)
	}
}

// adopt finds the execs of a container that an earlier daemon has started: those
// that run, and those that ended since, whose exit codes the shim has written down.
// r is nil if the container has ended. What they print goes nowhere: its client
// went with the daemon.
func (c *Execs) adopt(ctx context.Context, a *actor, r *launch.Running) {
	found, err := os.ReadDir(c.runDir(a.id))
	if err != nil {
		return
	}
	for _, e := range found {
		if !strings.HasPrefix(e.Name(), execNotePrefix) {
			continue
		}
		var n execNote
		data, err := os.ReadFile(filepath.Join(c.runDir(a.id), e.Name()))
		if err == nil {
			err = json.Unmarshal(data, &n)
		}
		if err != nil || n.Plan == nil || len(n.Plan.Process.Args) == 0 || e.Name() != execNotePrefix+n.ID {
			c.log.Warn("the note of an exec can't be read", "id", a.id, "file", e.Name(), "error", err)
			continue
		}
		x := &execution{id: n.ID, actor: a, plan: n.Plan, ready: make(chan struct{}), over: make(chan struct{}), stage: execRunning, pid: n.Pid, noted: true}
		close(x.ready)
		c.execs.add(x)
		if r == nil {
			c.ended(x, c.lastExit(x))
			continue
		}
		proc := r.Client.Resume(n.ID, n.Pid)
		ask, cancel := context.WithTimeout(ctx, execAsk)
		err = proc.Signal(ask, 0)
		cancel()
		if err != nil {
			c.ended(x, c.lastExit(x))
			continue
		}
		x.mu.Lock()
		x.proc = proc
		x.mu.Unlock()
		c.tasks.Go(func() { c.watch(x, proc) })
	}
}

// lastExit tells how an exec ended that the shim knows no more.
func (c *Execs) lastExit(x *execution) int {
	exit, err := shim.TakeExecExit(c.runDir(x.actor.id), x.id)
	switch {
	case err == nil:
		return exit.Code
	case !errs.Is(err, errs.NotFound):
		c.log.Warn("the end of an exec can't be read", "id", x.actor.id, "exec", x.id, "error", err)
	}
	return 128 + int(syscall.SIGKILL) // it was killed with its container
}

// watch notes the end of a running exec.
func (c *Execs) watch(x *execution, proc shim.Exec) {
	exit, err := proc.Wait(c.ctx)
	if err != nil {
		if c.ctx.Err() != nil {
			return
		}
		exit.Code = c.lastExit(x)
	}
	c.ended(x, exit.Code)
}

// ended notes how x has ended.
func (c *Execs) ended(x *execution, code int) {
	if x.noted {
		c.forgetNote(x)
	}
	x.mu.Lock()
	pid := x.pid
	x.mu.Unlock()
	x.finish(code, pid)
	x.actor.tellOf("exec_die", "execID", x.id, "exitCode", strconv.Itoa(code))
}
