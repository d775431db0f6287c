package server

import (
	"context"
	"net"
	"net/http"

	"gantry/internal/errs"
)

// Builder answers the clients of BuildKit.
type Builder interface {
	// ServeHTTP answers one gRPC call that came over HTTP/2.
	http.Handler
	// ServeGRPC answers the gRPC calls of a connection until it ends.
	ServeGRPC(ctx context.Context, conn net.Conn) error
	// ServeSession asks a client, over its connection, for what builds need of
	// it, until it ends. header says what it has.
	ServeSession(ctx context.Context, conn net.Conn, header http.Header) error
	// Cancel ends a build.
	Cancel(ctx context.Context, id string) error
}

// builder answers for builds but for the classic one.
type builder struct{ Builder }

// grpcServices are those that builders' clients call over HTTP/2 from the first
// byte.
var grpcServices = [...]string{
	"moby.buildkit.v1.Control", "moby.buildkit.v1.frontend.LLBBridge", "containerd.services.content.v1.Content",
	"opentelemetry.proto.collector.trace.v1.TraceService", "grpc.health.v1.Health",
}

// routes returns the routes. Connections end with ctx.
func (s *builder) routes(ctx context.Context) []route {
	list := []route{
		{method: "POST", pattern: "/build/cancel", serve: s.cancel},
		{method: "POST", pattern: "/grpc", since: 1039, serve: func(w http.ResponseWriter, r *request) error {
			if err := h2c(r); err != nil {
				return errs.With(errs.Unknown, err)
			}
			conn, err := h2cConn(w)
			if err != nil {
				return err
			}
			return s.ServeGRPC(ctx, conn)
		}},
		{method: "POST", pattern: "/session", serve: func(w http.ResponseWriter, r *request) error {
			if err := h2c(r); err != nil {
				return errs.With(errs.Invalid, err)
			}
			conn, err := h2cConn(w)
			if err != nil {
				return err
			}
			return s.ServeSession(ctx, conn, r.Header)
		}},
	}
	for _, name := range grpcServices {
		list = append(list, route{method: "POST", pattern: "/" + name + "/{method}", serve: s.call})
	}
	return list
}

func (s *builder) cancel(w http.ResponseWriter, r *request) error {
	if err := s.Cancel(r.Context(), r.query.Get("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// call answers a gRPC call.
func (s *builder) call(w http.ResponseWriter, r *request) error {
	if r.ProtoMajor != 2 {
		return errs.New(errs.Invalid, "gRPC calls need HTTP/2")
	}
	if res, ok := w.(*response); ok {
		res.began = true
	}
	s.ServeHTTP(flushing{w, http.NewResponseController(w)}, r.Request)
	return nil
}

// flushing is a response that can be sent piece by piece.
type flushing struct {
	http.ResponseWriter
	c *http.ResponseController
}

// Flush sends what there is. A client that is gone notices nothing.
func (f flushing) Flush() { _ = f.c.Flush() }

// h2c returns why a request can't become a connection for HTTP/2, in Docker's
// words.
func h2c(r *request) error {
	switch proto := r.Header.Get("Upgrade"); proto {
	case "h2c":
		return nil
	case "":
		return errs.New(errs.Unknown, "no upgrade proto in request")
	default:
		return errs.New(errs.Unknown, "protocol %s not supported", proto)
	}
}

// h2cConn takes the connection over.
func h2cConn(w http.ResponseWriter) (net.Conn, error) {
	h, err := hijack(w, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	if err != nil {
		return nil, err
	}
	return readAhead{h.conn, h}, nil
}

// readAhead is a connection of which something may have been read already.
type readAhead struct {
	net.Conn
	h *hijacked
}

// Read reads.
func (c readAhead) Read(p []byte) (int, error) { return c.h.in.Read(p) }
