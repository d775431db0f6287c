package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/registry/repo"
)

// Mirror returns what a repository of another registry, whose name is ns as
// clients know it, is called here: below the prefix of that registry, unless the
// client has put it there itself, as its rules for mirrors say. False if this
// server is no mirror of that registry.
func (c *Cache) Mirror(ns, name string) (string, bool) {
	if len(c.clients) == 0 { // what it has was pushed here for its clients
		return name, true
	}
	for _, cl := range c.clients {
		if !cl.called(ns) {
			continue
		}
		if cl.Prefix == "" || strings.HasPrefix(name, cl.Prefix+"/") {
			return name, true
		}
		return cl.Prefix + "/" + name, true
	}
	cl, _ := c.find(name)
	return name, cl != nil && (cl.Prefix != "" || len(cl.Hosts) == 0)
}

// called reports whether clients call a registry so.
func (c *client) called(ns string) bool {
	if len(c.Hosts) == 0 {
		return strings.EqualFold(c.base.Host, ns)
	}
	return slices.ContainsFunc(c.Hosts, func(h string) bool { return strings.EqualFold(h, ns) })
}

// Limits of a list of another registry: pages, and bytes of all of them.
const (
	maxPages     = 1000
	maxListBytes = 16 << 20
)

// Tags returns the tags that a repository has at its registry, sorted. stale: the
// registry can't be asked, and these are those that have been copied.
func (c *Cache) Tags(ctx context.Context, name string) (list []string, stale bool, err error) {
	cl, there := c.find(name)
	list = []string{}
	err = cl.pages(ctx, there, "tags/list?n=1000", func(data []byte) error {
		var page struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return err
		}
		for _, t := range page.Tags {
			if repo.IsTag(t) {
				list = append(list, t)
			}
		}
		return nil
	})
	switch {
	case err == nil:
		slices.Sort(list)
		return slices.Compact(list), false, nil
	case errs.Is(err, errs.NotFound):
		return nil, false, errs.With(errs.NotFound, &repo.Fault{Code: repo.NameUnknown, Text: "repository name not known to registry", Detail: map[string]string{"name": name}})
	case !errs.Is(err, errs.Unavailable):
		return nil, false, err
	}
	if list, e := c.store.Tags(ctx, name); e == nil {
		return list, true, nil
	}
	return nil, false, unknown(err, name, "")
}

// Referrers returns what refers to a manifest at its registry, or what is known
// of it here if that can't be asked, or lists none.
func (c *Cache) Referrers(ctx context.Context, name string, d digest.Digest) (list []ocispec.Descriptor, stale bool, err error) {
	cl, there := c.find(name)
	list = []ocispec.Descriptor{}
	err = cl.pages(ctx, there, "referrers/"+d.String(), func(data []byte) error {
		var page ocispec.Index
		if err := json.Unmarshal(data, &page); err != nil {
			return err
		}
		for _, r := range page.Manifests {
			if r.Digest.Validate() == nil {
				list = append(list, r)
			}
		}
		return nil
	})
	stale = errs.Is(err, errs.Unavailable)
	if err != nil && !stale && !errs.Is(err, errs.NotFound) {
		return nil, false, err
	}
	known, err := c.store.Referrers(ctx, name, d)
	if err != nil {
		return nil, false, err
	}
	list = append(list, known...)
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return slices.CompactFunc(list, func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest }), stale, nil
}

// pages reads a list by pages, as far as links lead on at the same registry.
// errs.Unavailable if an answer makes no sense, or there is too much.
func (c *client) pages(ctx context.Context, repository, rest string, read func([]byte) error) error {
	path, _, _ := strings.Cut(rest, "?")
	left := int64(maxListBytes)
	for range maxPages {
		resp, err := c.do(ctx, http.MethodGet, repository, rest, http.Header{"Accept": {"application/json, " + ocispec.MediaTypeImageIndex}})
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.LimitReader(resp.Body, left+1))
		resp.Body.Close()
		if left -= int64(len(data)); err == nil && left < 0 {
			err = fmt.Errorf("more than %d bytes", maxListBytes)
		}
		if err == nil {
			err = read(data)
		}
		if err != nil {
			return errs.New(errs.Unavailable, "upstream %s: a list of %s: %w", c.base.Host, repository, err)
		}
		query := nextPage(resp.Header.Get("Link"))
		if query == "" || path+"?"+query == rest {
			return nil
		}
		rest = path + "?" + query
	}
	return nil
}

// nextPage returns the query of the next page: its path is the list's, whatever
// the link says.
// Format: RFC 8288.
func nextPage(link string) string {
	for one := range strings.SplitSeq(link, ",") {
		target, params, ok := strings.Cut(one, ";")
		target = strings.TrimSpace(target)
		if !ok || !strings.Contains(strings.ReplaceAll(params, " ", ""), `rel="next"`) || !strings.HasPrefix(target, "<") || !strings.HasSuffix(target, ">") {
			continue
		}
		if u, err := url.Parse(target[1 : len(target)-1]); err == nil {
			return u.RawQuery
		}
	}
	return ""
}
