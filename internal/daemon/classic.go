package daemon

import (
	"context"
	"io"

	"gantry/internal/build/classic"
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
		Fetch: func(ctx context.Context, url string) (io.ReadCloser, error) {
			return r.client.Download(ctx, url, func(wire.Progress) {})
		},
	})
}
