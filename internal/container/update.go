package container

import (
	"context"
	"strconv"
	"time"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// Prune removes the containers that are down and match, and says how much disk
// space they took.
func (c *Control) Prune(ctx context.Context, f filter.Args) (wire.ContainersPruned, error) {
	var out wire.ContainersPruned
	if err := f.Check(filter.ContainersPrune); err != nil {
		return out, err
	}
	until, err := parseUntil(f, time.Now())
	if err != nil {
		return out, err
	}
	for _, a := range c.table.all() {
		s := a.view()
		if s.state.Phase != Created && s.state.Phase != Exited && s.state.Phase != Dead || !f.Labels(s.rec.Plan.Labels) {
			continue
		}
		if !until.IsZero() && !s.rec.CreatedAt.Before(until) {
			continue
		}
		size := diskUsage(ctx, c.dir(a.id)+"/upper")
		if err := a.ask(ctx, Fact{Kind: AskRemove}); err != nil {
			if err := context.Cause(ctx); err != nil {
				return out, err
			}
			c.log.Info("container was not pruned", "id", a.id, "error", err)
			continue
		}
		out.ContainersDeleted = append(out.ContainersDeleted, a.id)
		out.SpaceReclaimed += uint64(size)
	}
	c.o.Events.Publish(wire.Event{Type: "container", Action: "prune", Actor: wire.EventActor{
		Attributes: map[string]string{"reclaimed": strconv.FormatUint(out.SpaceReclaimed, 10)},
	}})
	return out, nil
}

// parseUntil reads the moment before which something must have been made: a
// duration before now, a time, or seconds since 1970.
func parseUntil(f filter.Args, now time.Time) (time.Time, error) {
	values := f.Values("until")
	if len(values) == 0 {
		return time.Time{}, nil
	}
	if len(values) > 1 {
		return time.Time{}, errs.New(errs.Invalid, "more than one until filter specified")
	}
	v := values[0]
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	sec, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return time.Time{}, errs.New(errs.Invalid, "failed to parse value as time or duration: invalid seconds %q: invalid syntax", v)
	}
	return time.Unix(0, int64(sec*float64(time.Second))), nil
}

// Owned returns the IDs of the containers that have records, for whoever looks
// for what belongs to none.
func (c *Query) Owned() ([]string, error) {
	var ids []string
	err := c.o.Store.View(func(tx *store.Tx) error {
		ids = records.Keys(tx)
		return nil
	})
	return ids, err
}
