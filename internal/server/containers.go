package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"gantry/internal/container"
	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/server/shape"
	"gantry/internal/wire"
)

// act is the context of a request that changes something: what was begun is
// finished even if the client goes away.
func act(r *request) context.Context { return context.WithoutCancel(r.Context()) }

// containers answers for /containers, streams excepted.
type containers struct {
	life    Lifecycle
	states  States
	views   Views
	streams Streams

	checkpoints *checkpoints
}

func (s *containers) routes() []route {
	return []route{
		{method: "GET", pattern: "/containers/json", serve: s.list},
		{method: "GET", pattern: "/containers/{name}/json", serve: s.inspect},
		{method: "GET", pattern: "/containers/{name}/top", serve: s.top},
		{method: "GET", pattern: "/containers/{name}/stats", serve: s.stats},
		{method: "POST", pattern: "/containers/create", serve: s.create},
		{method: "POST", pattern: "/containers/prune", serve: s.prune},
		{method: "POST", pattern: "/containers/{name}/start", serve: s.start},
		{method: "POST", pattern: "/containers/{name}/stop", serve: s.stop},
		{method: "POST", pattern: "/containers/{name}/restart", serve: s.restart},
		{method: "POST", pattern: "/containers/{name}/kill", serve: s.kill},
		{method: "POST", pattern: "/containers/{name}/pause", serve: s.pause},
		{method: "POST", pattern: "/containers/{name}/unpause", serve: s.unpause},
		{method: "POST", pattern: "/containers/{name}/rename", serve: s.rename},
		{method: "POST", pattern: "/containers/{name}/update", serve: s.update},
		{method: "POST", pattern: "/containers/{name}/resize", serve: s.resize},
		{method: "POST", pattern: "/containers/{name}/wait", serve: s.wait},
		{method: "DELETE", pattern: "/containers/{name}", serve: s.remove},
	}
}

func (s *containers) list(w http.ResponseWriter, r *request) error {
	f, err := r.filters(filter.Containers)
	if err != nil {
		return err
	}
	limit, _, err := r.number("limit")
	if err != nil {
		return err
	}
	list, err := s.views.List(r.Context(), container.ListOptions{All: r.flag("all"), Size: r.flag("size"), Limit: limit, Filters: f})
	if err != nil {
		return err
	}
	return ok(w, shape.Containers(list, int(r.v)))
}

func (s *containers) create(w http.ResponseWriter, r *request) error {
	if err := r.checkJSON(); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return errs.With(errs.Invalid, err)
	}
	create, err := readCreate(body, r.v)
	if err != nil {
		return err
	}
	extra, err := readExtra[wire.CreateExtra](body)
	if err != nil {
		return err
	}
	resp, err := s.life.Create(act(r), container.CreateOptions{
		Name:     r.query.Get("name"),
		Platform: r.query.Get("platform"),
		Request:  create,
		Extra:    extra,
	})
	if err != nil {
		return err
	}
	if resp.Warnings == nil {
		resp.Warnings = []string{}
	}
	return writeJSON(w, http.StatusCreated, resp)
}

// readCreate reads the body of a create request, as clients of version v mean
// it.
func readCreate(body []byte, v version) (wire.CreateRequest, error) {
	var c wire.CreateRequest
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&c); err != nil {
		return c, errs.New(errs.Invalid, "invalid JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return c, errs.New(errs.Invalid, "unexpected content after JSON")
	}
	if c.Config == nil {
		return c, errs.New(errs.Invalid, "config cannot be empty in order to create a container")
	}
	if c.HostConfig == nil {
		c.HostConfig = &wire.HostConfig{}
	}
	return c, shape.OldCreate(&c, body, int(v))
}

// readExtra reads what Gantry adds to a body, under the key "Gantry". Unlike
// Docker's parts, a key that nobody knows is an error there.
func readExtra[T any](body []byte) (T, error) {
	var outer struct{ Gantry json.RawMessage }
	var extra T
	if err := json.Unmarshal(body, &outer); err != nil || len(outer.Gantry) == 0 {
		return extra, nil // whoever reads the rest finds the error
	}
	dec := json.NewDecoder(bytes.NewReader(outer.Gantry))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&extra); err != nil {
		return extra, errs.New(errs.Invalid, "invalid JSON: Gantry: %w", err)
	}
	return extra, nil
}

func (s *containers) inspect(w http.ResponseWriter, r *request) error {
	c, err := s.views.Inspect(r.Context(), r.name, container.InspectOptions{Size: r.flag("size")})
	if err != nil {
		return err
	}
	v, err := shape.Container(c, int(r.v))
	if err != nil {
		return err
	}
	return ok(w, v)
}

func (s *containers) start(w http.ResponseWriter, r *request) error {
	// Seven bytes are let pass: old clients send "null" or "{}".
	if r.ContentLength > 7 || r.ContentLength == -1 {
		return errs.New(errs.Invalid, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if r.query.Get("checkpoint") != "" {
		return s.checkpoints.restore(w, r)
	}
	if err := s.life.Start(act(r), r.name); err != nil {
		return err
	}
	return noContent(w)
}

// stopOptions reads signal and t. Clients before 1.42 can't choose the signal.
func stopOptions(r *request) (container.StopOptions, error) {
	var o container.StopOptions
	if r.v >= 1042 {
		o.Signal = r.query.Get("signal")
	}
	t, given, err := r.number("t")
	if given {
		o.Timeout = &t
	}
	return o, err
}

func (s *containers) stop(w http.ResponseWriter, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	if err := s.life.Stop(act(r), r.name, o); err != nil {
		return err
	}
	return noContent(w)
}

func (s *containers) restart(w http.ResponseWriter, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return errs.With(errs.Unknown, err) // as recorded: 500, unlike stop
	}
	if err := s.life.Restart(act(r), r.name, o); err != nil {
		return err
	}
	return noContent(w)
}

func (s *containers) kill(w http.ResponseWriter, r *request) error {
	err := s.life.Kill(act(r), r.name, r.query.Get("signal"))
	if err != nil {
		return err
	}
	return noContent(w)
}

func (s *containers) pause(w http.ResponseWriter, r *request) error {
	if err := s.states.Pause(act(r), r.name); err != nil {
		return err
	}
	return noContent(w)
}

func (s *containers) unpause(w http.ResponseWriter, r *request) error {
	if err := s.states.Unpause(act(r), r.name); err != nil {
		return err
	}
	return noContent(w)
}

func (s *containers) rename(w http.ResponseWriter, r *request) error {
	if err := s.states.Rename(act(r), r.name, r.query.Get("name")); err != nil {
		return err
	}
	return noContent(w)
}

func (s *containers) remove(w http.ResponseWriter, r *request) error {
	err := s.states.Remove(act(r), r.name, container.RemoveOptions{Force: r.flag("force"), Volumes: r.flag("v"), Link: r.flag("link")})
	if err != nil {
		return err
	}
	return noContent(w)
}

func (s *containers) update(w http.ResponseWriter, r *request) error {
	var c wire.UpdateRequest
	if err := r.decodeIfAny(w, &c); err != nil {
		return err
	}
	resp, err := s.states.Update(act(r), r.name, c)
	if err != nil {
		return err
	}
	return ok(w, resp)
}

func (s *containers) top(w http.ResponseWriter, r *request) error {
	resp, err := s.views.Top(r.Context(), r.name, r.query.Get("ps_args"))
	if err != nil {
		return err
	}
	return ok(w, resp)
}

func (s *containers) prune(w http.ResponseWriter, r *request) error {
	f, err := r.filters(filter.ContainersPrune)
	if err != nil {
		return err
	}
	resp, err := s.views.Prune(act(r), f)
	if err != nil {
		return err
	}
	return ok(w, resp)
}

// resize sets the terminal's size. Sizes above what a terminal can
// have become the greatest.
func (s *containers) resize(w http.ResponseWriter, r *request) error {
	h, wd, err := r.size()
	if err != nil {
		return err
	}
	if err := s.streams.Resize(r.Context(), r.name, clamp16(h), clamp16(wd)); err != nil {
		return err
	}
	return empty(w, http.StatusOK)
}

func clamp16(n uint) uint16 { return uint16(min(n, 1<<16-1)) }

// wait sends its head when the wait is registered, so that a client
// knows that it will miss nothing, and the body at the event.
func (s *containers) wait(w http.ResponseWriter, r *request) error {
	condition := r.query.Get("condition")
	switch condition {
	case "", "not-running", "next-exit", "removed":
	default:
		return errs.New(errs.Invalid, "invalid condition: %q", condition)
	}
	done, err := s.streams.Wait(r.Context(), r.name, condition)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush(w)
	select {
	case resp, ok := <-done:
		if !ok {
			return errors.New("the wait was given up")
		}
		return encode(w, resp)
	case <-r.Context().Done():
		return context.Cause(r.Context())
	}
}

// stats streams one sample a second, or answers with one.
func (s *containers) stats(w http.ResponseWriter, r *request) error {
	stream := r.flagOr("stream", filter.OtherwiseTrue)
	// Clients before 1.41 don't know one-shot.
	oneShot := r.v >= 1041 && r.flag("one-shot")
	samples, err := s.views.Stats(r.Context(), r.name, container.StatsOptions{Stream: stream, OneShot: oneShot})
	if err != nil {
		return err
	}
	if !stream {
		for sample, err := range samples {
			if err != nil {
				return err
			}
			return ok(w, sample)
		}
		return errors.New("no sample")
	}
	// A stream of samples has no media type.
	w.Header()["Content-Type"] = nil
	w.WriteHeader(http.StatusOK)
	flush(w)
	for sample, err := range samples {
		if err != nil {
			return err
		}
		if err := encode(w, sample); err != nil {
			return err
		}
		flush(w)
	}
	return nil
}
