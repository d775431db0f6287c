package daemon

import (
	"context"

	"gantry/internal/image"
	"gantry/internal/server"
	"gantry/internal/wire"
)

// imageTools are the tools for images as the API wants them.
type imageTools struct {
	images   *imageStore
	registry registryAPI
}

// Diff compares two images.
func (t imageTools) Diff(ctx context.Context, from, to string) (wire.ImageDiff, error) {
	return image.NewTools(t.images.Images).Diff(ctx, from, to, nil)
}

// Verify verifies images.
func (t imageTools) Verify(ctx context.Context, names []string, r server.Repair) (wire.ImageCheck, error) {
	return image.NewTools(t.images.Images).Verify(ctx, image.VerifyOptions{Names: names, Repair: bool(r), Fetch: func(ctx context.Context, name string) error {
		return t.registry.Pull(ctx, server.ImagePull{Name: name}, func(wire.Progress) {})
	}})
}
