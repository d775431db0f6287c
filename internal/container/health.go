package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"syscall"
	"time"

	"gantry/internal/plan"
	"gantry/internal/shim"
	"gantry/internal/wire"
)

// Bounds of what is kept of probes, as Docker's.
const (
	healthLog    = 5    // results
	healthOutput = 4096 // bytes of output each
)

// nextHealth is the state of health after a probe. It is pure: h is not
// changed. A failure within the start period does not count as long as no probe
// has succeeded.
func nextHealth(h *wire.Health, r wire.HealthResult, p *plan.Health, startedAt time.Time) *wire.Health {
	n := &wire.Health{Status: "starting"}
	if h != nil {
		n.Status, n.FailingStreak = h.Status, h.FailingStreak
		n.Log = append(n.Log, h.Log...)
	}
	n.Log = append(n.Log, &r)
	if len(n.Log) > healthLog {
		n.Log = n.Log[len(n.Log)-healthLog:]
	}
	switch {
	case r.ExitCode == 0:
		n.Status, n.FailingStreak = "healthy", 0
	case n.Status == "starting" && r.Start.Sub(startedAt) < p.StartPeriod:
	default:
		if n.FailingStreak++; n.FailingStreak >= p.Retries {
			n.Status = "unhealthy"
		}
	}
	return n
}

// probeAfter is how long to wait before the next probe.
func probeAfter(h *wire.Health, p *plan.Health, since time.Duration) time.Duration {
	if h.Status == "starting" && since < p.StartPeriod && p.StartInterval > 0 {
		return min(p.StartInterval, max(p.Interval, p.StartInterval))
	}
	return p.Interval
}

// beginHealth begins probing, if the container has a health check. A container
// that was only paused keeps its state of health.
func (a *actor) beginHealth() {
	p := a.now.rec.Plan.Health
	if p == nil {
		return
	}
	if a.now.health == nil || a.now.state.StartedAt.After(a.healthSince) {
		a.now.health, a.healthSince = &wire.Health{Status: "starting", Log: []*wire.HealthResult{}}, a.now.state.StartedAt
		a.publish()
	}
	ctx, cancel := context.WithCancel(a.core.ctx)
	a.probing = cancel
	started := a.now.state.StartedAt
	a.core.tasks.Go(func() { probe(ctx, a, p, started) })
}

func (a *actor) endHealth() {
	if a.probing != nil {
		a.probing()
		a.probing = nil
	}
}

// probe runs the health check again and again until ctx ends.
func probe(ctx context.Context, a *actor, p *plan.Health, started time.Time) {
	for {
		h := a.view().health
		select {
		case <-ctx.Done():
			return
		case <-time.After(probeAfter(h, p, time.Since(started))):
		}
		r := (&Execs{a.core}).probeOnce(ctx, a, p)
		if ctx.Err() != nil {
			return
		}
		err := a.as(ctx, func() error {
			if ctx.Err() != nil {
				return nil // it ended in between
			}
			before := a.now.health
			a.now.health = nextHealth(before, r, p, started)
			if a.now.health.Status != before.Status {
				a.announce("health_status: " + string(a.now.health.Status))
			}
			return nil
		})
		if err != nil {
			return
		}
	}
}

// probeOnce runs the health check and says how it went. A probe that can't be
// run, or does not end in time, has the exit code -1.
func (c *Execs) probeOnce(ctx context.Context, a *actor, p *plan.Health) wire.HealthResult {
	r := wire.HealthResult{Start: time.Now(), ExitCode: -1}
	s := a.view()
	e, err := plan.Exec(wire.ExecCreate{Cmd: p.Args, AttachStdout: true, AttachStderr: true}, s.rec.Plan, s.rec.Plan.Hostname(s.rec.ID))
	var x *execution
	if err == nil {
		x, err = c.newExec(ctx, a, e)
	}
	var stream shim.Stream
	if err == nil {
		x.begin()
		stream, err = c.run(ctx, x, shim.Streams{Stdout: true, Stderr: true})
	}
	if err != nil {
		r.End, r.Output = time.Now(), err.Error()
		return r
	}
	out := make(chan string, 1)
	c.tasks.Go(func() { out <- readFrames(stream, healthOutput); stream.Close() })
	var limit <-chan time.Time
	if p.Timeout > 0 {
		t := time.NewTimer(p.Timeout)
		defer t.Stop()
		limit = t.C
	}
	select {
	case r.Output = <-out:
		r.End = time.Now()
		select {
		case <-x.over:
			r.ExitCode = *x.exitCode()
		case <-ctx.Done():
		case <-limit:
		}
	case <-limit:
		r.End, r.Output = time.Now(), fmt.Sprintf("Health check exceeded timeout (%v)", p.Timeout)
		x.kill(ctx, syscall.SIGKILL)
		stream.Close()
	case <-ctx.Done():
		x.kill(context.WithoutCancel(ctx), syscall.SIGKILL)
		stream.Close()
	}
	return r
}

// readFrames returns the first limit bytes of payload of a framed stream, and
// reads it to its end.
func readFrames(r io.Reader, limit int) string {
	var out bytes.Buffer
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			return out.String()
		}
		n := int64(binary.BigEndian.Uint32(head[4:]))
		take := min(n, int64(limit-out.Len()))
		if _, err := io.CopyN(&out, r, take); err != nil {
			return out.String()
		}
		if _, err := io.CopyN(io.Discard, r, n-take); err != nil {
			return out.String()
		}
	}
}
