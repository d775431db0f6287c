package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"

	"gantry/internal/errs"
)

// Error is what the daemon answered with a status of 400 and above.
type Error struct {
	Status  int
	Message string
}

// Error returns Docker's text, which scripts look for.
func (e *Error) Error() string { return "Error response from daemon: " + e.Message }

// ConnectError says that nobody answered at Host.
type ConnectError struct {
	Host string
	Err  error
}

func (e *ConnectError) Error() string {
	if errors.Is(e.Err, os.ErrPermission) {
		return fmt.Sprintf("permission denied while trying to connect to the docker API at %s", e.Host)
	}
	return fmt.Sprintf("Cannot connect to the Docker daemon at %s. Is the docker daemon running?", e.Host)
}

// Unwrap returns the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// KindOf returns the kind of an error of this package, or errs.Unknown.
func KindOf(err error) errs.Kind {
	var c *ConnectError
	if errors.As(err, &c) {
		return errs.Unavailable
	}
	var e *Error
	if !errors.As(err, &e) {
		return errs.KindOf(err)
	}
	switch e.Status {
	case http.StatusBadRequest:
		return errs.Invalid
	case http.StatusUnauthorized:
		return errs.Unauthenticated
	case http.StatusForbidden:
		return errs.Denied
	case http.StatusNotFound:
		return errs.NotFound
	case http.StatusConflict:
		return errs.Conflict
	case http.StatusNotImplemented:
		return errs.Unsupported
	case http.StatusServiceUnavailable:
		return errs.Unavailable
	}
	return errs.Unknown
}

// IsNotFound reports whether the daemon said 404.
func IsNotFound(err error) bool { return err != nil && KindOf(err) == errs.NotFound }

// maxErrorBody bounds what is read of an error's text.
const maxErrorBody = 1 << 20

func readError(res *http.Response) *Error {
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxErrorBody))
	e := &Error{Status: res.StatusCode}
	if err != nil {
		e.Message = fmt.Sprintf("%s (its text could not be read: %v)", res.Status, err)
		return e
	}
	var m struct {
		Message string `json:"message"`
	}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") && json.Unmarshal(b, &m) == nil {
		e.Message = strings.TrimSpace(m.Message)
	} else {
		e.Message = strings.TrimSpace(string(b))
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("request returned %s for API route and version %s, check if the server supports the requested API version", res.Status, requestPath(res))
	}
	return e
}

func requestPath(res *http.Response) string {
	if res.Request != nil && res.Request.URL != nil {
		return res.Request.URL.Path
	}
	return "?"
}

func (c *Client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var d *dialError
	if errors.As(err, &d) || errors.Is(err, syscall.ECONNREFUSED) {
		return &ConnectError{Host: c.host, Err: err}
	}
	return fmt.Errorf("error during connect: %w", err)
}

const tooNew = "Maximum supported API version is "

// downgrade takes the daemon's own highest version from e, if that is what e says.
func (c *Client) downgrade(e *Error) bool {
	if c.fixed || e.Status != http.StatusBadRequest {
		return false
	}
	_, rest, ok := strings.Cut(e.Message, tooNew)
	if !ok {
		return false
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end >= 0 {
		rest = rest[:end]
	}
	v := strings.Trim(rest, ".")
	if v == "" || !older(v, c.Version()) {
		return false
	}
	c.version.Store(&v)
	c.agreed.Store(true)
	return true
}

// older reports whether API version a is lower than b ("1.9" is older than "1.10").
func older(a, b string) bool {
	amaj, amin := splitVersion(a)
	bmaj, bmin := splitVersion(b)
	return amaj < bmaj || amaj == bmaj && amin < bmin
}

func splitVersion(v string) (int, int) {
	maj, mnr, _ := strings.Cut(v, ".")
	a, _ := strconv.Atoi(maj)
	b, _ := strconv.Atoi(mnr)
	return a, b
}

// AtLeast reports whether the version in use is v or newer. Before the first
// answer it speaks of the version the client hopes for.
func (c *Client) AtLeast(v string) bool { return !older(c.Version(), v) }
