package daemon

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"gantry/internal/container"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

// stopContainers stops what runs, the last started first, if the configuration
// says that containers do not outlive the daemon. What has not stopped within
// the shutdown timeout is killed.
func (d *Daemon) stopContainers(ctx context.Context, signal string) {
	c := d.config.Load()
	if c.LiveRestore {
		d.log.Info("ending; containers go on", "signal", signal)
		return
	}
	d.log.Info("ending; containers are stopped", "signal", signal)
	list, err := d.engine.List(ctx, container.ListOptions{Filters: filter.Args{}})
	if err != nil {
		d.log.Error("containers can't be stopped", "err", err)
		return
	}
	end, cancel := context.WithTimeout(ctx, shutdownTime(c))
	defer cancel()
	rest := d.startedLast(ctx, list)
	for len(rest) > 0 && end.Err() == nil {
		if err := d.engine.Stop(end, rest[0], container.StopOptions{}); err != nil && end.Err() == nil {
			d.log.Warn("a container was not stopped", "id", rest[0], "err", err)
		}
		if end.Err() == nil {
			rest = rest[1:]
		}
	}
	var wg sync.WaitGroup
	for _, id := range rest {
		wg.Go(func() {
			last, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			now := 0
			if err := d.engine.Stop(last, id, container.StopOptions{Signal: "KILL", Timeout: &now}); err != nil {
				d.log.Warn("a container was not killed", "id", id, "err", err)
			}
		})
	}
	wg.Wait()
}

// startedLast returns the containers' ids, the last started first.
func (d *Daemon) startedLast(ctx context.Context, list []wire.ContainerSummary) []string {
	type one struct{ id, at string }
	var all []one
	for _, s := range list {
		if c, err := d.engine.Inspect(ctx, s.ID, container.InspectOptions{}); err == nil && c.State != nil {
			all = append(all, one{s.ID, c.State.StartedAt})
		}
	}
	slices.SortStableFunc(all, func(a, b one) int { return strings.Compare(b.at, a.at) })
	ids := make([]string, len(all))
	for i, o := range all {
		ids[i] = o.id
	}
	return ids
}
