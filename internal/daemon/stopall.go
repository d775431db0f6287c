package daemon

import (
	"context"
	"sync"
	"time"

	"gantry/internal/container"
	"gantry/internal/errs"
)

// stopContainers stops what runs, each before what it was to come after, if the
// configuration says that containers do not outlive the daemon. What has not
// stopped within the shutdown timeout is killed. Restart policies hold for the
// next daemon.
func (d *Daemon) stopContainers(ctx context.Context, signal string) {
	c := d.config.Load()
	if c.LiveRestore {
		d.log.Info("ending; containers go on", "signal", signal)
		return
	}
	d.log.Info("ending; containers are stopped", "signal", signal)
	end, cancel := context.WithTimeout(ctx, shutdownTime(c))
	defer cancel()
	defer d.extensions.Halt() // containers may need them until they have ended
	for _, wave := range d.engine.StopOrder() {
		var wg sync.WaitGroup
		for _, name := range wave {
			wg.Go(func() { d.stopContainer(ctx, end, name) })
		}
		wg.Wait()
	}
}

// stopContainer stops one container until end, and then kills it.
func (d *Daemon) stopContainer(ctx, end context.Context, name string) {
	o := container.StopOptions{Halt: true}
	err := end.Err()
	if err == nil {
		err = d.engine.Stop(end, name, o)
	}
	if end.Err() != nil {
		last, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		now := 0
		o.Signal, o.Timeout = "KILL", &now
		err = d.engine.Stop(last, name, o)
	}
	if err != nil && !errs.Is(err, errs.NoChange) {
		d.log.Warn("a container was not stopped", "name", name, "err", err)
	}
}
