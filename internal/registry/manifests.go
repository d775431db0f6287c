package registry

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
)

// getManifest sends a manifest.
func (s *manifests) getManifest(r *request) error {
	if err := s.need(r, r.name, auth.Pull); err != nil {
		return err
	}
	if strings.Contains(r.ref, ":") {
		if _, err := repo.ParseDigest(r.ref); err != nil {
			return err
		}
	}
	m, err := s.manifest(r)
	if err != nil {
		return err
	}
	h := r.w.Header()
	h.Set("Docker-Content-Digest", m.Digest.String())
	h.Set("Etag", `"`+m.Digest.String()+`"`)
	if strings.Trim(strings.TrimPrefix(r.Header.Get("If-None-Match"), "W/"), `"`) == m.Digest.String() {
		r.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", m.MediaType)
	h.Set("Content-Length", strconv.Itoa(len(m.Data)))
	r.w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = r.w.Write(m.Data) // a client that is gone does not read of it
	}
	return nil
}

func (s *manifests) manifest(r *request) (repo.Content, error) {
	if !s.copied(r.name) {
		return s.Store.Manifest(r.Context(), r.name, r.ref)
	}
	m, stale, err := s.Cache.Manifest(r.Context(), r.name, r.ref)
	if stale {
		s.warn(r)
	}
	return m, err
}

// warn says that an answer may be old.
func (s *manifests) warn(r *request) {
	s.figures.stale.Add(1)
	r.w.Header().Set("Warning", `110 - "Response is Stale"`)
}

// maxTags is how many tags one manifest can be sent with.
const maxTags = 100

// putManifest takes a manifest.
func (s *manifests) putManifest(r *request) error {
	if err := s.pushable(r); err != nil {
		return err
	}
	p := repo.Push{Name: r.name, ContentType: r.Header.Get("Content-Type")}
	more := r.URL.Query()["tag"]
	if strings.Contains(r.ref, ":") {
		d, err := repo.ParseDigest(r.ref)
		if err != nil {
			return err
		}
		p.Digest, p.Tags = d, more
	} else if len(more) > 0 {
		return repo.NewFault(errs.Invalid, repo.TagInvalid, "the parameter tag goes with a digest")
	} else {
		p.Tags = []string{r.ref}
	}
	if len(p.Tags) > maxTags {
		return repo.NewFault(errs.Invalid, repo.TagInvalid, "more than %d tags", maxTags)
	}
	if r.ContentLength > repo.MaxManifest {
		return errs.With(errs.Invalid, &tooLarge{repo.NewFault(errs.Invalid, repo.SizeInvalid, "manifest too large")})
	}
	var err error
	if p.Data, err = readLimited(r.Body, repo.MaxManifest); err != nil {
		return err
	}
	d, m, err := s.Store.PutManifest(r.Context(), p)
	if err != nil {
		return err
	}
	h := r.w.Header()
	if m.Subject != nil {
		h.Set("OCI-Subject", m.Subject.Digest.String())
	}
	for _, t := range more {
		h.Add("OCI-Tag", t)
	}
	return s.created(r, "manifests/"+r.ref, d)
}

// deleteManifest removes a manifest, or a tag.
func (s *manifests) deleteManifest(r *request) error {
	if err := s.deletable(r); err != nil {
		return err
	}
	var err error
	if strings.Contains(r.ref, ":") {
		var d digest.Digest
		if d, err = repo.ParseDigest(r.ref); err != nil {
			return err
		}
		err = s.Store.DeleteManifest(r.Context(), r.name, d)
	} else {
		err = s.Store.DeleteTag(r.Context(), r.name, r.ref)
	}
	if err != nil {
		return err
	}
	return r.w.empty(http.StatusAccepted)
}

// maxPage is how many entries an answer has at most.
const maxPage = 1000

// pageOf reads the paging of a list: n < 0 if the client sets no bound.
func pageOf(r *request) (n int, last string, err error) {
	q := r.URL.Query()
	n = -1
	if text := q.Get("n"); text != "" {
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			return 0, "", errs.With(errs.Invalid, &repo.Fault{Code: "PAGINATION_NUMBER_INVALID", Text: "invalid number of results requested", Detail: map[string]string{"n": text}})
		}
	}
	return n, q.Get("last"), nil
}

// linkNext says where the next page is.
// Format: RFC 8288.
func linkNext(r *request, q url.Values) {
	if ns := r.URL.Query().Get("ns"); ns != "" {
		q.Set("ns", ns)
	}
	r.w.Header().Set("Link", "<"+r.URL.EscapedPath()+"?"+q.Encode()+`>; rel="next"`)
}

// tags lists the tags of a repository.
func (s *manifests) tags(r *request) error {
	if err := s.need(r, r.name, auth.Pull); err != nil {
		return err
	}
	n, last, err := pageOf(r)
	if err != nil {
		return err
	}
	list, err := s.listTags(r)
	if err != nil {
		return err
	}
	page, more := repo.Page(list, last, n)
	if more && n > 0 {
		linkNext(r, url.Values{"n": {strconv.Itoa(n)}, "last": {page[len(page)-1]}})
	}
	return r.w.json(http.StatusOK, map[string]any{"name": r.name, "tags": page})
}

func (s *manifests) listTags(r *request) ([]string, error) {
	if !s.copied(r.name) {
		return s.Store.Tags(r.Context(), r.name)
	}
	list, stale, err := s.Cache.Tags(r.Context(), r.name)
	if stale {
		s.warn(r)
	}
	return list, err
}

func (s *manifests) listReferrers(r *request, d digest.Digest) ([]ocispec.Descriptor, error) {
	if !s.copied(r.name) {
		return s.Store.Referrers(r.Context(), r.name, d)
	}
	list, stale, err := s.Cache.Referrers(r.Context(), r.name, d)
	if stale {
		s.warn(r)
	}
	return list, err
}

// catalog lists the repositories that the client may pull.
func (s *manifests) catalog(r *request) error {
	if err := s.need(r, "", auth.Catalog); err != nil {
		return err
	}
	n, last, err := pageOf(r)
	if err != nil {
		return err
	}
	if n < 0 || n > maxPage {
		n = maxPage
	}
	list, err := s.Store.Catalog(r.Context())
	if err == nil {
		list, err = s.visible(r, list)
	}
	if err != nil {
		return err
	}
	page, more := repo.Page(list, last, n)
	if more && n > 0 {
		linkNext(r, url.Values{"n": {strconv.Itoa(n)}, "last": {page[len(page)-1]}})
	}
	return r.w.json(http.StatusOK, map[string]any{"repositories": page})
}

// referrers lists what refers to a manifest.
func (s *manifests) referrers(r *request) error {
	if err := s.need(r, r.name, auth.Pull); err != nil {
		return err
	}
	d, err := repo.ParseDigest(r.ref)
	if err != nil {
		return err
	}
	list, err := s.listReferrers(r, d)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if want := q["artifactType"]; len(want) > 0 && want[0] != "" {
		list = slices.DeleteFunc(list, func(x ocispec.Descriptor) bool { return !slices.Contains(want, x.ArtifactType) })
		r.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if last := q.Get("last"); last != "" {
		list = slices.DeleteFunc(list, func(x ocispec.Descriptor) bool { return string(x.Digest) <= last })
	}
	if len(list) > maxPage {
		list = list[:maxPage]
		q.Set("last", string(list[maxPage-1].Digest))
		linkNext(r, q)
	}
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	x.SchemaVersion = 2
	return r.w.index(x)
}
