package volume

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/store"
	"gantry/internal/wire"
)

// List returns the volumes that pass the filters dangling, driver, label and
// name, in order of their names. Another key is errs.Invalid.
// Those that plugins have and nobody here has made are among them.
func (v *Volumes) List(ctx context.Context, f filter.Args) (wire.VolumeList, error) {
	out := wire.VolumeList{Volumes: []wire.Volume{}}
	if err := f.Check(filter.Volumes); err != nil {
		return out, err
	}
	dangling, err := f.Bool("dangling", filter.OtherwiseFalse)
	if err != nil {
		return out, err
	}
	foreign, status, warnings := v.foreign(ctx)
	out.Warnings = warnings
	err = v.db.View(func(tx *store.Tx) error {
		var by map[string][]string
		if f.Has("dangling") {
			by = users(tx)
		}
		var all []record
		for _, r := range volumes.All(tx) {
			all = append(all, r)
		}
		for _, r := range foreign {
			if !volumes.Has(tx, r.Name) {
				all = append(all, r)
			}
		}
		slices.SortFunc(all, func(a, b record) int { return strings.Compare(a.Name, b.Name) })
		for _, r := range all {
			if f.Has("dangling") && dangling != (len(by[r.Name]) == 0) {
				continue
			}
			if f.Exact("driver", r.Driver) && f.Labels(r.Labels) && f.Pattern("name", r.Name) {
				w := v.wire(r)
				if !r.local() {
					w.Status = status[r.Name]
				}
				out.Volumes = append(out.Volumes, w)
			}
		}
		return nil
	})
	return out, err
}

// Usage returns every volume with UsageData: how many containers claim it, and
// the bytes of its files (-1 for a device). It reads all directories.
func (v *Volumes) Usage(ctx context.Context) ([]wire.Volume, error) {
	var all []record
	var by map[string][]string
	err := v.db.View(func(tx *store.Tx) error {
		by = users(tx)
		for _, r := range volumes.All(tx) {
			all = append(all, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := []wire.Volume{}
	for _, r := range all {
		w := v.wire(r)
		w.UsageData = &wire.VolumeUsage{RefCount: int64(len(by[r.Name])), Size: -1}
		if r.local() && len(r.Options) == 0 {
			if w.UsageData.Size, err = v.local.Size(ctx, r.Name); err != nil {
				return nil, err
			}
		}
		out = append(out, w)
	}
	return out, nil
}

// Prune removes the volumes that no container claims: the anonymous ones, or
// with the filter `all` every one that is not a device. `label` and `label!`
// choose among them.
func (v *Volumes) Prune(ctx context.Context, f filter.Args) (wire.VolumesPruned, error) {
	out := wire.VolumesPruned{VolumesDeleted: []string{}}
	if err := f.Check(filter.VolumesPrune); err != nil {
		return out, err
	}
	everything, err := f.All()
	if err != nil {
		return out, err
	}
	var victims []string
	err = v.db.View(func(tx *store.Tx) error {
		by := users(tx)
		for _, r := range volumes.All(tx) {
			_, anonymous := r.Labels[Anonymous]
			if r.local() && len(by[r.Name]) == 0 && f.Labels(r.Labels) && (anonymous || everything && len(r.Options) == 0) {
				victims = append(victims, r.Name)
			}
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	for _, name := range victims {
		size, err := v.local.Size(ctx, name)
		if err != nil {
			return out, err
		}
		err = v.remove(ctx, name, RemoveOptions{})
		if errs.Is(err, errs.Conflict) || errs.Is(err, errs.NotFound) {
			continue // claimed or removed in the meantime
		}
		if err != nil {
			return out, err
		}
		out.VolumesDeleted = append(out.VolumesDeleted, name)
		out.SpaceReclaimed += uint64(size)
	}
	if v.events != nil {
		v.events.Publish(wire.Event{Type: "volume", Action: "prune", Actor: wire.EventActor{
			Attributes: map[string]string{"reclaimed": strconv.FormatUint(out.SpaceReclaimed, 10)},
		}})
	}
	return out, nil
}

// Strays returns the directories and mounts below the volumes' directory that
// no record owns.
func (v *Volumes) Strays(context.Context) ([]string, error) {
	there, err := v.local.Existing()
	if err != nil {
		return nil, err
	}
	var out []string
	err = v.db.View(func(tx *store.Tx) error {
		for _, name := range there {
			if !volumes.Has(tx, name) {
				out = append(out, v.local.Path(name))
			}
		}
		return nil
	})
	return out, err
}
