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
	// Convert makes an image in eStargz form of another one. tell gets how far it is.
	Convert(ctx context.Context, o ImageConvert, tell func(wire.Progress)) (wire.ImageConverted, error)
	Verify(ctx context.Context, o ImageVerify) (wire.ImageCheck, error)
}

// ImageConvert says what to convert.
type ImageConvert struct {
	From, To  string
	Platforms []string // as os/arch, or "all"
}

// ImageVerify says which images to verify.
type ImageVerify struct {
	Names  []string // none for all
	Repair bool     // mend what can be
	// Auth are credentials by registry, for repairs: an X-Registry-Config header.
	Auth map[string]wire.RegistryAuth
}

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
	p := &progress{w: w}
	c, err := s.Convert(r.Context(), ImageConvert{From: q.Get("from"), To: q.Get("to"), Platforms: q["platform"]}, p.tell)
	if err != nil && p.began {
		p.fail(err)
		return nil
	} else if err != nil {
		return err
	}
	p.send(struct {
		Aux wire.ImageConverted `json:"aux"`
	}{c})
	return nil
}

func (s *imageTools) verify(w http.ResponseWriter, r *request) error {
	o := ImageVerify{Names: r.URL.Query()["name"], Repair: r.flag("repair"), Auth: registryConfig(r.Header.Get("X-Registry-Config"))}
	c, err := s.Verify(r.Context(), o)
	if err != nil {
		return err
	}
	return ok(w, c)
}
