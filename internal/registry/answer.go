package registry

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"gantry/internal/errs"
	"gantry/internal/registry/repo"
)

// answer is a response that is counted, and that a client can't hold up.
type answer struct {
	http.ResponseWriter
	rc     *http.ResponseController
	stall  time.Duration
	status int
	n      int64
	wrote  bool
}

func newAnswer(w http.ResponseWriter, stall time.Duration) *answer {
	return &answer{ResponseWriter: w, rc: http.NewResponseController(w), stall: stall, status: http.StatusOK}
}

// WriteHeader sends the status, once.
func (w *answer) WriteHeader(status int) {
	if !w.wrote {
		w.status, w.wrote = status, true
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (w *answer) Write(p []byte) (int, error) {
	w.wrote = true
	w.writeSoon()
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// sendStep is how much is handed to the kernel before a client must have taken
// some of it again.
const sendStep = 4 << 20

// ReadFrom sends a file without copying it through this process where the kernel
// can.
func (w *answer) ReadFrom(src io.Reader) (total int64, err error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	lr, limited := src.(*io.LimitedReader)
	if !ok || !limited {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	w.wrote = true
	for lr.N > 0 {
		w.writeSoon()
		step := &io.LimitedReader{R: lr.R, N: min(lr.N, sendStep)}
		n, err := to.ReadFrom(step)
		total += n
		lr.N -= n
		w.n += n
		if err != nil || n == 0 {
			return total, err
		}
	}
	return total, nil
}

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Responses that know no deadlines are those of tests.
func (w *answer) writeSoon() { _ = w.rc.SetWriteDeadline(time.Now().Add(w.stall)) }
func (w *answer) readSoon()  { _ = w.rc.SetReadDeadline(time.Now().Add(w.stall)) }

// last bounds what the server does after an answer: to send the rest of it, and
// to read what the client still sends.
func (w *answer) last(b *body) {
	w.writeSoon()
	if !b.ended {
		w.readSoon()
	}
}

// json sends a value.
func (w *answer) json(status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // a client that is gone does not read of it
	return nil
}

// empty sends an answer without a body.
func (w *answer) empty(status int) error {
	if status != http.StatusNoContent {
		w.Header().Set("Content-Length", "0")
	}
	w.WriteHeader(status)
	return nil
}

// body is a request's body that is counted, and that a client can't hold up.
type body struct {
	io.ReadCloser
	w     *answer
	n     int64
	ended bool
}

// Read reads what comes within the time of a stall.
func (b *body) Read(p []byte) (int, error) {
	b.w.readSoon()
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if err == io.EOF {
		// From here on silence is no stall.
		b.ended = true
		_ = b.w.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// tooLarge is an error about the size of a request.
type tooLarge struct{ error }

func (t *tooLarge) Unwrap() error { return t.error }

// statusOf is the status that tells of an error.
func statusOf(err error) int {
	var f *repo.Fault
	if errors.As(err, &f) {
		switch f.Code {
		case repo.RangeInvalid:
			return http.StatusRequestedRangeNotSatisfiable
		case repo.TooManyRequests:
			return http.StatusTooManyRequests
		}
	}
	var large *tooLarge
	if errors.As(err, &large) {
		return http.StatusRequestEntityTooLarge
	}
	switch errs.KindOf(err) {
	case errs.Invalid:
		return http.StatusBadRequest
	case errs.Unauthenticated:
		return http.StatusUnauthorized
	case errs.Denied:
		return http.StatusForbidden
	case errs.NotFound:
		return http.StatusNotFound
	case errs.Conflict:
		return http.StatusConflict
	case errs.Unsupported:
		return http.StatusMethodNotAllowed
	case errs.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// wireError is one error as clients read it.
// Format: OCI distribution-spec 1.1, "Error Codes".
type wireError struct {
	Code    repo.Code `json:"code"`
	Message string    `json:"message"`
	Detail  any       `json:"detail,omitempty"`
}

// faults lists what clients are told of an error.
func faults(err error) []wireError {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var list []wireError
		for _, e := range many.Unwrap() {
			list = append(list, faults(e)...)
		}
		return list
	}
	if f, ok := err.(*repo.Fault); ok {
		return []wireError{{f.Code, f.Text, f.Detail}}
	}
	if t, ok := err.(*tooLarge); ok {
		return []wireError{{repo.SizeInvalid, t.Error(), nil}}
	}
	if next := errors.Unwrap(err); next != nil {
		return faults(next)
	}
	return nil
}

// fail answers with an error, and logs what is the server's own fault.
func (s *Server) fail(r *request, err error) {
	status := statusOf(err)
	list := faults(err)
	if len(list) == 0 {
		code, text := repo.Code("UNKNOWN"), "internal error"
		switch status {
		case http.StatusUnauthorized:
			code, text = repo.Unauthorized, err.Error()
			s.setChallenge(r, "", "invalid_token")
		case http.StatusForbidden:
			code, text = repo.Denied, err.Error()
		case http.StatusBadRequest, http.StatusNotFound, http.StatusConflict:
			code, text = repo.Unsupported, err.Error()
		case http.StatusServiceUnavailable:
			code, text = repo.Unavailable, "try again later"
		}
		list = []wireError{{code, text, nil}}
	}
	if status >= 500 && r.Context().Err() == nil {
		s.Log.ErrorContext(r.Context(), "request failed", "method", r.Method, "uri", r.RequestURI, "error", err)
	}
	if r.w.wrote {
		// The body has begun: only its end can tell.
		panic(http.ErrAbortHandler)
	}
	if status == http.StatusServiceUnavailable {
		r.w.Header().Set("Retry-After", "10")
	}
	_ = r.w.json(status, map[string]any{"errors": list})
}
