package server

import (
	"encoding/json"
	"errors"
	"net/http"

	"gantry/internal/errs"
	"gantry/internal/shim"
	"gantry/internal/wire"
)

// statuses is the one table from the kind of an error to a status code.
var statuses = map[errs.Kind]int{
	errs.Unknown:         http.StatusInternalServerError,
	errs.Invalid:         http.StatusBadRequest,
	errs.Unauthenticated: http.StatusUnauthorized,
	errs.Denied:          http.StatusForbidden,
	errs.NotFound:        http.StatusNotFound,
	errs.Conflict:        http.StatusConflict,
	errs.NoChange:        http.StatusNotModified,
	errs.Unsupported:     http.StatusNotImplemented,
	errs.Unavailable:     http.StatusServiceUnavailable,
	errs.Corrupt:         http.StatusInternalServerError,
}

// statusOf returns the status code of err.
func statusOf(err error) int {
	kind := errs.KindOf(err)
	if start := (*shim.StartError)(nil); kind == errs.Unknown && errors.As(err, &start) {
		return http.StatusBadRequest
	}
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return http.StatusRequestEntityTooLarge
	}
	return statuses[kind]
}

// writeError answers with err's status and text as the API's error object.
func writeError(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	_ = writeJSON(w, status, wire.ErrorResponse{Message: err.Error()})
}

// writeJSON answers with v on one line, a line feed at its end.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return encode(w, v)
}

// ok answers 200 with v.
func ok(w http.ResponseWriter, v any) error { return writeJSON(w, http.StatusOK, v) }

// encode writes v as JSON and a line feed, <, > and & as they are.
func encode(w interface{ Write([]byte) (int, error) }, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// noContent answers 204.
func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// empty answers with a status and no body.
func empty(w http.ResponseWriter, status int) error {
	w.WriteHeader(status)
	return nil
}

// notFound is the router's own answer, without the daemon's headers.
func notFound(w http.ResponseWriter) {
	_ = writeJSON(w, http.StatusNotFound, wire.ErrorResponse{Message: "page not found"})
}
