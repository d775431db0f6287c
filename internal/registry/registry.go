// Package registry is the registry server's door: it serves the OCI Distribution
// API 1.1 with Docker's additions (catalog, tokens, search), a page to look at,
// figures for Prometheus, and a record of every access.
//
// Program gantry-registry runs it. What it serves belongs to package repo and, for
// copies of other registries, to package upstream; who may do what is asked of
// package auth before anything else is. It writes nothing itself. It must not
// know the engine.
//
// Formats: OCI distribution-spec 1.1; Docker Registry HTTP API V2; Docker's token
// authentication; the search of Docker's registry API 1.
package registry

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
	"gantry/internal/registry/upstream"
)

// Options say what to serve.
type Options struct {
	Store  *repo.Store
	Cache  *upstream.Cache // nil: no copies of other registries
	Policy *auth.Policy
	// Tokens is the token service; nil: clients show their passwords.
	Tokens *auth.Service
	// Foreign checks the tokens of somebody else's token service, which is at
	// Realm; nil: there is none.
	Foreign *auth.Verifier
	Realm   string
	// ReadOnly refuses all changes, and NoDelete all deletions.
	ReadOnly, NoDelete bool
	// Collect is what a collection that a client asks for removes.
	Collect repo.CollectOptions
	Stall   time.Duration // how long a client may send or take nothing; 0 for a minute
	Log     *slog.Logger
	Version string
}

// A Server serves a registry. It is an http.Handler, safe for concurrent use. It
// finds who answers a request: blobs, manifests, tokens or pages.
type Server struct {
	*core
	blobs     blobs
	manifests manifests
	tokens    tokens
	pages     pages
}

// core is what all who answer share: who may do what, and the figures.
type core struct {
	Options
	figures *figures
}

type (
	blobs     struct{ *core } // and uploads
	manifests struct{ *core } // and lists of them
	tokens    struct{ *core }
	pages     struct{ *core } // for people, searches and Prometheus
)

// New returns the server of a registry. There is nothing to close.
func New(o Options) *Server {
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &core{Options: o, figures: newFigures()}
	return &Server{c, blobs{c}, manifests{c}, tokens{c}, pages{c}}
}

// A request is one request for a thing of the registry.
type request struct {
	*http.Request
	w    *answer
	user identity
	name string // of the repository
	ref  string // digest, tag or upload
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(hw http.ResponseWriter, hr *http.Request) {
	begin := time.Now()
	w := newAnswer(hw, s.Stall)
	r := &request{Request: hr, w: w}
	body := &body{ReadCloser: hr.Body, w: w, ended: hr.ContentLength == 0}
	hr.Body = body
	route, serve := s.route(r)
	done := s.figures.begin()
	defer func() {
		// What can't be answered any more is cut off, and recorded.
		p := recover()
		done(route, hr.Method, w.status, body.n, w.n, time.Since(begin))
		s.logAccess(r, route, body.n, time.Since(begin))
		if p != nil {
			panic(p)
		}
	}()
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("X-Content-Type-Options", "nosniff")
	if err := s.identify(r); err != nil {
		s.fail(r, err)
		return
	}
	if err := serve(r); err != nil {
		s.fail(r, err)
	}
	w.last(body)
}

func (s *Server) logAccess(r *request, route string, in int64, took time.Duration) {
	s.Log.LogAttrs(r.Context(), slog.LevelInfo, "access", slog.String("remote", r.RemoteAddr), slog.String("user", r.user.name),
		slog.String("method", r.Method), slog.String("uri", r.RequestURI), slog.String("route", route), slog.String("repository", r.name),
		slog.Int("status", r.w.status), slog.Int64("in", in), slog.Int64("out", r.w.n), slog.Duration("took", took),
		slog.String("agent", r.UserAgent()), slog.String("proto", r.Proto))
}

// handler answers a request or says why not.
type handler func(*request) error

// route finds who answers, and what to call it in figures.
func (s *Server) route(r *request) (string, handler) {
	path := r.URL.Path
	switch {
	case path == "/v2/" || path == "/v2":
		return "base", s.methods(r, map[string]handler{"GET": s.base})
	case path == "/v2/_catalog":
		return "catalog", s.methods(r, map[string]handler{"GET": s.manifests.catalog})
	case strings.HasPrefix(path, "/v2/"):
		p, ok := parsePath(path[len("/v2/"):])
		if !ok {
			return "unknown", notFound
		}
		r.name, r.ref = p.name, p.ref
		if !s.mirrored(r) {
			return p.kind, notFound
		}
		return p.kind, s.resource(r, p.kind)
	case path == "/token":
		return "token", s.methods(r, map[string]handler{"GET": s.tokens.tokenGet, "POST": s.tokens.tokenPost})
	case path == "/v1/_ping":
		return "search", s.methods(r, map[string]handler{"GET": s.pages.pingV1})
	case path == "/v1/search":
		return "search", s.methods(r, map[string]handler{"GET": s.pages.search})
	case path == "/metrics":
		return "metrics", s.methods(r, map[string]handler{"GET": s.pages.metrics})
	case path == "/gc":
		return "gc", s.methods(r, map[string]handler{"POST": s.collect})
	case path == "/healthz":
		return "health", s.methods(r, map[string]handler{"GET": s.health})
	case path == "/" || strings.HasPrefix(path, "/browse/") || path == "/browse":
		return "browse", s.methods(r, map[string]handler{"GET": s.pages.browse})
	}
	return "unknown", notFound
}

// resource finds who answers for a thing in a repository.
func (s *Server) resource(r *request, kind string) handler {
	m := map[string]handler{}
	switch kind {
	case "manifest":
		m = map[string]handler{"GET": s.manifests.getManifest, "PUT": s.manifests.putManifest, "DELETE": s.manifests.deleteManifest}
	case "blob":
		m = map[string]handler{"GET": s.blobs.getBlob, "DELETE": s.blobs.deleteBlob}
	case "uploads":
		m = map[string]handler{"POST": s.blobs.beginUpload}
	case "upload":
		m = map[string]handler{"GET": s.blobs.uploadStatus, "PATCH": s.blobs.patchUpload, "PUT": s.blobs.putUpload, "DELETE": s.blobs.cancelUpload}
	case "tags":
		m = map[string]handler{"GET": s.manifests.tags}
	case "referrers":
		m = map[string]handler{"GET": s.manifests.referrers}
	}
	h := s.methods(r, m)
	return func(r *request) error {
		if err := repo.CheckName(r.name); err != nil {
			return err
		}
		return h(r)
	}
}

// methods picks a handler by the request's method. HEAD is GET without a body.
func (s *Server) methods(r *request, m map[string]handler) handler {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h, ok := m[method]; ok {
		return h
	}
	return func(r *request) error {
		list := []string{}
		for k := range m {
			list = append(list, k)
		}
		r.w.Header().Set("Allow", strings.Join(list, ", "))
		return repo.NewFault(errs.Unsupported, repo.Unsupported, "The operation is unsupported.")
	}
}

func notFound(r *request) error {
	return repo.NewFault(errs.NotFound, repo.NameUnknown, "no such page")
}

// location is what the path of a request names.
type location struct{ kind, name, ref string }

// parsePath reads what follows /v2/. What a name may be is not checked.
func parsePath(path string) (location, bool) {
	parts := strings.Split(path, "/")
	n := len(parts)
	name := func(k int) string { return strings.Join(parts[:n-k], "/") }
	switch {
	case n >= 4 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		if parts[n-1] == "" {
			return location{"uploads", name(3), ""}, true
		}
		return location{"upload", name(3), parts[n-1]}, true
	case n >= 3 && parts[n-2] == "blobs" && parts[n-1] == "uploads":
		return location{"uploads", name(2), ""}, true
	case n >= 3 && parts[n-2] == "blobs":
		return location{"blob", name(2), parts[n-1]}, true
	case n >= 3 && parts[n-2] == "manifests":
		return location{"manifest", name(2), parts[n-1]}, true
	case n >= 3 && parts[n-2] == "tags" && parts[n-1] == "list":
		return location{"tags", name(2), ""}, true
	case n >= 3 && parts[n-2] == "referrers":
		return location{"referrers", name(2), parts[n-1]}, true
	}
	return location{}, false
}

// base tells that this is a registry, to whom it knows.
func (s *Server) base(r *request) error {
	if !s.open() && !r.user.known {
		return s.challenge(r, "")
	}
	return r.w.json(http.StatusOK, struct{}{})
}

func (s *core) health(r *request) error {
	return r.w.json(http.StatusOK, map[string]string{"status": "ok", "version": s.Version})
}

// collect collects garbage because a client asks for it.
func (s *core) collect(r *request) error {
	if err := s.need(r, "", auth.Admin); err != nil {
		return err
	}
	if s.ReadOnly {
		return readOnly()
	}
	o := s.Collect
	if r.URL.Query().Get("untagged") == "1" {
		o.Untagged = true
	}
	got, err := s.Store.Collect(r.Context(), o)
	if err != nil {
		return err
	}
	s.Collected(got)
	return r.w.json(http.StatusOK, got)
}

// Collected adds what a collection has removed to the figures.
func (s *core) Collected(got repo.Collected) { s.figures.collected(got) }

func readOnly() error {
	return repo.NewFault(errs.Unsupported, repo.Unsupported, "the registry is read-only")
}

// mutable finds out whether a repository can be changed by clients.
func (s *core) mutable(r *request) error {
	if s.ReadOnly {
		return readOnly()
	}
	if s.copied(r.name) {
		return repo.NewFault(errs.Unsupported, repo.Unsupported, "%s is a copy of another registry's", r.name)
	}
	return nil
}

// mirrored gives a repository its name here if a client asks for that of another
// registry, by the parameter ns. False if this is no mirror of that registry:
// another repository of the same name is not meant.
func (s *core) mirrored(r *request) bool {
	ns := r.URL.Query().Get("ns")
	if ns == "" || s.Cache == nil || ns == r.Host {
		return true
	}
	name, ok := s.Cache.Mirror(ns, r.name)
	if ok {
		r.name = name
	}
	return ok
}

// copied reports whether a repository is a copy of another registry's.
func (s *core) copied(name string) bool {
	if s.Cache == nil {
		return false
	}
	yes, _ := s.Cache.Has(name)
	return yes
}

// readLimited reads a body of at most limit bytes.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the request: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, errs.With(errs.Invalid, &tooLarge{errors.New("manifest too large")})
	}
	return data, nil
}
