package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/server/shape"
	"gantry/internal/wire"
)

// Images knows the images of this machine.
type Images interface {
	List(ctx context.Context, o ImageList) ([]wire.ImageSummary, error)
	Inspect(ctx context.Context, ref string, o ImageInspect) (wire.ImageInspect, error)
	History(ctx context.Context, ref string, p *Platform) ([]wire.ImageHistory, error)
	Tag(ctx context.Context, ref, repo, tag string) error
	Remove(ctx context.Context, ref string, o ImageRemove) ([]wire.ImageDeleted, error)
}

// Pins keeps images from prunes and the disk budget. Beyond Docker.
type Pins interface {
	PinName(ctx context.Context, ref string) error
	UnpinName(ctx context.Context, ref string) error
}

// Archives moves images in and out as archives, and reads what is attested of
// them.
type Archives interface {
	Load(ctx context.Context, r io.Reader, o ImageLoad, tell func(wire.Progress)) error
	Import(ctx context.Context, r io.Reader, o ImageImport, tell func(wire.Progress)) error
	Save(ctx context.Context, w io.Writer, names []string, only []Platform) error
	Prune(ctx context.Context, f filter.Args) (wire.ImagesPruned, error)
	Attestations(ctx context.Context, ref string, o ImageAttested) ([]wire.Attestation, error)
}

// A Platform selects one image of an index.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// ImageList says which images to list, and what to find out about them.
type ImageList struct {
	All, SharedSize, Manifests bool
	Identity                   bool // only with Manifests
	Filters                    filter.Args
}

// ImageInspect says what to find out about an image.
type ImageInspect struct {
	Manifests bool
	Platform  *Platform
}

// ImageAttested says which attestations of an image to return, as its options of
// that name.
type ImageAttested struct {
	Platform  *Platform
	Types     []string
	Statement bool
}

// ImageRemove says how to remove an image.
type ImageRemove struct {
	Force bool
	Prune bool // parents without a name too
	Only  []Platform
}

// ImageLoad says what to load of an archive.
type ImageLoad struct {
	Quiet bool
	Only  []Platform
}

// ImageImport says what to make of a tar of a root file system.
type ImageImport struct {
	From                         string // address that the daemon fetches it from; empty: it is handed over
	Repo, Tag, Message, Platform string
	Changes                      []string // lines of a Dockerfile
	Created                      int64    // seconds since 1970; 0 for now. Beyond Docker.
}

// images answers for /images.
type images struct {
	store    Images
	archives Archives
	driver   string
	remote   *registries
}

func (s *images) routes() []route {
	return []route{
		{method: "GET", pattern: "/images/json", serve: s.list},
		{method: "GET", pattern: "/images/get", serve: s.save, oldest: skopeoVersion},
		{method: "GET", pattern: "/images/{name}/get", serve: s.save, oldest: skopeoVersion},
		{method: "GET", pattern: "/images/{name}/history", serve: s.history},
		{method: "GET", pattern: "/images/{name}/attestations", serve: s.attestations, since: 1055, label: "/images/{name:.*}/attestations"},
		{method: "GET", pattern: "/images/{name}/json", serve: s.inspect},
		{method: "POST", pattern: "/images/load", serve: s.load, oldest: skopeoVersion},
		{method: "POST", pattern: "/images/create", serve: s.create},
		{method: "POST", pattern: "/images/prune", serve: s.prune},
		{method: "POST", pattern: "/images/{name}/tag", serve: s.tag},
		{method: "DELETE", pattern: "/images/{name}", serve: s.remove},
	}
}

func (s *images) list(w http.ResponseWriter, r *request) error {
	f, err := r.filters(filter.Images)
	if err != nil {
		return err
	}
	o := ImageList{All: r.flag("all"), Filters: f}
	o.SharedSize = r.v >= 1042 && r.flag("shared-size")
	o.Manifests = r.v >= 1047 && r.flag("manifests")
	o.Identity = r.v >= 1054 && o.Manifests && r.flag("identity")
	list, err := s.store.List(r.Context(), o)
	if err != nil {
		return err
	}
	return ok(w, shape.Images(list, int(r.v)))
}

// platform reads a platform of the query, which is JSON.
func (r *request) platform(since version) (*Platform, error) {
	text := r.query.Get("platform")
	if text == "" || r.v < since {
		return nil, nil
	}
	return parsePlatform(text)
}

func parsePlatform(text string) (*Platform, error) {
	var p Platform
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, errs.New(errs.Invalid, "failed to parse platform: %w", err)
	}
	if p.OS == "" && p.Architecture == "" && p.Variant == "" {
		return nil, nil
	}
	if p.OS == "" || p.Architecture == "" {
		return nil, errs.New(errs.Invalid, "both OS and Architecture must be provided")
	}
	return &p, nil
}

// platforms reads every value of key.
func (r *request) platforms(key string, since version) ([]Platform, error) {
	if r.v < since {
		return nil, nil
	}
	var list []Platform
	for _, text := range r.query[key] {
		p, err := parsePlatform(text)
		if err != nil {
			return nil, err
		}
		if p != nil {
			list = append(list, *p)
		}
	}
	return list, nil
}

func (s *images) inspect(w http.ResponseWriter, r *request) error {
	p, err := r.platform(1049)
	if err != nil {
		return err
	}
	manifests := r.v >= 1048 && r.flag("manifests")
	if manifests && p != nil {
		return errs.New(errs.Invalid, "conflicting options: manifests and platform options cannot both be set")
	}
	img, err := s.store.Inspect(r.Context(), r.name, ImageInspect{Manifests: manifests, Platform: p})
	if err != nil {
		return err
	}
	v, err := shape.Image(img, int(r.v), s.driver)
	if err != nil {
		return err
	}
	return ok(w, v)
}

func (s *images) history(w http.ResponseWriter, r *request) error {
	p, err := r.platform(1048)
	if err != nil {
		return err
	}
	list, err := s.store.History(r.Context(), r.name, p)
	if err != nil {
		return err
	}
	if list == nil {
		list = []wire.ImageHistory{}
	}
	return ok(w, list)
}

// attestations tells what is attested of an image.
func (s *images) attestations(w http.ResponseWriter, r *request) error {
	only, err := r.platforms("platform", 0)
	if err != nil {
		return err
	}
	o := ImageAttested{Types: r.query["type"], Statement: r.flag("statement")}
	if len(only) > 1 {
		return errs.New(errs.Invalid, "only one platform can be given")
	} else if len(only) == 1 {
		o.Platform = &only[0]
	}
	list, err := s.archives.Attestations(r.Context(), r.name, o)
	if err != nil {
		return err
	}
	return ok(w, list)
}

// tag gives an image another name. Without a repository nothing happens.
func (s *images) tag(w http.ResponseWriter, r *request) error {
	repo := r.query.Get("repo")
	if repo == "" {
		return empty(w, http.StatusOK)
	}
	if err := s.store.Tag(act(r), r.name, repo, r.query.Get("tag")); err != nil {
		return err
	}
	return empty(w, http.StatusCreated)
}

func (s *images) remove(w http.ResponseWriter, r *request) error {
	if strings.TrimSpace(r.name) == "" {
		return errs.New(errs.Invalid, "image name cannot be blank")
	}
	only, err := r.platforms("platforms", 1050)
	if err != nil {
		return err
	}
	list, err := s.store.Remove(act(r), r.name, ImageRemove{Force: r.flag("force"), Prune: !r.flag("noprune"), Only: only})
	if err != nil {
		return err
	}
	return ok(w, list)
}

func (s *images) prune(w http.ResponseWriter, r *request) error {
	f, err := r.filters(filter.ImagesPrune)
	if err != nil {
		return err
	}
	resp, err := s.archives.Prune(act(r), f)
	if err != nil {
		return err
	}
	return ok(w, resp)
}
