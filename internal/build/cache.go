package build

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

// A GCRule bounds a part of the cache. Sizes are in bytes; 0 is no bound.
type GCRule struct {
	All          bool // internal records too
	Filter       []string
	KeepDuration time.Duration // nothing younger goes
	Reserved     int64         // that many are kept anyway
	MaxUsed      int64         // more are not kept
	MinFree      int64         // what shall be free on the disk
}

func policies(rules []GCRule) []client.PruneInfo {
	var list []client.PruneInfo
	for _, r := range rules {
		list = append(list, client.PruneInfo{
			All: r.All, Filter: r.Filter, KeepDuration: r.KeepDuration, ReservedSpace: r.Reserved, MaxUsedSpace: r.MaxUsed, MinFreeSpace: r.MinFree,
		})
	}
	return list
}

// PruneOptions say what of the cache to remove.
type PruneOptions struct {
	All     bool        // what images are made of too
	Filters filter.Args // description, id, inuse, parent, private, shared, type, until
	// Bytes, 0 for no such rule: as in GCRule.
	Reserved, MaxUsed, MinFree int64
}

// Usage returns the records of the cache; none if nothing was built yet.
func (b *Builder) Usage(ctx context.Context) ([]wire.CacheRecord, error) {
	if !b.exists() {
		return []wire.CacheRecord{}, nil
	}
	e, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	list, err := e.worker.DiskUsage(ctx, client.DiskUsageInfo{})
	if err != nil {
		return nil, err
	}
	out := make([]wire.CacheRecord, 0, len(list))
	for _, u := range list {
		out = append(out, wire.CacheRecord{
			ID: u.ID, Parents: u.Parents, Type: string(u.RecordType), Description: u.Description,
			InUse: u.InUse, Shared: u.Shared, Size: u.Size, CreatedAt: u.CreatedAt, LastUsedAt: u.LastUsedAt, UsageCount: u.UsageCount,
		})
	}
	return out, nil
}

// Prune removes cache that no build uses.
func (b *Builder) Prune(ctx context.Context, o PruneOptions) (wire.CachePruned, error) {
	info, err := pruneInfo(o, time.Now())
	if err != nil || !b.exists() {
		return wire.CachePruned{}, err
	}
	e, err := b.open(ctx)
	if err != nil {
		return wire.CachePruned{}, err
	}
	ch := make(chan client.UsageInfo)
	var out wire.CachePruned
	var wg sync.WaitGroup
	wg.Go(func() {
		for u := range ch {
			out.CachesDeleted = append(out.CachesDeleted, u.ID)
			out.SpaceReclaimed += uint64(max(u.Size, 0))
		}
	})
	err = e.worker.Prune(ctx, ch, info)
	close(ch)
	wg.Wait()
	return out, err
}

// pruneFilters are the keys of filters, with BuildKit's names for them.
var pruneFilters = [...]string{"id", "parent", "type", "description", "inuse", "shared", "private"}

// pruneInfo puts options into BuildKit's words. Pure.
func pruneInfo(o PruneOptions, now time.Time) (client.PruneInfo, error) {
	info := client.PruneInfo{All: o.All, ReservedSpace: o.Reserved, MaxUsedSpace: o.MaxUsed, MinFreeSpace: o.MinFree}
	if err := o.Filters.Check(filter.BuildPrune); err != nil {
		return info, err
	}
	if o.Filters.Has("until") {
		before, err := o.Filters.Until(now)
		if err != nil {
			return info, err
		}
		info.KeepDuration = now.Sub(before)
	}
	var parts []string
	for _, key := range pruneFilters {
		for _, v := range slices.Sorted(maps.Keys(o.Filters[key])) {
			switch key {
			case "inuse", "shared", "private":
				switch strings.ToLower(v) {
				case "", "1", "true":
					parts = append(parts, key)
				case "0", "false":
					return info, errs.New(errs.Invalid, "filter %q can only be true", key)
				default:
					return info, errs.New(errs.Invalid, "invalid filter '%s=%s'", key, v)
				}
			default:
				op := "=="
				if key == "id" {
					op = "~="
				}
				parts = append(parts, key+op+v)
			}
		}
	}
	if len(parts) > 0 {
		info.Filter = []string{strings.Join(parts, ",")}
	}
	return info, nil
}
