package container

import (
	"context"
	"strconv"
	"time"

	"gantry/internal/filter"
	"gantry/internal/launch"
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
	until, err := f.Until(time.Now())
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
		size := launch.UpperUsage(ctx, c.dir(a.id)+"/upper")
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
