package daemon

import (
	"context"
	"fmt"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"gantry/internal/config"
	"gantry/internal/content"
	"gantry/internal/disk"
	"gantry/internal/doctor"
	"gantry/internal/errs"
	"gantry/internal/image"
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
type diskAPI struct {
	*disk.Disk
	keeper *disk.Keeper
}

// Budget returns how the disk budget stands.
func (d diskAPI) Budget() wire.DiskBudget { return d.keeper.State() }

// PruneCache removes build cache.
func (d diskAPI) PruneCache(ctx context.Context, o server.CachePrune) (wire.CachePruned, error) {
	return d.Disk.PruneCache(ctx, disk.CachePrune(o))
}

// openDisk opens what looks after the disk, and the jobs that do it.
func (d *Daemon) openDisk(ctx context.Context, p parts, sys *about) (diskAPI, jobAPI, error) {
	k := disk.New(disk.Options{Containers: d.engine, Images: p.images, Volumes: p.volumes, Networks: p.networks, Cache: buildCache{d.builder}, Events: d.bus})
	j, err := job.Open(ctx, disk.JobBooks(p.db))
	if err != nil {
		return diskAPI{}, jobAPI{}, err
	}
	d.later("jobs", func(context.Context) error { j.Close(); return nil })
	keeper, err := k.Keep(ctx, disk.KeeperOptions{
		Store: p.db, Jobs: j, Images: evictor{p.images.Images, p.images.content}, Budget: func() (disk.Budget, error) { return budgetOf(d.config.Load()) }, Logs: d.engine.LogBytes, Log: d.log,
	})
	if err != nil {
		return diskAPI{}, jobAPI{}, err
	}
	d.later("disk budget", func(context.Context) error { return keeper.Close() })
	p.images.touch, p.images.room, sys.budget = keeper.Touch, keeper.MakeRoom, keeper.State
	return diskAPI{k, keeper}, jobAPI{j, k}, nil
}

// budgetOf is the disk budget of a configuration.
func budgetOf(c *config.Config) (disk.Budget, error) {
	if c.DiskBudget == "" {
		return disk.Budget{}, nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(c.Root, &fs); err != nil {
		return disk.Budget{}, fmt.Errorf("size of the file system of %s: %w", c.Root, err)
	}
	return disk.ParseBudget(c.DiskBudget, int64(fs.Blocks)*fs.Frsize)
}

// evictor are the images as the keeper of the budget wants them.
type evictor struct {
	*image.Images
	content *content.Store
}

// Settle returns when the files of what was removed are deleted.
func (e evictor) Settle(ctx context.Context) error { return e.content.Settle(ctx) }

// budgetStatus shows the budget among the lines about the storage driver.
func budgetStatus(s wire.DiskBudget) [][2]string {
	if s.High == 0 {
		return nil
	}
	text := fmt.Sprintf("%s of %s used (images %s, build cache %s, logs %s)", units.HumanSize(float64(s.Used)), units.HumanSize(float64(s.High)),
		units.HumanSize(float64(s.Images)), units.HumanSize(float64(s.Cache)), units.HumanSize(float64(s.Logs)))
	if s.Over {
		text += ": too much"
	}
	return [][2]string{{"Disk budget", text}}
}

// budgetSource is a budget that can't be kept.
func budgetSource(state func() wire.DiskBudget) doctor.Source {
	return doctor.Source{Kind: "disk budget", List: func(context.Context) ([]doctor.Thing, error) {
		s := state()
		if !s.Over || s.Why == "" {
			return nil, nil
		}
		return []doctor.Thing{{Name: fmt.Sprintf("%s of %s used: %s", units.HumanSize(float64(s.Used)), units.HumanSize(float64(s.High)), s.Why), Owner: "?"}}, nil
	}}
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
