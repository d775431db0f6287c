package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

// Registries exchanges images with registries. auth are the credentials of one
// request, verbatim: an X-Registry-Auth header.
type Registries interface {
	Pull(ctx context.Context, o ImagePull, tell func(wire.Progress)) error
	Push(ctx context.Context, o ImagePush, tell func(wire.Progress)) error
	Search(ctx context.Context, o ImageSearch) ([]wire.RegistrySearch, error)
	Lookup(ctx context.Context, name, auth string) (wire.DistributionInspect, error)
	Login(ctx context.Context, a wire.RegistryAuth) (wire.RegistryAuthReply, error)
}

// ImagePull says what to pull.
type ImagePull struct {
	Name     string // may have a tag or digest
	Tag      string // tag or digest; with none anywhere, all tags are meant
	Platform string // os[/arch[/variant]]; empty for the daemon's
	Auth     string
	Lazy     bool // return as soon as containers can start; beyond Docker
}

// ImagePush says what to push.
type ImagePush struct {
	Name     string
	Tag      string // empty: all tags
	Platform *Platform
	Auth     string
}

// ImageSearch says what to search for.
type ImageSearch struct {
	Term    string // may begin with a registry's host
	Limit   int    // 0: the registry's default
	Filters filter.Args
	Auth    string
}

// registries answers for what leaves the machine.
type registries struct{ Registries }

func (s *registries) routes() []route {
	return []route{
		{method: "GET", pattern: "/images/search", serve: s.search},
		{method: "GET", pattern: "/distribution/{name}/json", serve: s.lookup},
		{method: "POST", pattern: "/images/{name}/push", serve: s.push},
		{method: "POST", pattern: "/auth", serve: s.login},
	}
}

const authHeader = "X-Registry-Auth"

// pull fetches an image. Once the stream has begun, errors are told in it.
func (s *registries) pull(w http.ResponseWriter, r *request) error {
	p := &progress{w: w}
	err := s.Pull(r.Context(), ImagePull{
		Name: r.query.Get("fromImage"), Tag: r.query.Get("tag"), Platform: r.query.Get("platform"), Auth: r.Header.Get(authHeader),
		Lazy: r.flag("lazy"),
	}, p.tell)
	if err != nil && p.began {
		p.fail(err)
		return nil
	}
	return err
}

// push sends an image; all errors but those of the name are told in the stream.
func (s *registries) push(w http.ResponseWriter, r *request) error {
	platform, err := r.platform(1046)
	if err != nil {
		return err
	}
	o := ImagePush{Name: r.name, Tag: r.query.Get("tag"), Platform: platform, Auth: r.Header.Get(authHeader)}
	p := &progress{w: w}
	if err := s.Push(r.Context(), o, p.tell); err != nil {
		if !p.began && errs.Is(err, errs.Invalid) {
			return err
		}
		p.fail(err)
	}
	p.begin()
	return nil
}

func (s *registries) search(w http.ResponseWriter, r *request) error {
	o := ImageSearch{Term: r.query.Get("term"), Auth: r.Header.Get(authHeader)}
	if v := r.query.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			return errs.New(errs.Invalid, "invalid limit specified: %w", err)
		}
		o.Limit = n
	}
	var err error
	if o.Filters, err = r.filters(filter.Search); err != nil {
		return err
	}
	list, err := s.Search(r.Context(), o)
	if err != nil {
		return err
	}
	if list == nil {
		list = []wire.RegistrySearch{}
	}
	return ok(w, list)
}

func (s *registries) lookup(w http.ResponseWriter, r *request) error {
	v, err := s.Lookup(r.Context(), r.name, r.Header.Get(authHeader))
	if err != nil {
		return err
	}
	return ok(w, v)
}

// maxLogin is how large a login's body may be.
const maxLogin = 64 << 10

func (s *registries) login(w http.ResponseWriter, r *request) error {
	var a wire.RegistryAuth
	err := json.NewDecoder(io.LimitReader(r.Body, maxLogin)).Decode(&a)
	if err != nil && !errors.Is(err, io.EOF) {
		return errs.New(errs.Invalid, "invalid X-Registry-Auth header: invalid JSON: %w", err)
	}
	reply, err := s.Login(r.Context(), a)
	if err != nil {
		return err
	}
	return ok(w, reply)
}
