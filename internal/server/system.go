package server

import (
	"net/http"
	"strconv"

	"gantry/internal/errs"
	"gantry/internal/server/shape"
)

// system answers for the daemon itself.
type system struct {
	sys    System
	doctor Doctor
}

func (s *system) routes() []route {
	return []route{
		{method: "GET", pattern: "/_ping", serve: s.ping},
		{method: "HEAD", pattern: "/_ping", serve: s.ping},
		{method: "GET", pattern: "/version", serve: s.version},
		{method: "GET", pattern: "/info", serve: s.info},
		// Beyond Docker: what exists on the machine and is owned by nobody.
		{method: "GET", pattern: "/gantry/doctor", serve: s.examine},
		{method: "POST", pattern: "/gantry/doctor", serve: s.mend},
	}
}

func (s *system) ping(w http.ResponseWriter, r *request) error {
	h := w.Header()
	h.Set("Builder-Version", "2")
	h.Set("Swarm", "inactive")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	if r.Method == http.MethodHead {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(0))
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (s *system) version(w http.ResponseWriter, r *request) error {
	return ok(w, s.sys.Version(r.Context()))
}

func (s *system) info(w http.ResponseWriter, r *request) error {
	info, err := s.sys.Info(r.Context())
	if err != nil {
		return err
	}
	v, err := shape.Info(info, int(r.v))
	if err != nil {
		return err
	}
	return ok(w, v)
}

func (s *system) examine(w http.ResponseWriter, r *request) error {
	found, err := s.doctor.Examine(r.Context())
	if err != nil {
		return err
	}
	return ok(w, found)
}

func (s *system) mend(w http.ResponseWriter, r *request) error {
	if !r.flag("fix") {
		return errs.New(errs.Invalid, "say fix=1 to have what is found removed")
	}
	found, err := s.doctor.Mend(act(r))
	if err != nil {
		return err
	}
	return ok(w, found)
}
