package server

import (
	"context"
	"net/http"

	"gantry/internal/container"
	"gantry/internal/errs"
)

// Checkpoints writes containers to the disk and makes them run again.
type Checkpoints interface {
	Create(ctx context.Context, ref string, o container.CheckpointOptions) error
	List(ctx context.Context, ref, dir string) ([]string, error)
	Remove(ctx context.Context, ref string, o container.CheckpointOptions) error
	Restore(ctx context.Context, ref string, o container.CheckpointOptions) error
}

// checkpoints answers for /containers/{name}/checkpoints. As with Docker, they
// are there only if experimental features are on.
type checkpoints struct {
	c            Checkpoints
	experimental bool
}

func (s *checkpoints) routes() []route {
	gated := func(h handler) handler {
		return func(w http.ResponseWriter, r *request) error {
			if !s.experimental {
				return errs.New(errs.Unsupported, "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.")
			}
			return h(w, r)
		}
	}
	return []route{
		{method: "GET", pattern: "/containers/{name}/checkpoints", serve: gated(s.list)},
		{method: "POST", pattern: "/containers/{name}/checkpoints", serve: gated(s.create)},
		{method: "DELETE", pattern: "/containers/{name}/checkpoints/{checkpoint}", serve: gated(s.remove)},
	}
}

func (s *checkpoints) list(w http.ResponseWriter, r *request) error {
	names, err := s.c.List(r.Context(), r.name, r.query.Get("dir"))
	if err != nil {
		return err
	}
	type summary struct{ Name string }
	out := make([]summary, len(names))
	for i, n := range names {
		out[i].Name = n
	}
	return ok(w, out)
}

func (s *checkpoints) create(w http.ResponseWriter, r *request) error {
	var body struct {
		CheckpointID, CheckpointDir string
		Exit                        bool
	}
	if err := r.decode(w, &body); err != nil {
		return err
	}
	o := container.CheckpointOptions{Name: body.CheckpointID, Dir: body.CheckpointDir, LeaveRunning: !body.Exit}
	if err := s.c.Create(act(r), r.name, o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *checkpoints) remove(w http.ResponseWriter, r *request) error {
	if err := s.c.Remove(act(r), r.name, container.CheckpointOptions{Name: r.sub, Dir: r.query.Get("dir")}); err != nil {
		return err
	}
	return noContent(w)
}

// restore is the start from a checkpoint.
func (s *checkpoints) restore(w http.ResponseWriter, r *request) error {
	if !s.experimental {
		return errs.New(errs.Invalid, "checkpoint is only supported in experimental mode")
	}
	o := container.CheckpointOptions{Name: r.query.Get("checkpoint"), Dir: r.query.Get("checkpoint-dir")}
	if err := s.c.Restore(act(r), r.name, o); err != nil {
		return err
	}
	return noContent(w)
}

// guardedCheckpoints are those of a socket with a policy: directories of the
// host are not its clients' to choose.
type guardedCheckpoints struct{ Checkpoints }

func ownDir(dir string) error {
	if dir != "" {
		return errs.New(errs.Denied, "the policy of this socket allows no checkpoint directory but the container's own")
	}
	return nil
}

func (g guardedCheckpoints) Create(ctx context.Context, ref string, o container.CheckpointOptions) error {
	if err := ownDir(o.Dir); err != nil {
		return err
	}
	return g.Checkpoints.Create(ctx, ref, o)
}

func (g guardedCheckpoints) List(ctx context.Context, ref, dir string) ([]string, error) {
	if err := ownDir(dir); err != nil {
		return nil, err
	}
	return g.Checkpoints.List(ctx, ref, dir)
}

func (g guardedCheckpoints) Remove(ctx context.Context, ref string, o container.CheckpointOptions) error {
	if err := ownDir(o.Dir); err != nil {
		return err
	}
	return g.Checkpoints.Remove(ctx, ref, o)
}

func (g guardedCheckpoints) Restore(ctx context.Context, ref string, o container.CheckpointOptions) error {
	if err := ownDir(o.Dir); err != nil {
		return err
	}
	return g.Checkpoints.Restore(ctx, ref, o)
}
