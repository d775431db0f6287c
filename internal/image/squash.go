package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	trees "gantry/internal/archive"
	"gantry/internal/content"
	"gantry/internal/errs"
)

// Squash makes an image of the layers of base, which the image ref begins with,
// and of one layer with all that ref's others have changed. Its history says what
// ref's does, of steps without layers. It gets the names, in full; ref, if it
// has none, goes. base is empty for an image made of nothing.
func (s Builds) Squash(ctx context.Context, ref, base string, names []string) (digest.Digest, error) {
	i, err := s.Resolve(ctx, ref, nil)
	if err != nil {
		return "", err
	}
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	keep, err := s.common(held, i, base)
	if err != nil {
		return "", err
	}
	if _, err := s.Lower(held, i); err != nil {
		return "", err
	}
	added, err := s.changesLayer(held, func(w io.Writer) (int, error) { return s.squashed(held, i, keep, w) })
	if err != nil {
		return "", err
	}
	target, err := s.assemble(held, squashedConfig(s, i, keep, base, added == nil), append(slices.Clone(i.Layers[:keep]), layersOf(added)...))
	if err != nil {
		return "", err
	}
	if len(names) == 0 {
		names = []string{""}
	}
	for _, n := range names {
		if err := s.Built(held, n, target); err != nil {
			return "", err
		}
	}
	if target.Digest != i.ID && len(i.Names) == 0 {
		if _, err := s.Remove(ctx, i.ID.String(), RemoveOptions{Force: true}); err != nil && !errs.Is(err, errs.NotFound) {
			return "", err
		}
	}
	return target.Digest, nil
}

func layersOf(l *content.Layer) []content.Layer {
	if l == nil {
		return nil
	}
	return []content.Layer{*l}
}

// common counts the layers that an image has of the one it is built on.
func (s Builds) common(ctx context.Context, i *Image, base string) (int, error) {
	if base == "" {
		return 0, nil
	}
	b, err := s.Resolve(ctx, base, &i.Platform)
	if err != nil {
		return 0, fmt.Errorf("squash: the base image: %w", err)
	}
	n := 0
	for n < min(len(b.Layers), len(i.Layers)) && b.Layers[n].DiffID == i.Layers[n].DiffID {
		n++
	}
	if n < len(b.Layers) {
		return 0, errs.New(errs.Unknown, "squash: the image does not begin with its base")
	}
	return n, nil
}

// squashed writes what the layers above the first keep have changed, as a layer.
func (s Builds) squashed(ctx context.Context, i *Image, keep int, w io.Writer) (int, error) {
	var at [2]string
	for n, chain := range []digest.Digest{content.Chain(i.Layers, keep), i.ChainID} {
		if chain == "" {
			empty, err := os.MkdirTemp("", "squash-")
			if err != nil {
				return 0, err
			}
			defer os.Remove(empty)
			at[n] = empty
			continue
		}
		dirs, err := s.store.Dirs(ctx, chain)
		if err != nil {
			return 0, err
		}
		fd, err := openTree(dirs)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		at[n] = fmt.Sprintf("/proc/self/fd/%d/.", fd)
	}
	return trees.Upper{Dir: at[1], Lower: []string{at[0]}, Whole: true}.WriteLayer(ctx, w, nil)
}

// squashedConfig is the configuration of an image whose steps above the base's
// have a single layer.
func squashedConfig(s Builds, i *Image, keep int, base string, none bool) (c dockerspec.DockerOCIImage) { //nolint:revive // none is a fact
	c = i.Config
	now := s.now().UTC()
	c.Created, c.History = &now, slices.Clone(c.History)
	layers := 0
	for n, h := range c.History {
		if !h.EmptyLayer {
			if layers++; layers > keep {
				c.History[n].EmptyLayer = true
			}
		}
	}
	if base == "" {
		base = "scratch"
	}
	c.History = append(c.History, ocispec.History{Created: &now, Comment: fmt.Sprintf("merge %s to %s", i.ID, base), EmptyLayer: none})
	return c
}
