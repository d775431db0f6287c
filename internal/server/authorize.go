package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"

	"gantry/internal/errs"
)

// An Exchange is what an authorizer hears of a request and, afterwards, of its
// answer.
type Exchange struct {
	User, Method string // who, and "TLS" if a certificate says so
	Verb, URI    string
	Header       http.Header
	Body         []byte // of JSON only

	// Of the answer; the body is there if it was whole before anything of it
	// was sent.
	Status       int
	AnswerHeader http.Header
	AnswerBody   []byte
}

// Authorizer decides about requests beside the policies of sockets.
type Authorizer interface {
	// On says whether there is anybody to ask.
	On() bool
	// Request decides before anything is done, Answer before the client reads
	// anything. errs.Denied: the text is for the client.
	Request(ctx context.Context, e *Exchange) error
	Answer(ctx context.Context, e *Exchange) error
}

// maxAuthorized bounds the JSON that an authorizer is shown, in bytes. A larger
// request is refused: it would be carried out unseen.
const maxAuthorized = 1 << 20

// authorize asks the authorizer about a request. The writer that it returns asks
// about the answer; finish must be called when the handler is done.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) (_ http.ResponseWriter, finish func() error, err error) {
	if s.Authorizer == nil || !s.Authorizer.On() {
		return w, func() error { return nil }, nil
	}
	e := &Exchange{Verb: r.Method, URI: r.URL.RequestURI(), Header: r.Header}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		e.User, e.Method = r.TLS.PeerCertificates[0].Subject.CommonName, "TLS"
	}
	_, path := splitVersion(r.URL.Path)
	if showsBody(r, path) {
		e.Body, err = io.ReadAll(io.LimitReader(r.Body, maxAuthorized+1))
		switch {
		case err != nil:
			return nil, nil, errs.With(errs.Invalid, err)
		case len(e.Body) > maxAuthorized:
			return nil, nil, errs.New(errs.Denied, "authorization: the body has more than %d bytes, which no plugin would see", maxAuthorized)
		}
		r.Body = io.NopCloser(bytes.NewReader(e.Body))
	}
	if err := s.Authorizer.Request(r.Context(), e); err != nil {
		return nil, nil, err
	}
	g := &gate{ResponseWriter: w, ask: func(status int, body []byte) error {
		e.Status, e.AnswerHeader, e.AnswerBody = status, w.Header(), body
		return s.Authorizer.Answer(r.Context(), e)
	}}
	return g, g.end, nil
}

// showsBody tells whether the body is shown: what may be JSON, but no
// credentials. Pure.
func showsBody(r *http.Request, path string) bool {
	if r.Body == nil || r.Body == http.NoBody || path == "/auth" {
		return false
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err != nil || strings.HasSuffix(kind, "json")
}

// A gate holds an answer back until somebody has been asked about it: at its
// end, or when it has to begin before.
type gate struct {
	http.ResponseWriter
	ask    func(status int, body []byte) error
	status int
	held   bytes.Buffer
	open   bool
	denied error
}

// WriteHeader notes the status.
func (g *gate) WriteHeader(status int) {
	if g.open {
		g.ResponseWriter.WriteHeader(status)
		return
	}
	if g.status == 0 {
		g.status = status
	}
}

// Write holds what is written, as long as it is little.
func (g *gate) Write(p []byte) (int, error) {
	if g.denied != nil {
		return 0, g.denied
	}
	if !g.open && g.held.Len()+len(p) > maxAuthorized {
		if err := g.release(nil); err != nil {
			return 0, err
		}
	}
	if g.open {
		return g.ResponseWriter.Write(p)
	}
	return g.held.Write(p)
}

// release asks, and sends what is held.
func (g *gate) release(body []byte) error {
	if g.open || g.denied != nil {
		return g.denied
	}
	if g.status == 0 {
		g.status = http.StatusOK
	}
	if g.denied = g.ask(g.status, body); g.denied != nil {
		g.held.Reset()
		for k := range g.Header() {
			if strings.HasPrefix(k, "Content-") || k == "Location" {
				g.Header().Del(k)
			}
		}
		writeError(g.ResponseWriter, g.denied)
		return g.denied
	}
	g.open = true
	g.ResponseWriter.WriteHeader(g.status)
	_, err := g.held.WriteTo(g.ResponseWriter)
	return err
}

func (g *gate) end() error { return g.release(g.held.Bytes()) }

// FlushError sends what is held: the answer is a stream.
func (g *gate) FlushError() error {
	if err := g.release(nil); err != nil {
		return err
	}
	return http.NewResponseController(g.ResponseWriter).Flush()
}

// Hijack gives the connection away, if that may be.
func (g *gate) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !g.open {
		if err := g.ask(http.StatusSwitchingProtocols, nil); err != nil {
			return nil, nil, err
		}
		if g.held.Len() > 0 {
			return nil, nil, errors.New("a part of the answer has been written")
		}
		g.open = true
	}
	return http.NewResponseController(g.ResponseWriter).Hijack()
}
