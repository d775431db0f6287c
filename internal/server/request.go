package server

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/filter"
)

// maxBody is how many bytes of JSON a request may carry.
const maxBody = 32 << 20

// A request is a routed HTTP request.
type request struct {
	*http.Request
	v     version // as asked for, never below 1.40
	name  string  // what the pattern's wildcards stand for
	sub   string
	query url.Values
}

// A handler answers a request. An error that it returns becomes the answer,
// unless one has begun.
type handler func(w http.ResponseWriter, r *request) error

// flag returns a boolean of the query: false are, in any case, nothing, blank,
// 0, no, false and none; everything else is true. The first value counts.
func (r *request) flag(key string) bool {
	return truth(r.query.Get(key))
}

func truth(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag with another answer for a key that is not there at all.
func (r *request) flagOr(key string, otherwise filter.Otherwise) bool {
	if !r.query.Has(key) {
		return otherwise == filter.OtherwiseTrue
	}
	return r.flag(key)
}

// filters reads and checks the filters parameter.
func (r *request) filters(allowed filter.Keys) (filter.Args, error) {
	a, err := filter.Parse(r.query.Get("filters"))
	if err != nil {
		return nil, err
	}
	return a, a.Check(allowed)
}

// number reads an optional decimal number of the query.
func (r *request) number(key string) (n int, given bool, err error) {
	s := r.query.Get(key)
	if s == "" {
		return 0, false, nil
	}
	n, err = strconv.Atoi(s)
	return n, true, errs.With(errs.Invalid, err)
}

// size reads the h and w of a resize.
func (r *request) size() (h, w uint, err error) {
	read := func(key, what string) (uint, error) {
		n, err := strconv.ParseUint(r.query.Get(key), 10, 32)
		if num := (*strconv.NumError)(nil); errors.As(err, &num) {
			reason := num.Err
			if strings.HasPrefix(r.query.Get(key), "-") {
				if _, e := strconv.ParseInt(r.query.Get(key), 10, 64); e == nil {
					reason = strconv.ErrRange
				}
			}
			return 0, errs.New(errs.Invalid, "invalid resize %s %q: %w", what, r.query.Get(key), reason)
		}
		return uint(n), nil
	}
	if h, err = read("h", "height"); err != nil {
		return 0, 0, err
	}
	w, err = read("w", "width")
	return h, w, err
}

// parseTime reads seconds[.fraction] since 1970; zero time for nothing.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	secs, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(secs, 10, 64)
	if num := (*strconv.NumError)(nil); errors.As(err, &num) {
		return time.Time{}, errs.New(errs.Invalid, "invalid timestamp %q: invalid seconds %q: %w", s, secs, num.Err)
	}
	if frac == "" {
		return time.Unix(n, 0), nil
	}
	if len(frac) > 9 {
		frac = frac[:9]
	}
	nanos, err := strconv.ParseUint(frac+strings.Repeat("0", 9-len(frac)), 10, 64)
	if num := (*strconv.NumError)(nil); errors.As(err, &num) {
		return time.Time{}, errs.New(errs.Invalid, "invalid timestamp %q: invalid nanoseconds %q: %w", s, frac, num.Err)
	}
	return time.Unix(n, int64(nanos)), nil
}

// checkJSON returns errs.Invalid if the request has a body that is not declared
// to be JSON.
func (r *request) checkJSON() error {
	ct := r.Header.Get("Content-Type")
	if ct == "" && r.ContentLength == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(ct)
	if err != nil {
		return errs.New(errs.Invalid, "malformed Content-Type header (%s): %w", ct, err)
	}
	if kind != "application/json" {
		return errs.New(errs.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", ct)
	}
	return nil
}

// decode reads the body, exactly one JSON value, into v.
func (r *request) decode(w http.ResponseWriter, v any) error {
	if err := r.checkJSON(); err != nil {
		return err
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	if err := dec.Decode(v); err != nil {
		return errs.New(errs.Invalid, "invalid JSON: %w", err)
	}
	if dec.More() {
		return errs.New(errs.Invalid, "unexpected content after JSON")
	}
	if _, err := dec.Token(); err != io.EOF {
		return errs.New(errs.Invalid, "unexpected content after JSON")
	}
	return nil
}

// decodeIfAny is decode for a body that may be absent.
func (r *request) decodeIfAny(w http.ResponseWriter, v any) error {
	if r.ContentLength == 0 {
		return r.checkJSON()
	}
	return r.decode(w, v)
}
