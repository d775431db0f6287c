package daemon

import (
	"context"

	"gantry/internal/content"
	"gantry/internal/disk"
	"gantry/internal/doctor"
	"gantry/internal/errs"
	"gantry/internal/job"
	"gantry/internal/server"
	"gantry/internal/wire"
)

// layerSource are directories of image layers that the image stores do not have
// in their books.
func layerSource(s *content.Store) doctor.Source {
	return doctor.Source{Kind: "layer", List: func(ctx context.Context) ([]doctor.Thing, error) {
		strays, err := s.Strays(ctx)
		var list []doctor.Thing
		for _, dir := range strays {
			list = append(list, doctor.Thing{Name: dir, Owner: "?"})
		}
		return list, err
	}, Remove: func(ctx context.Context, _ doctor.Thing) error { return s.Sweep(ctx) }}
}

// diskAPI is the disk as the API wants it.
type diskAPI struct{ *disk.Disk }

// PruneCache removes build cache.
func (d diskAPI) PruneCache(ctx context.Context, o server.CachePrune) (wire.CachePruned, error) {
	return d.Disk.PruneCache(ctx, disk.CachePrune(o))
}

// openDisk opens what looks after the disk, and the jobs that do it.
func (d *Daemon) openDisk(ctx context.Context, p parts) (diskAPI, jobAPI) {
	k := disk.New(disk.Options{Containers: d.engine, Images: p.images, Volumes: p.volumes, Networks: p.networks, Events: d.bus})
	j := job.New(ctx)
	d.later("jobs", func(context.Context) error { j.Close(); return nil })
	return diskAPI{k}, jobAPI{j, k}
}

// jobAPI are the jobs as the API wants them.
type jobAPI struct {
	*job.Jobs
	disk *disk.Disk
}

// Start begins the job that is asked for.
func (a jobAPI) Start(_ context.Context, r wire.JobRequest) (wire.Job, error) {
	switch r.Kind {
	case "prune":
		var what wire.PruneRequest
		if r.Prune != nil {
			what = *r.Prune
		}
		work, err := a.disk.PruneJob(what)
		if err != nil {
			return wire.Job{}, err
		}
		return a.Jobs.Start(r.Kind, work)
	}
	return wire.Job{}, errs.New(errs.Invalid, "unknown kind of job: %q", r.Kind)
}
