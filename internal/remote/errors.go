package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"gantry/internal/errs"
)

// statusOf returns the status code of an answer that is an error, or 0.
func statusOf(err error) int {
	var s remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &s) {
		return s.StatusCode
	}
	return 0
}

// translate gives an error of the transport its kind, and its text the form in
// which Docker's clients know it: what the registry says, not how it was asked.
func translate(err error) error {
	var limit *limitError
	if errors.As(err, &limit) {
		return errs.With(errs.Unavailable, limit)
	}
	if err == nil || errs.KindOf(err) != errs.Unknown {
		return err
	}
	var s remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &s) {
		text := registryText(s.Body)
		switch {
		case text != "":
			return errs.With(kindOfStatus(s.StatusCode), errors.New(text))
		}
		return errs.With(kindOfStatus(s.StatusCode), s)
	}
	switch {
	case errdefs.IsNotFound(err):
		return errs.With(errs.NotFound, err)
	case errdefs.IsInvalidArgument(err):
		return errs.With(errs.Invalid, err)
	}
	return err
}

func kindOfStatus(status int) errs.Kind {
	switch {
	case status == http.StatusUnauthorized:
		return errs.Unauthenticated
	case status == http.StatusForbidden:
		return errs.Denied
	case status == http.StatusNotFound:
		return errs.NotFound
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return errs.Unavailable
	}
	return errs.Unknown
}

// maxErrorText is how much of a registry's words an error repeats.
const maxErrorText = 1000

// registryText returns what a registry's error body says (distribution-spec,
// "Error Codes"): "code: message" of each, in Docker's spelling of codes. Empty
// if it is no such body.
func registryText(body []byte) string {
	var b struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		// Token servers say it so.
		Details string `json:"details"`
	}
	if json.Unmarshal(body, &b) != nil {
		return ""
	}
	var list []string
	for _, e := range b.Errors {
		code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
		if code == "toomanyrequests" {
			list = append(list, "toomanyrequests: "+printable(e.Message))
			continue
		}
		list = append(list, strings.TrimSuffix(code+": "+printable(e.Message), ": "))
	}
	if len(list) == 0 && b.Details != "" {
		list = append(list, "unauthorized: "+printable(b.Details))
	}
	text := strings.Join(list, "\n")
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + "…"
	}
	return text
}

// printable takes control characters, which a terminal would obey, out of a
// stranger's text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}

// pullError is the error of a failed resolve or fetch of name. It is never
// errs.Unauthenticated: clients would take that for a wish to be asked for a
// password, in scripts too.
func pullError(name reference.Named, err error) error {
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		if strings.Contains(err.Error(), "no basic auth credentials") {
			return errs.New(errs.Denied, "failed to resolve reference %q: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials", name.String())
		}
		return errs.New(errs.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login'", reference.FamiliarName(name))
	}
	t := translate(err)
	switch {
	case errs.Is(t, errs.NotFound):
		return errs.New(errs.NotFound, "failed to resolve reference %q: %s: not found", name.String(), name.String())
	case statusOf(err) == http.StatusUnauthorized, statusOf(err) == http.StatusForbidden, errs.Is(t, errs.Unauthenticated):
		return errs.New(errs.Denied, "pull access denied for %s, repository does not exist or may require 'docker login': %w", reference.FamiliarName(name), t)
	case errs.Is(t, errs.Invalid), errs.Is(t, errs.Denied), errs.Is(t, errs.Unavailable):
		return t
	}
	return fmt.Errorf("failed to resolve reference %q: %w", name.String(), t)
}

// pushError is the error of a failed push to name.
func pushError(name reference.Named, err error) error {
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		return errs.New(errs.Denied, "push access denied, repository does not exist or may require authorization: %w", err)
	}
	if t := translate(err); t != nil {
		if errs.Is(t, errs.Denied) || errs.Is(t, errs.Unauthenticated) {
			return errs.New(errs.KindOf(t), "%w", t)
		}
		return t
	}
	return nil
}

// parseDigest reads a digest; errs.Invalid if it is none.
func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", errs.With(errs.Invalid, err)
	}
	return d, nil
}

// withDigest returns name with a digest besides its tag, if it has one.
func withDigest(name reference.Named, d digest.Digest) (reference.Named, error) {
	c, err := reference.WithDigest(name, d)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	return c, nil
}

// isReset reports whether the other side has cut the connection.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

// trimHost takes the registry's domain off a repository.
func trimHost(repository, host string) string { return strings.TrimPrefix(repository, host+"/") }
