// Package server speaks the Docker Engine API over HTTP: it routes, reads
// requests, calls the engine, the images, the networks and the volumes through
// small interfaces, and answers byte for byte as clients of Docker expect.
//
// The daemon makes one Server and gives it listeners. A request becomes a wire
// value or an options struct; a value becomes JSON in the shape of the API
// version asked for (package shape); an error becomes a status code in exactly
// one table. The package writes nothing to disk, and must not know how a
// container runs or where anything is stored.
//
// Source of the formats: Docker Engine API 1.56 and recordings of Docker
// Engine 29.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/wire"
)

// Limits for clients that mean harm.
const (
	headerTime = 30 * time.Second // to send the head of a request
	idleTime   = 5 * time.Minute  // between requests, on TCP
	maxHeader  = 512 << 10        // X-Registry-Config carries many credentials
)

// Options says what a server serves.
type Options struct {
	Lifecycle Lifecycle
	States    States
	Views     Views
	Streams   Streams
	Execs     Execs
	Files     Files
	Changes   Changes
	Images    Images
	Archives  Archives
	Registry  Registries
	Networks  Networks
	Members   Members
	Volumes   Volumes
	Plugins   Plugins
	System    System
	Events    *event.Bus
	Doctor    Doctor
	Why       Explainer
	Disk      Disk
	Jobs      Jobs
	Transfers Transfers
	Pins      Pins
	Builder   Builder
	Builds    Builds
	// Authorizer decides about every request; nil for nobody.
	Authorizer Authorizer
	// Checkpoints are served if Experimental is set.
	Checkpoints Checkpoints
	// Product is the Server header, for example "Docker/29.7.0 (linux)".
	Product      string
	Tools        ImageTools
	Driver       string // of image layers, as images name it
	Experimental bool
	Log          *slog.Logger
	// Answered is told of each operation that was answered, and how long that
	// took; nil for nobody.
	Answered func(operation string, err error, took time.Duration)
	Upgrades Upgrades
	// Profiler gives what serves /debug, nil if it is off.
	Profiler func() http.Handler
}

// A Server answers API requests. Make one with New.
type Server struct {
	Options
	routes table
	scope  *scope  // of a scoped socket; nil for the full API
	parent *Server // of a scoped one, which closes it

	ctx    context.Context // ends when the server closes
	cancel context.CancelFunc

	short atomic.Int64 // requests under way that end by themselves

	mu      sync.Mutex
	servers []*http.Server
	closed  bool
}

// New returns a server that listens nowhere yet. Its streams end with ctx.
func New(ctx context.Context, o Options) *Server {
	s := &Server{Options: o}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.route(nil)
	return s
}

// route makes the table of routes. visible says which events clients see; nil
// for all.
func (s *Server) route(visible func(wire.Event) bool) {
	o := s.Options
	remote := &registries{o.Registry}
	frozen := &checkpoints{o.Checkpoints, o.Experimental}
	s.routes = newTable(slices.Concat(
		unbuilt(), // its patterns are the more particular ones, as are those of checkpoints
		frozen.routes(),
		(&containers{o.Lifecycle, o.States, o.Views, o.Streams, frozen}).routes(),
		(&streams{o.Streams, s.ctx}).routes(),
		(&execs{o.Execs, s.ctx}).routes(),
		(&files{o.Files, o.Changes}).routes(),
		(&events{o.Events, visible}).routes(),
		(&images{o.Images, o.Archives, o.Driver, remote}).routes(),
		remote.routes(),
		(&networks{o.Networks, o.Members}).routes(),
		(&volumes{o.Volumes}).routes(),
		(&plugins{o.Plugins}).routes(),
		(&transfers{o.Transfers}).routes(),
		(&system{o.System, o.Doctor}).routes(),
		upgradeRoutes(o.Upgrades),
		whyRoutes(o.Why),
		debugging(o.Profiler),
		(&disk{o.Disk, o.Pins}).routes(),
		(&builder{o.Builder}).routes(s.ctx),
		buildRoutes(o.Builds),
		(&imageTools{o.Tools}).routes(),
		(&jobs{o.Jobs}).routes(),
	))
}

// Serve answers on l until Shutdown. A listener that is not a unix socket gets
// the guard against web pages: no Origin, and a Host that is an address, a name
// of this machine or one in hosts.
func (s *Server) Serve(l net.Listener, hosts ...string) error {
	unix := l.Addr().Network() == "unix"
	var h http.Handler = s
	if !unix {
		h = guard(s, hosts)
	}
	// Builders speak HTTP/2 without TLS, and say so from the first byte.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Protocols:         &protocols,
		Handler:           h,
		ReadHeaderTimeout: headerTime,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnState:         tellState,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	if !unix {
		srv.IdleTimeout = idleTime
	}
	if !s.keep(srv) {
		return errors.Join(http.ErrServerClosed, l.Close())
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// keep remembers what Shutdown has to close; false if it has been called.
func (s *Server) keep(srv *http.Server) bool {
	if s.parent != nil {
		return s.parent.keep(srv)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.servers = append(s.servers, srv)
	}
	return !s.closed
}

// Shutdown stops listening, ends the streams, waits for the other requests as
// long as ctx allows, and then cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	servers := s.servers
	s.mu.Unlock()
	s.cancel()
	var all []error
	for _, srv := range servers {
		if err := srv.Shutdown(ctx); err != nil {
			all = append(all, err, srv.Close())
		}
	}
	return errors.Join(all...)
}

// ServeHTTP routes a request.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &response{ResponseWriter: rw}
	defer s.rescue(w, r)
	if clean := cleanPath(r.URL.Path); clean != r.URL.Path {
		to := *r.URL
		to.Path, to.RawPath = clean, ""
		w.Header().Set("Location", to.String())
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	text, rest := splitVersion(r.URL.Path)
	if r.Method == http.MethodOptions {
		s.head(w)
		w.Header().Set("Docker-Experimental", fmt.Sprint(s.Experimental))
		w.WriteHeader(http.StatusOK)
		return
	}
	route, name, sub := s.routes.find(r.Method, rest)
	if route == nil {
		notFound(w)
		return
	}
	s.head(w)
	v := maxVersion
	if text != "" {
		v = parseVersion(text)
		if err := checkVersion(v, route.oldest, text); err != nil {
			err.write(w)
			return
		}
	}
	w.Header().Set("Docker-Experimental", fmt.Sprint(s.Experimental))
	if v < route.since {
		writeError(w, errs.New(errs.Invalid, "%s %s requires minimum API version %v", r.Method, route.label, route.since))
		return
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		writeError(w, errs.With(errs.Invalid, err))
		return
	}
	req := &request{Request: r, v: v, name: name, sub: sub, query: query}
	if s.scope != nil {
		if err := s.scope.admit(req, route); err != nil {
			writeError(w, err)
			return
		}
	}
	gated, finish, err := s.authorize(w.ResponseWriter, r)
	if err != nil {
		writeError(w, err)
		return
	}
	w.ResponseWriter = gated
	s.answer(w, req, route)
	if !w.hijacked {
		_ = finish() // the client has been told
	}
}

// answer runs a handler and turns its error into the answer.
func (s *Server) answer(w *response, r *request, h *compiled) {
	began := time.Now()
	op, _ := operationOf(h.method, h.pattern)
	defer s.begin(op.name)()
	err := h.serve(w, r)
	if s.Answered != nil && op.name != "" {
		s.Answered(op.name, err, time.Since(began))
	}
	s.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "took", time.Since(began), "err", err)
	if err == nil {
		return
	}
	if statusOf(err) == http.StatusInternalServerError && r.Context().Err() == nil {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if !w.began {
		writeError(w, err)
	}
}

// head sets the headers of every routed answer.
func (s *Server) head(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Api-Version", MaxVersion)
	h.Set("Ostype", "linux")
	h.Set("Server", s.Product)
}

// rescue ends a handler that panicked: one request fails, the process goes on.
func (s *Server) rescue(w *response, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler && w.began {
		s.Log.Warn("answer cut off", "method", r.Method, "path", r.URL.Path)
		panic(p)
	}
	s.Log.Error("handler panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	if w.hijacked {
		return
	}
	if w.began {
		panic(http.ErrAbortHandler) // cut the connection: the answer is not whole
	}
	writeError(w, errs.New(errs.Unknown, "internal error: the request could not be handled"))
	if g, ok := w.ResponseWriter.(*gate); ok {
		_ = g.end()
	}
}

// A response remembers whether it has begun.
type response struct {
	http.ResponseWriter
	began, hijacked bool
}

// WriteHeader sends the status.
func (w *response) WriteHeader(status int) {
	w.began = true
	w.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (w *response) Write(p []byte) (int, error) {
	w.began = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// flush sends what is written so far; a client that is gone is noticed by the
// next write.
func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }
