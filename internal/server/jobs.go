package server

import (
	"context"
	"net/http"

	"gantry/internal/wire"
)

// Jobs is work that goes on without a client. Beyond Docker.
type Jobs interface {
	Start(ctx context.Context, r wire.JobRequest) (wire.Job, error)
	List() []wire.Job
	// Get and Watch take an id or the beginning of one. They read the report.
	Get(ref string) (wire.Job, error)
	Watch(ctx context.Context, ref string, fn func(wire.Job) error) error
	// Cancel ends a job, or forgets one that has ended.
	Cancel(ctx context.Context, ref string) (wire.Job, error)
}

// jobs answers for /gantry/jobs.
type jobs struct{ jobs Jobs }

func (s *jobs) routes() []route {
	return []route{
		{method: "GET", pattern: "/gantry/jobs", serve: s.list},
		{method: "POST", pattern: "/gantry/jobs", serve: s.start},
		{method: "GET", pattern: "/gantry/jobs/{id}/progress", serve: s.watch},
		{method: "GET", pattern: "/gantry/jobs/{id}", serve: s.get},
		{method: "DELETE", pattern: "/gantry/jobs/{id}", serve: s.cancel},
	}
}

func (s *jobs) list(w http.ResponseWriter, _ *request) error { return ok(w, s.jobs.List()) }

func (s *jobs) start(w http.ResponseWriter, r *request) error {
	var req wire.JobRequest
	if err := r.decode(w, &req); err != nil {
		return err
	}
	j, err := s.jobs.Start(act(r), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, j)
}

func (s *jobs) get(w http.ResponseWriter, r *request) error {
	j, err := s.jobs.Get(r.name)
	if err != nil {
		return err
	}
	return ok(w, j)
}

// watch streams a job, as JSON on a line, at each change until it has ended.
func (s *jobs) watch(w http.ResponseWriter, r *request) error {
	began := false
	return s.jobs.Watch(r.Context(), r.name, func(j wire.Job) error {
		if !began {
			w.Header().Set("Content-Type", "application/jsonl")
			w.WriteHeader(http.StatusOK)
			began = true
		}
		err := encode(w, j)
		flush(w)
		return err
	})
}

func (s *jobs) cancel(w http.ResponseWriter, r *request) error {
	j, err := s.jobs.Cancel(r.Context(), r.name)
	if err != nil {
		return err
	}
	return ok(w, j)
}
