package daemon

import (
	"context"
	"io"
	"strings"

	"gantry/internal/build"
	"gantry/internal/build/classic"
	"gantry/internal/container"
	"gantry/internal/errs"
	"gantry/internal/image"
	"gantry/internal/wire"
)

// classicBuilder serves the API's own builds through the builder.
func (d *Daemon) classicBuilder(p parts, r registryAPI) *classic.Builder {
	c := d.config.Load()
	return classic.New(classic.Options{
		Connect: d.builder.Client, Begin: d.builder.Begin, Dir: c.Root, Limits: p.images.content.Limits(), Experimental: c.Experimental,
		Squash: func(ctx context.Context, id, base string, names []string) (string, error) {
			got, err := image.Builds{Images: p.images.Images}.Squash(ctx, id, base, names)
			return got.String(), err
		},
		Network: func(ctx context.Context, mode string) (string, func(), error) { return buildNetwork(ctx, d, mode) },
		Triggers: func(ctx context.Context, id string) []string {
			i, err := p.images.Images.Resolve(ctx, id, nil)
			if err != nil {
				return nil // gone meanwhile: what it would do is told by what is done
			}
			return i.Config.Config.OnBuild
		},
		Fetch: func(ctx context.Context, url string) (io.ReadCloser, error) {
			return r.client.Download(ctx, url, func(wire.Progress) {})
		},
	})
}

// buildNetwork lets the steps of a build be on one of the daemon's networks, or
// a container's.
func buildNetwork(ctx context.Context, d *Daemon, mode string) (string, func(), error) {
	n := build.Network{Mode: mode}
	if of, ok := strings.CutPrefix(mode, "container:"); ok {
		c, err := d.engine.Inspect(ctx, of, container.InspectOptions{})
		if err != nil {
			return "", nil, err
		}
		if c.State == nil || !c.State.Running {
			return "", nil, errs.New(errs.Conflict, "cannot join network of a non running container: %s", c.ID)
		}
		n.Mode, n.Joins.Network, n.Joins.NetworkPID = "container:"+c.ID, c.ID, c.State.Pid
	}
	return d.builder.OnNetwork(ctx, n)
}
