// Package disk knows what the daemon's data occupies and how to get space back:
// it adds up the usage of containers, images, volumes and build cache, prunes
// them, alone or in the background (package job), and keeps the disk budget.
//
// The API and the daemon's wiring call it. Whatever it removes, it removes
// through the owners of the things, who refuse what is in use; the package
// writes nothing itself but the notes of the budget, and must not know how
// anything is stored.
package disk

import (
	"context"
	"slices"
	"strconv"
	"time"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/filter"
	"gantry/internal/keyed"
	"gantry/internal/wire"
)

// Containers is what the package needs of the engine.
type Containers interface {
	// Usage returns all containers with SizeRw and SizeRootFs.
	Usage(ctx context.Context) ([]wire.ContainerSummary, error)
	Prune(ctx context.Context, f filter.Args) (wire.ContainersPruned, error)
}

// Images is what the package needs of the images.
type Images interface {
	Usage(ctx context.Context) (wire.ImageDiskUsage, error)
	Prune(ctx context.Context, f filter.Args) (wire.ImagesPruned, error)
}

// Networks is what the package needs of the networks.
type Networks interface {
	Prune(ctx context.Context, f filter.Args) (wire.NetworksPruned, error)
}

// Volumes is what the package needs of the volumes.
type Volumes interface {
	// Usage returns all volumes with UsageData.
	Usage(ctx context.Context) ([]wire.Volume, error)
	Prune(ctx context.Context, f filter.Args) (wire.VolumesPruned, error)
}

// Cache is what the package needs of the builder.
type Cache interface {
	Usage(ctx context.Context) ([]wire.CacheRecord, error)
	Prune(ctx context.Context, o CachePrune) (wire.CachePruned, error)
}

// CachePrune says what of the build cache to remove.
type CachePrune struct {
	All     bool        // what images are made of too
	Filters filter.Args // description, id, inuse, parent, private, shared, type, until
	// Bytes to keep of the cache, bytes that it may have at most, and bytes
	// that shall be free on the disk; 0 for no such rule.
	Reserved, MaxUsed, MinFree int64
}

// Options is what a Disk works with.
type Options struct {
	Containers Containers
	Images     Images
	Volumes    Volumes
	Networks   Networks
	Cache      Cache // nil: nothing is built
	Events     *event.Bus
}

// A Disk answers what occupies the disk. It is safe for concurrent use.
type Disk struct {
	o       Options
	flights keyed.Flight[string, wire.DiskUsage]
}

// New returns the disk of a daemon. There is nothing to close.
func New(o Options) *Disk { return &Disk{o: o} }

// Usage tells what things of the kinds occupy, of all kinds if none is named.
// Those who ask the same while it is being found out get one answer.
func (d *Disk) Usage(ctx context.Context, kinds ...wire.DiskObject) (wire.DiskUsage, error) {
	if len(kinds) == 0 {
		kinds = []wire.DiskObject{wire.DiskContainers, wire.DiskImages, wire.DiskVolumes, wire.DiskCache}
	}
	kinds = slices.Compact(slices.Sorted(slices.Values(kinds)))
	key := ""
	for _, k := range kinds {
		key += string(k) + " "
	}
	return d.flights.Do(ctx, key, func(ctx context.Context) (wire.DiskUsage, error) { return d.measure(ctx, kinds) })
}

func (d *Disk) measure(ctx context.Context, kinds []wire.DiskObject) (u wire.DiskUsage, err error) {
	for _, k := range kinds {
		switch k {
		case wire.DiskContainers:
			var list []wire.ContainerSummary
			if list, err = d.o.Containers.Usage(ctx); err == nil {
				u.ContainerUsage = containerUsage(list)
			}
		case wire.DiskImages:
			var i wire.ImageDiskUsage
			if i, err = d.o.Images.Usage(ctx); err == nil {
				u.ImageUsage = &i
			}
		case wire.DiskVolumes:
			var list []wire.Volume
			if list, err = d.o.Volumes.Usage(ctx); err == nil {
				u.VolumeUsage = volumeUsage(list)
			}
		case wire.DiskCache:
			list := []wire.CacheRecord{}
			if d.o.Cache != nil {
				list, err = d.o.Cache.Usage(ctx)
			}
			u.BuildCacheUsage = cacheUsage(list)
		}
		if err != nil {
			return wire.DiskUsage{}, err
		}
	}
	return u, nil
}

// containerUsage adds up containers: those that are up are active.
func containerUsage(list []wire.ContainerSummary) *wire.ContainerDiskUsage {
	u := &wire.ContainerDiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, c := range list {
		u.TotalSize += c.SizeRw
		switch c.State {
		case "running", "paused", "restarting":
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	return u
}

// volumeUsage adds up volumes: those that a container has claimed are active.
// What a device holds is not known and counts nothing.
func volumeUsage(list []wire.Volume) *wire.VolumeDiskUsage {
	u := &wire.VolumeDiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, v := range list {
		if v.UsageData == nil {
			continue
		}
		size := max(v.UsageData.Size, 0)
		u.TotalSize += size
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += size
		}
	}
	return u
}

// cacheUsage adds up the build cache. What an image shares is the image's.
func cacheUsage(list []wire.CacheRecord) *wire.CacheDiskUsage {
	u := &wire.CacheDiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, r := range list {
		u.TotalSize += r.Size
		if r.InUse {
			u.ActiveCount++
		} else if !r.Shared {
			u.Reclaimable += r.Size
		}
	}
	return u
}

// PruneCache removes build cache.
func (d *Disk) PruneCache(ctx context.Context, o CachePrune) (wire.CachePruned, error) {
	var out wire.CachePruned
	err := o.Filters.Check(filter.BuildPrune)
	if err == nil {
		if _, e := o.Filters.Until(time.Now()); e != nil {
			err = errs.New(errs.Invalid, "\"until\" filter expects a duration (e.g., '24h') or a timestamp: %w", e)
		}
	}
	if err == nil && d.o.Cache != nil {
		out, err = d.o.Cache.Prune(ctx, o)
	}
	if err != nil {
		return out, errs.New(errs.KindOf(err), "failed to prune build cache: %w", err)
	}
	d.o.Events.Publish(wire.Event{Type: "builder", Action: "prune", Actor: wire.EventActor{
		Attributes: map[string]string{"reclaimed": strconv.FormatUint(out.SpaceReclaimed, 10)},
	}})
	return out, nil
}
