package server

import (
	"context"
	"net/http"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

// Volumes knows the volumes of this machine.
type Volumes interface {
	List(ctx context.Context, f filter.Args) (wire.VolumeList, error)
	Inspect(ctx context.Context, name string) (wire.Volume, error)
	Create(ctx context.Context, c wire.VolumeCreate) (wire.Volume, error)
	Remove(ctx context.Context, name string, o VolumeRemove) error
	Prune(ctx context.Context, f filter.Args) (wire.VolumesPruned, error)
}

// VolumeRemove says how to remove a volume.
type VolumeRemove struct {
	Force bool // what is not there is removed already
}

// volumes answers for /volumes.
type volumes struct{ store Volumes }

func (s *volumes) routes() []route {
	return []route{
		{method: "GET", pattern: "/volumes", serve: s.list},
		{method: "GET", pattern: "/volumes/{name}", serve: s.inspect},
		{method: "POST", pattern: "/volumes/create", serve: s.create},
		{method: "POST", pattern: "/volumes/prune", serve: s.prune},
		{method: "PUT", pattern: "/volumes/{name}", serve: s.update},
		{method: "DELETE", pattern: "/volumes/{name}", serve: s.remove},
	}
}

func (s *volumes) list(w http.ResponseWriter, r *request) error {
	f, err := filter.Parse(r.query.Get("filters"))
	if err != nil {
		return errs.New(errs.Invalid, "error reading volume filters: %w", err)
	}
	if err := f.Check(filter.Volumes); err != nil {
		return err
	}
	list, err := s.store.List(r.Context(), f)
	if err != nil {
		return err
	}
	if list.Volumes == nil {
		list.Volumes = []wire.Volume{}
	}
	return ok(w, list)
}

func (s *volumes) inspect(w http.ResponseWriter, r *request) error {
	v, err := s.store.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	return ok(w, v)
}

func (s *volumes) create(w http.ResponseWriter, r *request) error {
	var c wire.VolumeCreate
	if err := r.decodeIfAny(w, &c); err != nil {
		return err
	}
	if c.ClusterVolumeSpec != nil {
		return noCluster(w, r)
	}
	v, err := s.store.Create(act(r), c)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

// update is for the volumes of a cluster.
func (s *volumes) update(http.ResponseWriter, *request) error {
	return errs.New(errs.Unavailable, "volume update only valid for cluster volumes, but swarm is unavailable")
}

func (s *volumes) remove(w http.ResponseWriter, r *request) error {
	if err := s.store.Remove(act(r), r.name, VolumeRemove{Force: r.flag("force")}); err != nil {
		return err
	}
	return noContent(w)
}

// prune removes unused volumes: before 1.42 all of them, since then those
// without a name unless all is asked for.
func (s *volumes) prune(w http.ResponseWriter, r *request) error {
	f, err := r.filters(filter.VolumesPrune)
	if err != nil {
		return err
	}
	if _, err := f.All(); err != nil {
		return err
	}
	if r.v < 1042 {
		f = f.With("all", "true")
	}
	resp, err := s.store.Prune(act(r), f)
	if err != nil {
		return err
	}
	if resp.VolumesDeleted == nil {
		resp.VolumesDeleted = []string{}
	}
	return ok(w, resp)
}
