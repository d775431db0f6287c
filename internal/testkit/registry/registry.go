// Package registry is a small, correct registry for tests: the parts of the OCI
// distribution-spec 1.1 that pulls and pushes use, with basic and token
// authentication, and faults on request. It keeps everything in memory and
// remembers what it was asked, so that tests can say what a client must not do.
//
// Tests of the daemon and of package remote call it. It writes nothing, and must
// not know who its clients are.
package registry

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Auth is how clients must show who they are.
type Auth int

// The kinds of authentication.
const (
	Anonymous Auth = iota
	Basic
	Token // of a token server, which is the registry itself unless Realm says otherwise
)

// Options say how a registry behaves. Faults can be changed while it runs,
// through Server.Set.
type Options struct {
	Auth           Auth
	User, Password string
	Realm          string // of Token; empty for the registry's own
	Identity       string // identity token that it gives at a login and takes; empty for none
	TLS            bool
	Faults         Faults
}

// Faults are what goes wrong.
type Faults struct {
	CutAfter int64 // each answer with a blob ends, with its connection, after so many bytes
	NoRanges bool  // ranges are ignored
	Rate     int64 // bytes of a blob a second; 0 for no bound
	// Before is called before each request is handled; true: it has answered.
	Before func(w http.ResponseWriter, r *http.Request) bool
}

// A Request is what the registry was asked.
type Request struct {
	Method, Path, Query, Host string
	Authorization, Range      string
}

// A Server is a running registry. It ends with its test.
type Server struct {
	URL  string // with scheme
	Host string // host:port, as image names begin
	HTTP *httptest.Server

	opts Options
	mu   sync.Mutex
	// blobs and manifests by digest, and the repositories that have them.
	blobs    map[digest.Digest][]byte
	repos    map[string]*repo
	uploads  map[string][]byte
	requests []Request
	sent     int64 // bytes of blobs
	tokens   map[string]string
}

type repo struct {
	blobs     map[digest.Digest]bool
	manifests map[digest.Digest]manifest
	tags      map[string]digest.Digest
}

type manifest struct {
	mediaType string
	data      []byte
}

// New starts a registry.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{opts: o, blobs: map[digest.Digest][]byte{}, repos: map[string]*repo{}, uploads: map[string][]byte{}, tokens: map[string]string{}}
	if o.TLS {
		s.HTTP = httptest.NewTLSServer(s)
	} else {
		s.HTTP = httptest.NewServer(s)
	}
	s.URL = s.HTTP.URL
	s.Host = strings.TrimPrefix(strings.TrimPrefix(s.URL, "https://"), "http://")
	t.Cleanup(func() {
		s.HTTP.CloseClientConnections()
		s.HTTP.Close()
	})
	return s
}

// Set changes the faults.
func (s *Server) Set(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.Faults = f
}

// Requests returns what was asked since the last Forget, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Sent returns how many bytes of blobs were sent since the last Forget.
func (s *Server) Sent() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// Forget forgets the requests.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.sent = nil, 0
}

// repo returns a repository, made if need be. s.mu is held.
func (s *Server) repo(name string) *repo {
	r := s.repos[name]
	if r == nil {
		r = &repo{map[digest.Digest]bool{}, map[digest.Digest]manifest{}, map[string]digest.Digest{}}
		s.repos[name] = r
	}
	return r
}

// PutBlob adds a blob to a repository.
func (s *Server) PutBlob(name string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[d] = data
	s.repo(name).blobs[d] = true
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(data))}
}

// PutManifest adds a manifest or index to a repository, whatever it says; under
// a tag if that is not empty.
func (s *Server) PutManifest(name, tag, mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repo(name)
	r.manifests[d] = manifest{mediaType, data}
	if tag != "" {
		r.tags[tag] = d
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// Manifest returns what a tag or digest of a repository means.
func (s *Server) Manifest(name, ref string) (mediaType string, data []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, _, ok := s.find(name, ref)
	return m.mediaType, m.data, ok
}

func (s *Server) find(name, ref string) (manifest, digest.Digest, bool) {
	r := s.repos[name]
	if r == nil {
		return manifest{}, "", false
	}
	d, ok := r.tags[ref]
	if !ok {
		d = digest.Digest(ref)
	}
	m, ok := r.manifests[d]
	return m, d, ok
}

var (
	blobPath     = regexp.MustCompile(`^/v2/(.+)/blobs/([a-z0-9]+:[a-f0-9]+)$`)
	uploadPath   = regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([^/]*)$`)
	manifestPath = regexp.MustCompile(`^/v2/(.+)/manifests/([^/]+)$`)
	tagsPath     = regexp.MustCompile(`^/v2/(.+)/tags/list$`)
)

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Host, r.Header.Get("Authorization"), r.Header.Get("Range")})
	faults := s.opts.Faults
	s.mu.Unlock()
	if faults.Before != nil && faults.Before(w, r) {
		return
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.URL.Path == "/token" {
		s.token(w, r)
		return
	}
	if !s.allowed(w, r) {
		return
	}
	p := r.URL.Path
	switch m := (matcher{path: p}); {
	case p == "/v2/":
		_, _ = io.WriteString(w, "{}")
	case p == "/v2/_catalog":
		s.mu.Lock()
		names := slices.Sorted(maps.Keys(s.repos))
		s.mu.Unlock()
		s.page(w, r, "repositories", names, "")
	case m.is(tagsPath):
		s.tags(w, r, m.got[1])
	case m.is(uploadPath):
		s.upload(w, r, m.got[1], m.got[2])
	case m.is(blobPath):
		s.blob(w, r, m.got[1], digest.Digest(m.got[2]), faults)
	case m.is(manifestPath):
		s.manifest(w, r, m.got[1], m.got[2])
	default:
		fail(w, http.StatusNotFound, "NAME_UNKNOWN", "no such page")
	}
}

type matcher struct {
	path string
	got  []string
}

func (m *matcher) is(re *regexp.Regexp) bool {
	m.got = re.FindStringSubmatch(m.path)
	return m.got != nil
}

// fail answers with an error body (distribution-spec, "Error Codes").
func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

func (s *Server) tags(w http.ResponseWriter, r *http.Request, name string) {
	s.mu.Lock()
	repo := s.repos[name]
	var list []string
	if repo != nil {
		list = slices.Sorted(maps.Keys(repo.tags))
	}
	s.mu.Unlock()
	if repo == nil {
		fail(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	s.page(w, r, "tags", list, name)
}

// pageSize is how many names an answer lists if the client does not say.
const pageSize = 3

// page answers with a part of a list, and a link to the next.
func (s *Server) page(w http.ResponseWriter, r *http.Request, key string, list []string, name string) {
	if last := r.URL.Query().Get("last"); last != "" {
		i, found := slices.BinarySearch(list, last)
		if found {
			i++
		}
		list = list[i:]
	}
	if len(list) > pageSize {
		list = list[:pageSize]
		q := url.Values{"last": {list[pageSize-1]}, "n": {fmt.Sprint(pageSize)}}
		w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.Path, q.Encode()))
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"name": name, key: list})
}

func (s *Server) manifest(w http.ResponseWriter, r *http.Request, name, ref string) {
	if r.Method == http.MethodPut {
		s.putManifest(w, r, name, ref)
		return
	}
	s.mu.Lock()
	m, d, ok := s.find(name, ref)
	s.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", fmt.Sprint(len(m.data)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(m.data)
	}
}

// putManifest takes a manifest if everything that it names is there.
func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, name, ref string) {
	data, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		return
	}
	var m struct {
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if json.Unmarshal(data, &m) != nil {
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID", "manifest invalid")
		return
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	s.mu.Lock()
	repo := s.repo(name)
	for _, l := range m.Layers {
		if !repo.blobs[l.Digest] {
			s.mu.Unlock()
			fail(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
			return
		}
	}
	for _, c := range m.Manifests {
		if _, ok := repo.manifests[c.Digest]; !ok {
			s.mu.Unlock()
			fail(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "manifest unknown to registry")
			return
		}
	}
	s.mu.Unlock()
	tag := ref
	if strings.Contains(ref, ":") {
		tag = ""
	}
	d := s.PutManifest(name, tag, r.Header.Get("Content-Type"), data)
	w.Header().Set("Docker-Content-Digest", d.Digest.String())
	w.Header().Set("Location", path.Join("/v2", name, "manifests", d.Digest.String()))
	w.WriteHeader(http.StatusCreated)
}

func randomID() string { return rand.Text() }
