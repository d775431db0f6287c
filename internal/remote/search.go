package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"gantry/internal/errs"
	apiwire "gantry/internal/wire"
)

// SearchOptions says what to search for.
type SearchOptions struct {
	Term     string // may begin with a registry's host
	Limit    int    // 0 for 25; at most 100
	Stars    int    // at least
	Official *bool
	// Automated is a property that no image has any more.
	Automated bool
	Auth      apiwire.RegistryAuth
}

const defaultResults = 25

// Search asks a registry for repositories. Registries without a search of their
// own are asked for the list of their repositories instead.
func (c *Client) Search(ctx context.Context, o SearchOptions) ([]apiwire.RegistrySearch, error) {
	if o.Limit == 0 {
		o.Limit = defaultResults
	}
	if o.Limit < 1 || o.Limit > 100 {
		return nil, errs.New(errs.Invalid, "limit %d is outside the range of [1, 100]", o.Limit)
	}
	if strings.Contains(o.Term, "://") {
		return nil, errs.New(errs.Invalid, "invalid repository name: repository name (%s) should not have a scheme", o.Term)
	}
	domain, term := splitTerm(o.Term)
	name, err := reference.ParseNormalizedNamed(domain + "/search")
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	s, err := c.open(name, o.Auth)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var list []apiwire.RegistrySearch
	if domain == defaultDomain() {
		list, err = s.searchV1(ctx, "https://index."+domain+"/v1/", term, o.Limit)
	} else {
		list, err = s.searchOther(ctx, term, o.Limit)
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(r apiwire.RegistrySearch) bool {
		return r.StarCount < o.Stars || o.Official != nil && r.IsOfficial != *o.Official || o.Automated
	}), nil
}

// splitTerm takes the registry's host off a term: what looks like one before the
// first slash.
func splitTerm(term string) (domain, rest string) {
	head, tail, ok := strings.Cut(term, "/")
	if !ok || !strings.ContainsAny(head, ".:") && head != "localhost" {
		return defaultDomain(), strings.TrimPrefix(term, "library/")
	}
	if head == "index."+defaultDomain() || head == defaultDomain() {
		return defaultDomain(), strings.TrimPrefix(tail, "library/")
	}
	return head, tail
}

// searchV1 searches by Docker's registry API 1, at its base address.
func (s *session) searchV1(ctx context.Context, base, term string, limit int) ([]apiwire.RegistrySearch, error) {
	q := "q=" + url.QueryEscape(term) + "&n=" + fmt.Sprint(limit)
	resp, data, err := s.ask(ctx, base+"search?"+q)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errs.With(kindOfStatus(resp.StatusCode), fmt.Errorf("Unexpected status code %d", resp.StatusCode)) //nolint:staticcheck // Docker's text
	}
	var r struct{ Results []apiwire.RegistrySearch }
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, errs.New(errs.Invalid, "error decoding registry search results: %w", err)
	}
	for i := range r.Results {
		r.Results[i].Description = printable(r.Results[i].Description)
	}
	return r.Results[:min(limit, len(r.Results))], nil
}

// ask sends one anonymous request to an address.
func (s *session) ask(ctx context.Context, addr string) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, maxTextWindow)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
	if err != nil {
		return nil, nil, errs.With(errs.Invalid, err)
	}
	w, _ := s.registry()
	resp, err := w.client().Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := readText(resp.Body)
	return resp, data, err
}

// searchOther searches a registry other than the default one: by API 1 if it has
// that, else in the list of its repositories.
func (s *session) searchOther(ctx context.Context, term string, limit int) ([]apiwire.RegistrySearch, error) {
	w, h := s.registry()
	schemes := []string{"https"}
	if w.insecure {
		schemes = append(schemes, "http")
	}
	var failed []string
	for _, scheme := range schemes {
		base := scheme + "://" + h.Host + "/v1/"
		resp, _, err := s.ask(ctx, base+"_ping")
		if err != nil {
			failed = append(failed, strings.ToUpper(scheme)+" attempt: "+err.Error())
			continue
		}
		if resp.StatusCode == http.StatusOK {
			return s.searchV1(ctx, base, term, limit)
		}
		return s.searchCatalog(ctx, term, limit)
	}
	return nil, errs.New(errs.Invalid, "invalid registry endpoint %q. %s", schemes[len(schemes)-1]+"://"+h.Host+"/v1/", strings.Join(failed, ". "))
}

// searchCatalog looks for term in the names of all repositories.
func (s *session) searchCatalog(ctx context.Context, term string, limit int) ([]apiwire.RegistrySearch, error) {
	w, _ := s.registry()
	next := w.path + "/_catalog?n=1000"
	var list []apiwire.RegistrySearch
	for page := 0; next != "" && page < maxPages; page++ {
		resp, data, err := s.get(ctx, next)
		if err != nil {
			return nil, translate(err)
		}
		if resp.StatusCode != http.StatusOK {
			return nil, errs.New(errs.Unsupported, "%s has no search: it answers %s to a request for its repositories", w.host, resp.Status)
		}
		var c struct{ Repositories []string }
		if err := json.Unmarshal(data, &c); err != nil {
			return nil, errs.New(errs.Invalid, "repositories of %s: %w", w.host, err)
		}
		for _, r := range c.Repositories {
			if strings.Contains(r, term) {
				list = append(list, apiwire.RegistrySearch{Name: w.host + "/" + printable(r)})
			}
			if len(list) == limit {
				return list, nil
			}
		}
		next = nextPage(resp)
	}
	return list, nil
}
