package container

import (
	"context"
	"slices"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/plan"
	"gantry/internal/wire"
)

// How long a start by the daemon waits for those that it is to come after: for
// one that comes up, and for one that shows no sign of it. Then the container is
// started all the same: a service that tries again is worth more than one that
// stays down since another does.
const (
	afterPatience = 2 * time.Minute
	afterGrace    = 3 * time.Second
)

// order is the part of the core that knows who comes after whom.
type order struct{ *core }

// standing is how another container looks to one that waits for it.
type standing uint8

const (
	standsUp standing = iota // as far as is asked
	standsComing
	standsDown // and nothing is under way
	standsNowhere
)

// standingOf judges what is seen of a container, nil if there is none. It is pure.
func standingOf(d plan.After, s *snapshot) standing {
	switch {
	case s == nil, s.state.Phase == Removing, s.state.Phase == Removed, s.state.Phase == Dead:
		return standsNowhere
	case s.state.Phase == Running, s.state.Phase == Paused:
		if d.Healthy && s.rec.Plan.Health != nil && (s.health == nil || s.health.Status != "healthy") {
			return standsComing
		}
		return standsUp
	case s.state.Phase == Created, s.state.Phase == Exited:
		return standsDown
	}
	return standsComing
}

// lacking returns those of after that are not up as asked, and whether there is
// none among them that may still come.
func (c order) lacking(after []plan.After) (names []string, hopeless bool) {
	hopeless = true
	for _, d := range after {
		var seen *snapshot
		if a, err := c.table.find(d.Container); err == nil {
			seen = a.view()
		}
		switch standingOf(d, seen) {
		case standsUp:
			continue
		case standsComing:
			hopeless = false
		}
		names = append(names, d.String())
	}
	return names, hopeless
}

// startsAfter is what a container is to come after: what its user said, and whom
// it needs by its links and by the namespaces that it joins.
func startsAfter(p *plan.Plan) []plan.After {
	out := slices.Clone(p.After)
	for _, l := range p.Links {
		out = append(out, plan.After{Container: l.Container})
	}
	for _, n := range []plan.Namespace{p.Namespaces.Network, p.Namespaces.PID, p.Namespaces.IPC, p.Namespaces.UTS} {
		if n.Mode == plan.Container {
			out = append(out, plan.After{Container: n.Container})
		}
	}
	return out
}

// awaitOthers returns when those that rec is to come after are up, when there is
// no point in waiting longer, or when ctx ends.
func (c order) awaitOthers(ctx context.Context, rec *Record) {
	after := startsAfter(rec.Plan)
	if len(after) == 0 {
		return
	}
	began := time.Now()
	tick := time.NewTicker(afterGrace / 3)
	defer tick.Stop()
	for {
		changed := c.bell.next()
		names, hopeless := c.lacking(after)
		waited := time.Since(began)
		switch {
		case len(names) == 0:
			return
		case hopeless && waited >= afterGrace, waited >= afterPatience:
			c.log.Warn("container is started before what it is to come after", "id", rec.ID, "name", rec.Name, "missing", names, "waited", waited.Round(time.Millisecond))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// afterMap is what every container is to come after, by name. Containers that are
// named by their IDs are found.
func (c order) afterMap() map[string][]plan.After {
	out := map[string][]plan.After{}
	for _, a := range c.table.all() {
		rec := a.view().rec
		out[rec.Name] = c.afterByName(startsAfter(rec.Plan))
	}
	return out
}

func (c order) afterByName(list []plan.After) []plan.After {
	list = slices.Clone(list)
	for i, d := range list {
		if a, err := c.table.find(d.Container); err == nil {
			list[i].Container = a.view().rec.Name
		}
	}
	return list
}

// checkAfter refuses a container of that name whose start would wait for itself,
// and warns of those that do not exist.
func (c order) checkAfter(name string, after []plan.After) (warnings []string, err error) {
	if len(after) == 0 {
		return nil, nil
	}
	for _, d := range after {
		a, err := c.table.find(d.Container)
		switch {
		case errs.Is(err, errs.Invalid):
			return nil, err // ambiguous
		case err != nil && d.Container != name:
			warnings = append(warnings, "--after "+d.String()+": there is no such container yet; starts by the daemon go on without it")
		case err == nil && d.Healthy && a.view().rec.Plan.Health == nil:
			return nil, errs.New(errs.Invalid, "invalid --after %q: container %s has no health check", d, a.view().rec.Name)
		}
	}
	others := c.afterMap()
	delete(others, name)
	if chain := plan.Cycle(name, c.afterByName(after), others); name != "" && chain != nil {
		return nil, errs.New(errs.Invalid, "invalid --after: the containers would wait for each other: %s", strings.Join(chain, " → "))
	}
	return warnings, nil
}

// StopOrder returns the names of the containers that are up, as waves: those of
// one wave can be stopped at the same time, after the waves before it.
func (c *Query) StopOrder() [][]string {
	after := order{c.core}.afterMap()
	for _, a := range c.table.all() {
		if s := a.view(); !s.state.up() {
			delete(after, s.rec.Name)
		}
	}
	return plan.StopWaves(after)
}

// extra is what inspect shows beyond Docker; nil for nothing.
func (c order) extra(s *snapshot) *wire.InspectExtra {
	p := s.rec.Plan
	if len(p.After) == 0 && s.lost.Entries == 0 && p.NetRate == (wire.NetRate{}) {
		return nil
	}
	w := &wire.InspectExtra{LogLost: s.lost.Entries}
	if p.NetRate != (wire.NetRate{}) {
		w.NetRate = &p.NetRate
	}
	for _, d := range s.rec.Plan.After {
		w.After = append(w.After, d.String())
	}
	if s.state.Phase == Starting {
		w.WaitingFor, _ = c.lacking(s.rec.Plan.After)
	}
	return w
}
