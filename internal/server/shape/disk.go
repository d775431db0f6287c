package shape

import (
	"slices"

	"gantry/internal/wire"
)

// diskUsage is the answer about disk usage: the lists of old, and from 1.52 on
// the summaries too.
type diskUsage struct {
	LayersSize *int64                  `json:",omitempty"`
	Images     []any                   `json:",omitzero"`
	Containers []wire.ContainerSummary `json:",omitzero"`
	Volumes    []wire.Volume           `json:",omitzero"`
	BuildCache []wire.CacheRecord      `json:",omitzero"`
	wire.DiskUsage
}

// DiskUsage forms the answer about disk usage. Since 1.52 verbose leaves the
// older lists out. What images and containers consist of does not depend on the
// version here, as recorded, but for VirtualSize.
func DiskUsage(u wire.DiskUsage, v int, verbose Verbose) any {
	if c := u.ContainerUsage; c != nil { // as recorded: containers come without their image's manifest
		own := *c
		own.Items = slices.Clone(c.Items)
		for i := range own.Items {
			own.Items[i].ImageManifestDescriptor = nil
		}
		u.ContainerUsage = &own
	}
	if v >= 1052 && verbose {
		return u
	}
	var d diskUsage
	if i := u.ImageUsage; i != nil {
		d.LayersSize, d.Images = &i.TotalSize, Images(i.Items, 1051)
		if v < 1044 {
			for n, img := range i.Items {
				d.Images[n] = oldSummary{img, img.Size}
			}
		}
	}
	if c := u.ContainerUsage; c != nil {
		d.Containers = append([]wire.ContainerSummary{}, c.Items...)
	}
	if vol := u.VolumeUsage; vol != nil {
		d.Volumes = append([]wire.Volume{}, vol.Items...)
	}
	if b := u.BuildCacheUsage; b != nil {
		d.BuildCache = append([]wire.CacheRecord{}, b.Items...)
	}
	if v >= 1052 {
		d.DiskUsage = u
	}
	return d
}

// Verbose says that details were asked for.
type Verbose bool
