package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// A progress writes messages as they come, each on a line that ends in CR LF
// and flushed. The answer begins with the first.
type progress struct {
	w     http.ResponseWriter
	began bool
	err   error // the client is gone
}

func (p *progress) begin() {
	if !p.began {
		p.began = true
		p.w.Header().Set("Content-Type", "application/json")
		p.w.WriteHeader(http.StatusOK)
	}
}

func (p *progress) tell(m wire.Progress) { p.send(m) }

func (p *progress) send(v any) {
	p.begin()
	line, err := json.Marshal(v)
	if err == nil {
		_, err = p.w.Write(append(line, '\r', '\n'))
	}
	if err != nil {
		p.err = err
		return
	}
	flush(p.w)
}

// fail ends the stream with an error, as clients of all ages read it.
func (p *progress) fail(err error) {
	p.send(struct {
		Error  string             `json:"error"`
		Detail wire.ProgressError `json:"errorDetail"`
	}{err.Error(), wire.ProgressError{Message: err.Error()}})
}

// load reads an archive of images. Whatever goes wrong is told in the stream.
func (s *images) load(w http.ResponseWriter, r *request) error {
	only, err := r.platforms("platform", 1048)
	if err != nil {
		return err
	}
	p := &progress{w: w}
	fullDuplex(w)
	o := ImageLoad{Quiet: r.flagOr("quiet", 1), Only: only}
	if err := s.archives.Load(r.Context(), r.Body, o, p.tell); err != nil {
		p.fail(err)
	}
	p.begin() // an archive of nothing says nothing
	return nil
}

// create pulls an image, or imports a root file system from the body.
func (s *images) create(w http.ResponseWriter, r *request) error {
	src := r.query.Get("fromSrc")
	switch {
	case r.query.Get("fromImage") != "":
		return s.remote.pull(w, r)
	case src == "": // Docker's own text
		return errors.New(`Get "http:": http: no Host in request URL`)
	}
	message := r.query.Get("message")
	if message == "" {
		message = "Imported from " + src
	}
	created := int64(0)
	if v := r.query.Get("created"); v != "" {
		var err error
		if created, err = strconv.ParseInt(v, 10, 64); err != nil || created < 0 || created > 1<<38 {
			return errs.New(errs.Invalid, "invalid created=%.40q: seconds since 1970 are understood", v)
		}
	}
	p := &progress{w: w}
	fullDuplex(w)
	from := src
	if src == "-" {
		from = ""
	}
	err := s.archives.Import(r.Context(), r.Body, ImageImport{
		From: from,
		Repo: r.query.Get("repo"), Tag: r.query.Get("tag"), Message: message,
		Platform: r.query.Get("platform"), Changes: r.query["changes"], Created: created,
	}, p.tell)
	if err != nil && p.began {
		p.fail(err)
		return nil
	}
	return err
}

// save writes images as an archive. Once it has begun, an error can only cut
// the connection off, so that the client does not take a part for the whole.
func (s *images) save(w http.ResponseWriter, r *request) error {
	only, err := r.platforms("platform", 1048)
	if err != nil {
		return err
	}
	names := r.query["names"]
	if r.name != "" {
		names = []string{r.name}
	}
	// Set now; writeError replaces it.
	w.Header().Set("Content-Type", "application/x-tar")
	err = s.archives.Save(r.Context(), w, names, only)
	if res, ok := w.(*response); ok && err != nil && res.began {
		panic(http.ErrAbortHandler)
	}
	return err
}

// fullDuplex lets an answer be written while the request is still being read.
func fullDuplex(w http.ResponseWriter) { _ = http.NewResponseController(w).EnableFullDuplex() }
