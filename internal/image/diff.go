package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	trees "gantry/internal/archive"
	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/overlay"
	"gantry/internal/wire"
)

// Diff tells how the image to differs from the image from. Both are unpacked if
// they are not yet.
func (s *Tools) Diff(ctx context.Context, from, to string, p *ocispec.Platform) (wire.ImageDiff, error) {
	var d wire.ImageDiff
	a, err := s.Resolve(ctx, from, p)
	if err != nil {
		return d, err
	}
	b, err := s.Resolve(ctx, to, p)
	if err != nil {
		return d, err
	}
	ctx, release, err := s.store.Hold(ctx)
	if err != nil {
		return d, err
	}
	defer release()
	if err := s.store.Keep(ctx, a.ID, b.ID); err != nil {
		return d, err
	}
	d.From, d.To = a.ID.String(), b.ID.String()
	if d.Config, err = configDiff(a, b); err != nil {
		return d, err
	}
	for d.Shared < min(len(a.Layers), len(b.Layers)) && a.Layers[d.Shared].DiffID == b.Layers[d.Shared].DiffID {
		d.Shared++
	}
	d.Files = []wire.FileDiff{}
	if a.ChainID != b.ChainID {
		if err := s.fileDiff(ctx, a, b, &d); err != nil {
			return d, err
		}
	}
	d.FromLayers, err = s.ownLayers(ctx, a, d.Shared)
	if err == nil {
		d.ToLayers, err = s.ownLayers(ctx, b, d.Shared)
	}
	return d, err
}

func (s *Tools) fileDiff(ctx context.Context, a, b *Image, d *wire.ImageDiff) error {
	var at [2]string
	for n, i := range []*Image{a, b} {
		dirs, err := s.Lower(ctx, i)
		if err != nil {
			return err
		}
		fd, err := openTree(dirs)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		at[n] = fmt.Sprintf("/proc/self/fd/%d/.", fd) // a name that is no link
	}
	list, err := trees.Compare(ctx, at[0], at[1], trees.Seen)
	for _, c := range list {
		d.Files = append(d.Files, wire.FileDiff{Path: c.Path, Kind: wire.FilesystemChangeKind(c.Kind), Old: c.Old, New: c.New})
	}
	return err
}

// openTree opens what layers, topmost first, show together.
func openTree(dirs []string) (int, error) {
	switch len(dirs) {
	case 0:
		return -1, errs.New(errs.Invalid, "an image without layers has no files to compare")
	case 1:
		return unix.Open(dirs[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	return overlay.Mount(overlay.Layers{Lower: dirs}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
}

// ownLayers lists the layers from number n on, with what made them.
func (s *Tools) ownLayers(ctx context.Context, i *Image, n int) ([]wire.ImageDiffLayer, error) {
	var made []string
	for _, h := range i.Config.History {
		if !h.EmptyLayer {
			made = append(made, h.CreatedBy)
		}
	}
	list := []wire.ImageDiffLayer{}
	for ; n < len(i.Layers); n++ {
		l := wire.ImageDiffLayer{DiffID: i.Layers[n].DiffID.String()}
		if len(made) == len(i.Layers) {
			l.CreatedBy = made[n]
		}
		used, err := s.store.Usage(ctx, content.Chain(i.Layers, n+1))
		if err != nil {
			return nil, err
		}
		l.Size = used
		list = append(list, l)
	}
	return list, nil
}

// configDiff compares what two images say of how they are run, and of what for.
func configDiff(a, b *Image) ([]wire.ConfigDiff, error) {
	var sides [2]map[string]json.RawMessage
	for n, i := range []*Image{a, b} {
		data, err := json.Marshal(i.Config.Config)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &sides[n]); err != nil {
			return nil, err
		}
		if sides[n]["Platform"], err = json.Marshal(i.Platform); err != nil {
			return nil, err
		}
	}
	fields := map[string]bool{}
	for _, m := range sides {
		for f := range m {
			fields[f] = true
		}
	}
	list := []wire.ConfigDiff{}
	for f := range fields {
		if !bytes.Equal(sides[0][f], sides[1][f]) {
			list = append(list, wire.ConfigDiff{Field: f, Old: sides[0][f], New: sides[1][f]})
		}
	}
	slices.SortFunc(list, func(x, y wire.ConfigDiff) int { return bytes.Compare([]byte(x.Field), []byte(y.Field)) })
	return list, nil
}

// Tools compare and verify the images of a store.
type Tools struct{ *Images }

// NewTools returns the tools for images.
func NewTools(s *Images) *Tools { return &Tools{s} }
