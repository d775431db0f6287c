package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"
	"sync"
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
	cutOff       = "..."
)

// nextHealth is the state of health after a probe. It is pure: h is not
// changed. A failure within the start period does not count as long as no probe
// has succeeded.
func nextHealth(h *wire.Health, r wire.HealthResult, p *plan.Health, startedAt time.Time) *wire.Health {
	n := copyHealth(h)
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

func copyHealth(h *wire.Health) *wire.Health {
	n := &wire.Health{Status: "starting", Log: []*wire.HealthResult{}}
	if h != nil {
		n.Status, n.FailingStreak = h.Status, h.FailingStreak
		n.Log = append(n.Log, h.Log...)
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

// endHealth ends probing. One whose process has ended is not healthy, as Docker
// has it.
func (a *actor) endHealth() {
	if a.probing != nil {
		a.probing()
		a.probing = nil
	}
	if a.now.state.Phase == Ending && a.now.health != nil {
		h := copyHealth(a.now.health)
		h.Status = "unhealthy"
		a.now.health = h
		a.publish()
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
		var r wire.HealthResult
		if p.Probe != nil {
			r = probeNatively(ctx, a, p)
		} else {
			r = (&Execs{a.core}).probeOnce(ctx, a, p)
		}
		if ctx.Err() != nil {
			return
		}
		if told := a.core.o.Probed; told != nil {
			told(r.ExitCode, time.Since(r.Start))
		}
		err := a.as(ctx, func() error {
			if ctx.Err() != nil {
				return nil // it ended in between
			}
			noteHealth(a, nextHealth(a.now.health, r, p, started))
			return nil
		})
		if err != nil {
			return
		}
	}
}

// noteHealth takes over a new state of health. It is written down only when its
// status changes, not at every probe.
func noteHealth(a *actor, h *wire.Health) {
	before := a.now.health
	a.now.health = h
	if before == nil || h.Status != before.Status {
		a.announce("health_status: " + string(h.Status))
		a.save()
	}
	if h.Status == "unhealthy" {
		a.follow = append(a.follow, letter{fact: Fact{Kind: IsUnhealthy, At: time.Now()}})
	}
	a.core.bell.ring()
}

// probeNatively makes a probe of the daemon's own, in the container's network.
func probeNatively(ctx context.Context, a *actor, p *plan.Health) wire.HealthResult {
	c := a.core
	r := wire.HealthResult{Start: time.Now(), ExitCode: 1}
	s := a.view()
	netns := fmt.Sprintf("/proc/%d/ns/net", s.pid)
	if s.sandbox != nil && s.sandbox.Path != "" {
		netns = s.sandbox.Path
	}
	hosts := s.rec.ID
	if n := s.rec.Plan.Namespaces.Network; n.Mode == plan.Container {
		if other, err := c.table.find(n.Container); err == nil {
			hosts = other.id
		}
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if p.Timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, p.Timeout)
	}
	defer cancel()
	out, err := c.o.Prober.Probe(limited, netns, filepath.Join(c.dir(hosts), "hosts"), p.Probe)
	r.End = time.Now()
	switch {
	case err == nil:
		r.ExitCode, r.Output = 0, out
	case limited.Err() != nil && ctx.Err() == nil:
		r.ExitCode, r.Output = -1, fmt.Sprintf("Health check exceeded timeout (%v)", p.Timeout)
	default:
		r.Output = err.Error()
	}
	if len(r.Output) > healthOutput {
		r.Output = r.Output[:healthOutput] + cutOff
	}
	return r
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
	out := newTail(stream)
	c.tasks.Go(func() { out.read(); stream.Close() })
	var limit <-chan time.Time
	if p.Timeout > 0 {
		t := time.NewTimer(p.Timeout)
		defer t.Stop()
		limit = t.C
	}
	select {
	case <-out.done:
		r.End, r.Output = time.Now(), out.text()
		select {
		case <-x.over:
			r.ExitCode = *x.exitCode()
			return r
		case <-ctx.Done():
			return r
		case <-limit: // it has closed its output, and goes on
		}
	case <-limit:
	case <-ctx.Done():
		x.kill(context.WithoutCancel(ctx), syscall.SIGKILL)
		stream.Close()
		return r
	}
	r.End, r.Output = time.Now(), fmt.Sprintf("Health check exceeded timeout (%v)", p.Timeout)
	if text := out.text(); text != "" {
		r.Output += ": " + text
	}
	x.kill(ctx, syscall.SIGKILL)
	stream.Close()
	return r
}

// A tail reads a framed stream to its end and keeps the first bytes of it.
type tail struct {
	r    io.Reader
	done chan struct{} // closed at the end

	mu   sync.Mutex
	kept bytes.Buffer
	more bool // than is kept
}

func newTail(r io.Reader) *tail { return &tail{r: r, done: make(chan struct{})} }

func (t *tail) read() {
	defer close(t.done)
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(t.r, head); err != nil {
			return
		}
		if _, err := io.CopyN(t, t.r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return
		}
	}
}

// Write keeps what there is room for.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(p), healthOutput-t.kept.Len())
	t.kept.Write(p[:n])
	t.more = t.more || n < len(p)
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.more {
		return t.kept.String() + cutOff
	}
	return t.kept.String()
}
