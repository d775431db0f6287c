package server

import (
	"context"
	"errors"
	"net/http"

	"gantry/internal/container"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// execs answers for further processes in containers.
type execs struct {
	engine Execs
	ctx    context.Context // ends the streams: a client's half close ends its request's own
}

func (s *execs) routes() []route {
	return []route{
		{method: "GET", pattern: "/exec/{id}/json", serve: s.inspect},
		{method: "POST", pattern: "/containers/{name}/exec", serve: s.create},
		{method: "POST", pattern: "/exec/{id}/start", serve: s.start},
		{method: "POST", pattern: "/exec/{id}/resize", serve: s.resize},
	}
}

func (s *execs) create(w http.ResponseWriter, r *request) error {
	var c wire.ExecCreate
	if err := r.decodeIfAny(w, &c); err != nil {
		return err
	}
	if len(c.Cmd) == 0 {
		return errs.New(errs.Invalid, "No exec command specified")
	}
	if r.v < framedSince {
		c.ConsoleSize = nil // not yet known
	}
	id, err := s.engine.ExecCreate(act(r), r.name, c)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, struct {
		ID string `json:"Id"`
	}{id})
}

// start starts an exec. Unless the client detaches, its connection becomes
// the process's streams, and a failure to start arrives there as text.
func (s *execs) start(w http.ResponseWriter, r *request) error {
	var c wire.ExecStart
	if err := r.decodeIfAny(w, &c); err != nil {
		return err
	}
	o := container.ExecStartOptions{Detach: c.Detach, TTY: c.Tty}
	if r.v >= framedSince && c.ConsoleSize != nil {
		size := [2]uint(*c.ConsoleSize)
		o.ConsoleSize = &size
	}
	att, err := s.engine.ExecStart(act(r), r.name, o)
	var inStream *container.StreamError
	if err != nil && (c.Detach || !errors.As(err, &inStream)) {
		return err
	}
	if c.Detach {
		return empty(w, http.StatusOK)
	}
	tty := c.Tty
	conn, herr := hijack(w, streamHead(r, streamType(r, tty), w.Header()))
	if herr != nil {
		if att != nil {
			herr = errors.Join(herr, att.Close())
		}
		return herr
	}
	if inStream != nil {
		conn.say(inStream.Error(), tty)
		return nil
	}
	conn.pump(s.ctx, att, inputClient)
	return nil
}

func (s *execs) inspect(w http.ResponseWriter, r *request) error {
	e, err := s.engine.ExecInspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	if e.DetachKeys == nil {
		e.DetachKeys = []byte{} // "" and not null
	}
	return ok(w, e)
}

func (s *execs) resize(w http.ResponseWriter, r *request) error {
	h, wd, err := r.size()
	if err != nil {
		return err
	}
	if err := s.engine.ExecResize(r.Context(), r.name, clamp16(h), clamp16(wd)); err != nil {
		return err
	}
	return empty(w, http.StatusOK)
}
