package daemon

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/image"
	"gantry/internal/lazy"
	"gantry/internal/remote"
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

// Convert converts an image.
func (t imageTools) Convert(ctx context.Context, o server.ImageConvert, tell func(wire.Progress)) (wire.ImageConverted, error) {
	return image.NewTools(t.images.Images).Convert(ctx, image.ConvertOptions{From: o.From, To: o.To, Platforms: o.Platforms, Done: lazy.Packed, Pack: lazy.Pack}, tell)
}

// Verify verifies images.
func (t imageTools) Verify(ctx context.Context, o server.ImageVerify) (wire.ImageCheck, error) {
	return image.NewTools(t.images.Images).Verify(ctx, image.VerifyOptions{Names: o.Names, Repair: o.Repair, Fetch: func(ctx context.Context, repository string, d ocispec.Descriptor, take func(io.Reader) error) error {
		n, err := remote.ParseName(repository, "")
		if err != nil {
			return err
		}
		return t.registry.client.Again(ctx, n, remote.AuthFor(o.Auth, n), d, take)
	}})
}
