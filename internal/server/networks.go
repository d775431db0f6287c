package server

import (
	"context"
	"net/http"
	"strconv"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/server/shape"
	"gantry/internal/wire"
)

// Networks knows the networks of this machine.
type Networks interface {
	List(ctx context.Context, f filter.Args) ([]wire.NetworkInspect, error)
	Inspect(ctx context.Context, ref string) (wire.NetworkInspect, error)
	Create(ctx context.Context, c wire.NetworkCreate) (wire.NetworkCreated, error)
	Remove(ctx context.Context, ref string) error
	Prune(ctx context.Context, f filter.Args) (wire.NetworksPruned, error)
}

// Members puts containers on networks and takes them off.
type Members interface {
	Connect(ctx context.Context, ref string, c wire.NetworkConnect) error
	Disconnect(ctx context.Context, ref string, d wire.NetworkDisconnect) error
}

// networks answers for /networks.
type networks struct {
	store   Networks
	members Members
}

func (s *networks) routes() []route {
	return []route{
		{method: "GET", pattern: "/networks", serve: s.list},
		{method: "GET", pattern: "/networks/", serve: s.list},
		{method: "GET", pattern: "/networks/{id}", serve: s.inspect},
		{method: "POST", pattern: "/networks/create", serve: s.create},
		{method: "POST", pattern: "/networks/prune", serve: s.prune},
		{method: "POST", pattern: "/networks/{id}/connect", serve: s.connect},
		{method: "POST", pattern: "/networks/{id}/disconnect", serve: s.disconnect},
		{method: "DELETE", pattern: "/networks/{id}", serve: s.remove},
	}
}

func (s *networks) list(w http.ResponseWriter, r *request) error {
	f, err := r.filters(filter.Networks)
	if err != nil {
		return err
	}
	list, err := s.store.List(r.Context(), f)
	if err != nil {
		return err
	}
	return ok(w, shape.Networks(list))
}

func (s *networks) inspect(w http.ResponseWriter, r *request) error {
	if v := r.query.Get("verbose"); v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return errs.New(errs.Invalid, "invalid value for verbose: %s: %w", v, err)
		}
	}
	n, err := s.store.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	if scope := r.query.Get("scope"); scope != "" && scope != n.Scope {
		return errs.New(errs.NotFound, "network %s not found", r.name)
	}
	return ok(w, shape.Network(n, int(r.v)))
}

func (s *networks) create(w http.ResponseWriter, r *request) error {
	var c wire.NetworkCreate
	if err := r.decodeIfAny(w, &c); err != nil {
		return err
	}
	resp, err := s.store.Create(act(r), c)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, resp)
}

// connect puts a container on a network.
func (s *networks) connect(w http.ResponseWriter, r *request) error {
	var c wire.NetworkConnect
	if err := r.decodeIfAny(w, &c); err != nil {
		return err
	}
	return s.members.Connect(act(r), r.name, c)
}

// disconnect takes a container off a network.
func (s *networks) disconnect(w http.ResponseWriter, r *request) error {
	var d wire.NetworkDisconnect
	if err := r.decodeIfAny(w, &d); err != nil {
		return err
	}
	return s.members.Disconnect(act(r), r.name, d)
}

func (s *networks) remove(w http.ResponseWriter, r *request) error {
	if err := s.store.Remove(act(r), r.name); err != nil {
		return err
	}
	return noContent(w)
}

func (s *networks) prune(w http.ResponseWriter, r *request) error {
	f, err := r.filters(filter.NetworksPrune)
	if err != nil {
		return err
	}
	resp, err := s.store.Prune(act(r), f)
	if err != nil {
		return err
	}
	return ok(w, resp)
}
