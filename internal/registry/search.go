package registry

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"gantry/internal/errs"
	"gantry/internal/registry/auth"
)

// index sends an index.
func (w *answer) index(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data) // a client that is gone does not read of it
	return nil
}

// pingV1 tells clients of registry API 1 that they can search here.
func (s *pages) pingV1(r *request) error {
	r.w.Header().Set("X-Docker-Registry-Version", "gantry")
	r.w.Header().Set("X-Docker-Registry-Standalone", "true")
	return r.w.json(http.StatusOK, true)
}

// found is a repository as clients read it.
type found struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
	Automated   bool   `json:"is_automated"`
}

// maxSearch is how many repositories a search finds at most.
const maxSearch = 100

// search finds repositories by a part of their names. It names them as a pull
// does, with the registry's address.
func (s *pages) search(r *request) error {
	if err := s.need(r, "", auth.Catalog); err != nil {
		return err
	}
	q := r.URL.Query()
	n := 25
	if text := q.Get("n"); text != "" {
		v, err := strconv.Atoi(text)
		if err != nil || v < 1 || v > maxSearch {
			return errs.New(errs.Invalid, "n must be 1 to %d", maxSearch)
		}
		n = v
	}
	names, err := s.Store.Catalog(r.Context())
	if err == nil {
		names, err = s.visible(r, names)
	}
	if err != nil {
		return err
	}
	term := strings.ToLower(strings.TrimSpace(q.Get("q")))
	list := []found{}
	for _, name := range names {
		if strings.Contains(name, term) && len(list) < n {
			list = append(list, found{Name: r.Host + "/" + name})
		}
	}
	return r.w.json(http.StatusOK, map[string]any{"query": q.Get("q"), "num_results": len(list), "results": list})
}
