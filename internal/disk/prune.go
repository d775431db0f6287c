package disk

import (
	"context"
	"maps"
	"slices"
	"time"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/job"
	"gantry/internal/wire"
)

// A pruneStep prunes one kind of thing and adds to the report.
type pruneStep struct {
	kind string // as requests name it, and as the type of its events
	what string // as people do
	keys filter.Keys
	run  func(ctx context.Context, f filter.Args, r *wire.PruneReport) error
}

// pruneSteps returns every step, in the order in which things let go of others.
func (d *Disk) pruneSteps(req wire.PruneRequest) []pruneStep {
	all := req.All
	return []pruneStep{
		{"container", "containers", filter.ContainersPrune, func(ctx context.Context, f filter.Args, r *wire.PruneReport) error {
			out, err := d.o.Containers.Prune(ctx, f)
			r.ContainersDeleted, r.SpaceReclaimed = out.ContainersDeleted, r.SpaceReclaimed+out.SpaceReclaimed
			return err
		}},
		{"network", "networks", filter.NetworksPrune, func(ctx context.Context, f filter.Args, r *wire.PruneReport) error {
			out, err := d.o.Networks.Prune(ctx, f)
			r.NetworksDeleted = out.NetworksDeleted
			return err
		}},
		{"volume", "volumes", filter.VolumesPrune, func(ctx context.Context, f filter.Args, r *wire.PruneReport) error {
			if req.NamedVolumes {
				f = f.With("all", "true")
			}
			out, err := d.o.Volumes.Prune(ctx, f)
			r.VolumesDeleted, r.SpaceReclaimed = out.VolumesDeleted, r.SpaceReclaimed+out.SpaceReclaimed
			return err
		}},
		{"image", "images", filter.ImagesPrune, func(ctx context.Context, f filter.Args, r *wire.PruneReport) error {
			if all {
				f = f.With("dangling", "false")
			}
			out, err := d.o.Images.Prune(ctx, f)
			r.ImagesDeleted, r.SpaceReclaimed = out.ImagesDeleted, r.SpaceReclaimed+out.SpaceReclaimed
			return err
		}},
		{"build-cache", "build cache", filter.BuildPrune, func(ctx context.Context, f filter.Args, r *wire.PruneReport) error {
			out, err := d.PruneCache(ctx, CachePrune{All: all, Filters: f})
			r.CachesDeleted, r.SpaceReclaimed = out.CachesDeleted, r.SpaceReclaimed+out.SpaceReclaimed
			return err
		}},
	}
}

// plannedSteps chooses the steps of a request. Pure. A filter must be known to
// every kind that was named; what was not named and does not know a filter is
// left alone, since it could not be chosen by it.
func plannedSteps(steps []pruneStep, req wire.PruneRequest) ([]pruneStep, error) {
	for _, k := range req.Kinds {
		if !slices.ContainsFunc(steps, func(s pruneStep) bool { return s.kind == k }) {
			return nil, errs.New(errs.Invalid, "unknown object type: %s", k)
		}
	}
	f := filter.Args(req.Filters)
	if _, err := f.Until(time.Now()); err != nil {
		return nil, err
	}
	var out []pruneStep
	used := map[string]bool{}
	for _, s := range steps {
		named := slices.Contains(req.Kinds, s.kind)
		if !named && (len(req.Kinds) > 0 || s.kind == "volume") {
			continue
		}
		if err := f.Check(s.keys); err != nil {
			if named {
				return nil, err
			}
			continue
		}
		for k := range maps.Keys(f) {
			used[k] = true
		}
		out = append(out, s)
	}
	for _, k := range slices.Sorted(maps.Keys(f)) {
		if !used[k] {
			return nil, errs.New(errs.Invalid, "invalid filter '%s'", k)
		}
	}
	return out, nil
}

// PruneJob returns the work of a job that prunes. Its report is a
// wire.PruneReport. Bad requests are errs.Invalid at once.
func (d *Disk) PruneJob(req wire.PruneRequest) (job.Work, error) {
	steps, err := plannedSteps(d.pruneSteps(req), req)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, tell func(wire.JobProgress)) (any, error) {
		var r wire.PruneReport
		p := wire.JobProgress{Steps: len(steps)}
		for _, s := range steps {
			p.Step, p.Doing, p.SpaceReclaimed = p.Step+1, s.what, r.SpaceReclaimed
			tell(p)
			follow := d.follow(&p, s.kind, tell)
			err := s.run(ctx, maps.Clone(filter.Args(req.Filters)), &r)
			follow()
			if err == nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				return r, err
			}
		}
		p.Doing, p.SpaceReclaimed = "", r.SpaceReclaimed
		tell(p)
		return r, nil
	}, nil
}

// follow tells what is removed meanwhile, as the events of the kind say, until
// the function that it returns is called.
func (d *Disk) follow(p *wire.JobProgress, kind string, tell func(wire.JobProgress)) (stop func()) {
	_, sub := d.o.Events.Subscribe(time.Time{})
	over := make(chan struct{})
	go func() {
		defer close(over)
		for e := range sub.C {
			if string(e.Type) != kind || e.Action != "destroy" && e.Action != "delete" {
				continue
			}
			p.Removed++
			p.Last = e.Actor.ID
			if n := e.Actor.Attributes["name"]; n != "" && n != e.Actor.ID {
				p.Last = n
			}
			tell(*p)
		}
	}()
	return func() { sub.Close(); <-over }
}
