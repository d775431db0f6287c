package container

import (
	"context"
	"slices"
	"strconv"
	"time"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

// selection is a checked filter of a list.
type selection struct {
	filters       filter.Args
	everything    bool // those that are down too
	exited        []int
	onlyTasks     bool
	before, since time.Time
	images        map[string]bool // IDs of the images that ancestor names; nil: not asked
	publish       []wire.PortRange
	expose        []wire.PortRange
}

// selection checks o's filters and looks up what they name.
func (c *core) selection(ctx context.Context, o ListOptions) (*selection, error) {
	f := o.Filters
	if err := f.Check(filter.Containers); err != nil {
		return nil, err
	}
	s := &selection{filters: f, everything: o.All || o.Limit > 0 || f.Has("status")}
	if err := s.checkWords(); err != nil {
		return nil, err
	}
	var err error
	if s.onlyTasks, err = f.Bool("is-task", filter.OtherwiseFalse); err != nil {
		return nil, err
	}
	for _, ref := range f.Values("before") {
		a, err := c.table.find(ref)
		if err != nil {
			return nil, err
		}
		if at := a.view().rec.CreatedAt; s.before.IsZero() || at.Before(s.before) {
			s.before = at
		}
	}
	for _, ref := range f.Values("since") {
		a, err := c.table.find(ref)
		if err != nil {
			return nil, err
		}
		if at := a.view().rec.CreatedAt; at.After(s.since) {
			s.since = at
		}
	}
	if f.Has("ancestor") {
		s.images = map[string]bool{}
		for _, ref := range f.Values("ancestor") {
			if id, ok := c.o.Images.Find(ctx, ref); ok {
				s.images[id] = true
			}
		}
	}
	if s.publish, err = portRanges(f, "publish"); err != nil {
		return nil, err
	}
	s.expose, err = portRanges(f, "expose")
	return s, err
}

// The values that status and health take.
var (
	statusWords = []string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}
	healthWords = []string{"none", "starting", "healthy", "unhealthy"}
)

func (s *selection) checkWords() error {
	for _, v := range s.filters.Values("status") {
		if !slices.Contains(statusWords, v) {
			return errs.New(errs.Invalid, "invalid filter 'status=%s': invalid value for state (%s): must be one of created, running, paused, restarting, removing, exited, dead", v, v)
		}
	}
	for _, v := range s.filters.Values("health") {
		if !slices.Contains(healthWords, v) {
			return errs.New(errs.Invalid, "invalid filter 'health=%s': invalid value for health (%s): must be one of none, starting, healthy, unhealthy", v, v)
		}
	}
	for _, v := range s.filters.Values("exited") {
		n, err := strconv.Atoi(v)
		if err != nil {
			return errs.New(errs.Invalid, "invalid filter 'exited=%s': %w", v, err)
		}
		s.exited = append(s.exited, n)
	}
	return nil
}

func portRanges(f filter.Args, key string) ([]wire.PortRange, error) {
	var out []wire.PortRange
	for _, v := range f.Values(key) {
		r, err := wire.ParsePortRange(v)
		if err != nil {
			return nil, errs.New(errs.Unknown, "error while looking up for %s %s: %w", key, v, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// matches reports whether a container is selected.
func (s *selection) matches(v *snapshot) bool {
	f, rec := s.filters, v.rec
	health := "none"
	if v.health != nil {
		health = string(v.health.Status)
	}
	isolation := string(rec.Plan.HostConfig.Isolation)
	if isolation == "" {
		isolation = "default"
	}
	switch {
	case !s.everything && !v.state.up(),
		!f.Prefix("id", rec.ID),
		!f.Pattern("name", rec.Name) && !f.Pattern("name", "/"+rec.Name),
		!f.Exact("status", string(v.status())),
		!f.Exact("health", health),
		!f.Exact("isolation", isolation),
		!f.Labels(rec.Plan.Labels),
		f.Has("is-task") && s.onlyTasks,
		!s.before.IsZero() && !rec.CreatedAt.Before(s.before),
		f.Has("before") && s.before.IsZero(), f.Has("since") && s.since.IsZero(),
		!s.since.IsZero() && !rec.CreatedAt.After(s.since),
		s.images != nil && !s.images[rec.Image.ID]:
		return false
	}
	return s.matchesExit(v) && s.matchesNetwork(v) && s.matchesVolume(v) && s.matchesPorts(v)
}

func (s *selection) matchesExit(v *snapshot) bool {
	if !s.filters.Has("exited") {
		return true
	}
	return v.state.Ran && !v.state.up() && slices.Contains(s.exited, v.state.ExitCode)
}

func (s *selection) matchesNetwork(v *snapshot) bool {
	if !s.filters.Has("network") {
		return true
	}
	for name, e := range v.endpoints() {
		if s.filters.Exact("network", name) || e.NetworkID != "" && s.filters.Exact("network", e.NetworkID) {
			return true
		}
	}
	return false
}

func (s *selection) matchesVolume(v *snapshot) bool {
	if !s.filters.Has("volume") {
		return true
	}
	for _, m := range v.rec.Plan.Mounts {
		if s.filters.Exact("volume", m.Target) || m.Name != "" && s.filters.Exact("volume", m.Name) {
			return true
		}
	}
	return false
}

// matchesPorts looks for publish among the host's ports and for expose among
// the container's.
func (s *selection) matchesPorts(v *snapshot) bool {
	if s.filters.Has("publish") {
		ok := false
		for _, p := range v.ports() {
			ok = ok || p.PublicPort != 0 && inRanges(s.publish, p.PublicPort, p.Type)
		}
		if !ok {
			return false
		}
	}
	if s.filters.Has("expose") {
		ok := false
		for p := range v.rec.Plan.Exposed {
			ok = ok || inRanges(s.expose, p.Num(), string(p.Proto()))
		}
		return ok
	}
	return true
}

func inRanges(list []wire.PortRange, port uint16, proto string) bool {
	for _, r := range list {
		if r.Start() <= port && port <= r.End() && string(r.Proto()) == proto {
			return true
		}
	}
	return false
}
