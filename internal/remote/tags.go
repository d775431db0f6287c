package remote

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/distribution/reference"

	"gantry/internal/errs"
)

// maxTags is how many tags one repository may have, maxPages how many answers
// they may come in.
const (
	maxTags  = 100_000
	maxPages = 1000
)

// anchoredTag is a whole tag (distribution-spec, "Pulling manifests").
var anchoredTag = regexp.MustCompile(`^[\w][\w.-]{0,127}$`)

// tags lists the tags of the repository, over all pages.
func (s *session) tags(ctx context.Context) ([]string, error) {
	w, _ := s.registry()
	next := w.path + "/" + reference.Path(s.name) + "/tags/list"
	var all []string
	for range maxPages {
		resp, data, err := s.get(ctx, next)
		if err != nil {
			return nil, pullError(s.name, err)
		}
		if resp.StatusCode != http.StatusOK {
			return nil, pullError(s.name, unexpected(resp, data))
		}
		var page struct{ Tags []string }
		if err := json.Unmarshal(data, &page); err != nil {
			return nil, errs.New(errs.Invalid, "tags of %s: %w", s.name.String(), err)
		}
		for _, t := range page.Tags {
			if !anchoredTag.MatchString(t) {
				return nil, errs.New(errs.Invalid, "tags of %s: %.200q is no tag", s.name.String(), t)
			}
		}
		if all = append(all, page.Tags...); len(all) > maxTags {
			return nil, errs.New(errs.Invalid, "%s has more than %d tags", s.name.String(), maxTags)
		}
		if next = nextPage(resp); next == "" {
			return all, nil
		}
	}
	return nil, errs.New(errs.Invalid, "tags of %s come in more than %d pages", s.name.String(), maxPages)
}

// nextPage returns path and query of the following page (RFC 8288); only on the
// same host.
func nextPage(resp *http.Response) string {
	for _, l := range resp.Header.Values("Link") {
		addr, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(l), "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
			continue
		}
		u, err := resp.Request.URL.Parse(addr)
		if err != nil || u.Host != resp.Request.URL.Host {
			return ""
		}
		return (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).String()
	}
	return ""
}

// unexpected is the error of an answer that is one.
func unexpected(resp *http.Response, body []byte) error {
	return remoteerrors.ErrUnexpectedStatus{
		Status: resp.Status, StatusCode: resp.StatusCode, Body: body,
		RequestURL: resp.Request.URL.Redacted(), RequestMethod: resp.Request.Method,
	}
}
