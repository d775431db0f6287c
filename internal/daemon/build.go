package daemon

import (
	"context"

	"gantry/internal/build"
	"gantry/internal/disk"
	"gantry/internal/image"
	"gantry/internal/plan"
	"gantry/internal/wire"
)

// openBuilder makes the builder, of which nothing is open before the first build.
func (d *Daemon) openBuilder(p parts, l build.Launcher, defaults func() plan.Defaults) error {
	b, err := build.New(build.Options{
		Root: d.config.Load().Root, RunDir: d.config.Load().Run, Content: p.images.content, Names: image.Builds{Images: p.images.Images},
		Hosts: d.registries(p.images).client.Hosts, Launcher: l, Defaults: defaults, Log: d.log,
		Config: func() build.Config { return build.Config{} },
	})
	if err != nil {
		return err
	}
	d.builder = b
	d.later("builder", func(context.Context) error { return b.Close() })
	return nil
}

// buildCache is the builder's cache as the disk wants it.
type buildCache struct{ *build.Builder }

// Prune removes cache.
func (c buildCache) Prune(ctx context.Context, o disk.CachePrune) (wire.CachePruned, error) {
	return c.Builder.Prune(ctx, build.PruneOptions(o))
}
