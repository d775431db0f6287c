package server

import (
	"context"
	"net/http"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// ImageTools compares, converts and verifies images. Beyond Docker.
type ImageTools interface {
	Diff(ctx context.Context, from, to string) (wire.ImageDiff, error)
	// Convert makes an image in eStargz form of another one; platform as os/arch, or
	// empty.
	Convert(ctx context.Context, from, to, platform string) (wire.ImageConverted, error)
	// Verify looks at the images of names; at all for none.
	Verify(ctx context.Context, names []string, r Repair) (wire.ImageCheck, error)
}

// Repair says whether Verify mends what it finds.
type Repair bool

// imageTools answers for /gantry/images.
type imageTools struct{ ImageTools }

func (s *imageTools) routes() []route {
	return []route{
		{method: "GET", pattern: "/gantry/images/diff", serve: s.diff},
		{method: "POST", pattern: "/gantry/images/convert", serve: s.convert},
		{method: "POST", pattern: "/gantry/images/verify", serve: s.verify},
	}
}

func (s *imageTools) diff(w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	d, err := s.Diff(r.Context(), q.Get("from"), q.Get("to"))
	if err != nil {
		return err
	}
	return ok(w, d)
}

func (s *imageTools) convert(w http.ResponseWriter, r *request) error {
	q := r.URL.Query()
	if form := q.Get("form"); form != "estargz" {
		return errs.New(errs.Invalid, "invalid form %.40q: estargz is the only one", form)
	}
	c, err := s.Convert(r.Context(), q.Get("from"), q.Get("to"), q.Get("platform"))
	if err != nil {
		return err
	}
	return ok(w, c)
}

func (s *imageTools) verify(w http.ResponseWriter, r *request) error {
	c, err := s.Verify(r.Context(), r.URL.Query()["name"], Repair(r.flag("repair")))
	if err != nil {
		return err
	}
	return ok(w, c)
}
