package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/registry"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
	"gantry/internal/registry/storage"
	"gantry/internal/registry/storage/s3"
	"gantry/internal/registry/storage/s3/s3fake"
)

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
)

// site is a registry that a test talks to.
type site struct {
	t     testing.TB
	url   string
	store *repo.Store
	user  string // name:password
	token string
}

func local(t testing.TB, dir string) storage.Backend {
	b, err := storage.NewLocal(filepath.Join(dir, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// everybody is a policy of no users.
func everybody(t testing.TB) *auth.Policy {
	p, err := auth.Open(auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start serves a registry of a backend; change may change how.
func start(t testing.TB, b storage.Backend, dir string, change func(*registry.Options, *repo.Options)) *site {
	ro := repo.Options{Backend: b, Spool: filepath.Join(dir, "spool"), Grace: time.Hour}
	policy, err := auth.Open(auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := registry.Options{Policy: policy, Stall: 5 * time.Second}
	if change != nil {
		change(&o, &ro)
	}
	store, err := repo.Open(ro)
	if err != nil {
		t.Fatal(err)
	}
	o.Store = store
	srv := httptest.NewServer(registry.New(o))
	t.Cleanup(func() {
		srv.Close()
		store.Close()
	})
	return &site{t: t, url: srv.URL, store: store}
}

// reply is an answer that has been read.
type reply struct {
	status int
	http.Header
	body string
}

// do sends a request. h are pairs of header names and values.
func (s *site) do(method, path, body string, h ...string) reply {
	s.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = s.url + path
	}
	req, err := http.NewRequest(method, path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if u, p, ok := strings.Cut(s.user, ":"); ok {
		req.SetBasicAuth(u, p)
	}
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	for i := 0; i+1 < len(h); i += 2 {
		req.Header.Set(h[i], h[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(data)}
}

// want sends a request and checks status and, if not empty, the error's code.
func (s *site) want(status int, code, method, path, body string, h ...string) reply {
	s.t.Helper()
	r := s.do(method, path, body, h...)
	if r.status != status || code != "" && !strings.Contains(r.body, `"code":"`+code+`"`) {
		s.t.Errorf("%s %s: %d %s, want %d %s", method, path, r.status, r.body, status, code)
	}
	return r
}

// blob pushes a blob as a whole.
func (s *site) blob(name, data string) string {
	s.t.Helper()
	d := digest.FromString(data).String()
	r := s.want(201, "", "POST", "/v2/"+name+"/blobs/uploads/?digest="+d, data)
	if r.Get("Location") == "" || r.Get("Docker-Content-Digest") != d {
		s.t.Errorf("headers %v", r.Header)
	}
	return d
}

func desc(typ, data string) map[string]any {
	return map[string]any{"mediaType": typ, "digest": digest.FromString(data).String(), "size": len(data)}
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// image is the text of a manifest of a configuration and layers.
func image(config string, more map[string]any, layers ...string) string {
	list := []any{}
	for _, l := range layers {
		list = append(list, desc("application/vnd.oci.image.layer.v1.tar", l))
	}
	m := map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": desc("application/vnd.oci.image.config.v1+json", config), "layers": list}
	for k, v := range more {
		m[k] = v
	}
	return text(m)
}

// push pushes an image of one layer under a tag and returns its digest.
func (s *site) push(name, tag, layer string) string {
	s.t.Helper()
	s.blob(name, "{}")
	s.blob(name, layer)
	m := image("{}", nil, layer)
	s.want(201, "", "PUT", "/v2/"+name+"/manifests/"+tag, m, "Content-Type", ociManifest)
	return digest.FromString(m).String()
}

// each runs a test on every backend.
func each(t *testing.T, f func(t *testing.T, s *site)) {
	t.Run("local", func(t *testing.T) {
		dir := t.TempDir()
		f(t, start(t, local(t, dir), dir, nil))
	})
	t.Run("s3", func(t *testing.T) {
		b, err := s3.New(s3.Options{Endpoint: s3fake.Start(t).URL, Bucket: s3fake.Bucket, AccessKey: s3fake.Key, SecretKey: s3fake.Secret})
		if err != nil {
			t.Fatal(err)
		}
		f(t, start(t, b, t.TempDir(), nil))
	})
}

func TestPull(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.want(200, "", "GET", "/v2/", "")
		d := s.push("a/b", "v1", "0123456789")
		layer := digest.FromString("0123456789").String()
		for _, ref := range []string{"v1", d} {
			r := s.want(200, "", "GET", "/v2/a/b/manifests/"+ref, "")
			if r.Get("Docker-Content-Digest") != d || r.Get("Content-Type") != ociManifest || digest.FromString(r.body).String() != d {
				t.Errorf("%s: %v %s", ref, r.Header, r.body)
			}
			h := s.want(200, "", "HEAD", "/v2/a/b/manifests/"+ref, "")
			if h.Get("Content-Length") != fmt.Sprint(len(r.body)) || h.Get("Docker-Content-Digest") != d || h.body != "" {
				t.Errorf("HEAD %v", h.Header)
			}
		}
		s.want(304, "", "GET", "/v2/a/b/manifests/v1", "", "If-None-Match", `"`+d+`"`)
		if r := s.want(200, "", "GET", "/v2/a/b/blobs/"+layer, ""); r.body != "0123456789" || r.Get("Docker-Content-Digest") != layer {
			t.Errorf("%q %v", r.body, r.Header)
		}
		if r := s.want(200, "", "HEAD", "/v2/a/b/blobs/"+layer, ""); r.Get("Content-Length") != "10" {
			t.Errorf("%v", r.Header)
		}
		for rng, want := range map[string]string{"bytes=2-4": "234", "bytes=7-": "789", "bytes=-2": "89"} {
			if r := s.want(206, "", "GET", "/v2/a/b/blobs/"+layer, "", "Range", rng); r.body != want || r.Get("Content-Range") == "" {
				t.Errorf("%s: %q %v", rng, r.body, r.Header)
			}
		}
		s.want(416, "", "GET", "/v2/a/b/blobs/"+layer, "", "Range", "bytes=10-")
		none := digest.FromString("none").String()
		s.want(404, "BLOB_UNKNOWN", "GET", "/v2/a/b/blobs/"+none, "")
		s.want(404, "BLOB_UNKNOWN", "GET", "/v2/other/blobs/"+layer, "")
		s.want(404, "", "HEAD", "/v2/a/b/blobs/"+none, "")
		s.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/b/manifests/none", "")
		s.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/a/b/manifests/"+none, "")
		s.want(404, "", "HEAD", "/v2/other/manifests/v1", "")
		s.want(400, "DIGEST_INVALID", "GET", "/v2/a/b/blobs/sha256:00", "")
		s.want(400, "DIGEST_INVALID", "GET", "/v2/a/b/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", "")
		s.want(400, "NAME_INVALID", "GET", "/v2/A/b/manifests/v1", "")
	})
}

func TestPushBlobs(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		const data = "hello, world"
		d := digest.FromString(data).String()
		// POST, then PUT.
		r := s.want(202, "", "POST", "/v2/x/blobs/uploads/", "")
		s.want(201, "", "PUT", r.Get("Location")+"?digest="+d, data)
		// Chunks, out of order once.
		r = s.want(202, "", "POST", "/v2/x/blobs/uploads/", "")
		at := r.Get("Location")
		r = s.want(202, "", "PATCH", at, data[:5], "Content-Range", "0-4")
		if r.Get("Range") != "0-4" || r.Get("Docker-Upload-UUID") == "" {
			t.Errorf("%v", r.Header)
		}
		r = s.want(416, "RANGE_INVALID", "PATCH", at, data[7:], "Content-Range", "7-11")
		if r.Get("Range") != "0-4" {
			t.Errorf("%v", r.Header)
		}
		s.want(400, "SIZE_INVALID", "PATCH", at, data[5:], "Content-Range", "5-6")
		s.want(416, "RANGE_INVALID", "PATCH", at, data[5:], "Content-Range", "5")
		if r = s.want(204, "", "GET", at, ""); r.Get("Range") != "0-4" || r.Get("Location") == "" {
			t.Errorf("%v", r.Header)
		}
		s.want(202, "", "PATCH", at, data[5:8], "Content-Range", "5-7")
		s.want(416, "", "PUT", at+"?digest="+d, data[8:], "Content-Range", "3-6")
		s.want(201, "", "PUT", at+"?digest="+d, data[8:], "Content-Range", "8-11")
		s.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", at, "")
		if r := s.want(200, "", "GET", "/v2/x/blobs/"+d, ""); r.body != data {
			t.Errorf("%q", r.body)
		}
		// A stream without ranges, ended by an empty PUT; other algorithms.
		for _, alg := range []digest.Algorithm{digest.SHA512, digest.SHA384} {
			for _, hint := range []string{"", "?digest-algorithm=" + alg.String()} {
				at = s.want(202, "", "POST", "/v2/x/blobs/uploads/"+hint, "").Get("Location")
				s.want(202, "", "PATCH", at, data)
				s.want(201, "", "PUT", at+"?digest="+alg.FromString(data).String(), "")
				s.want(200, "", "GET", "/v2/x/blobs/"+alg.FromString(data).String(), "")
			}
		}
		s.want(400, "DIGEST_INVALID", "POST", "/v2/x/blobs/uploads/?digest-algorithm=md5", "")
		// What is wrong.
		at = s.want(202, "", "POST", "/v2/x/blobs/uploads/", "").Get("Location")
		s.want(400, "DIGEST_INVALID", "PUT", at, data)
		s.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", strings.Replace(at, "/x/", "/y/", 1), "")
		s.want(400, "DIGEST_INVALID", "PUT", at+"?digest="+d, "other")
		s.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", at, "")
		s.want(400, "DIGEST_INVALID", "POST", "/v2/x/blobs/uploads/?digest="+d, "other")
		at = s.want(202, "", "POST", "/v2/x/blobs/uploads/", "").Get("Location")
		s.want(204, "", "DELETE", at, "")
		s.want(404, "BLOB_UPLOAD_UNKNOWN", "DELETE", at, "")
		s.want(404, "BLOB_UPLOAD_UNKNOWN", "PATCH", at, "x")
		// Mounts.
		r = s.want(201, "", "POST", "/v2/y/blobs/uploads/?from=x&mount="+d, "")
		if r.Get("Location") != "/v2/y/blobs/"+d {
			t.Errorf("%v", r.Header)
		}
		s.want(201, "", "POST", "/v2/z/blobs/uploads/?mount="+d, "")
		s.want(200, "", "GET", "/v2/z/blobs/"+d, "")
		none := digest.FromString("none").String()
		s.want(202, "", "POST", "/v2/y/blobs/uploads/?from=x&mount="+none, "")
		s.want(202, "", "POST", "/v2/y/blobs/uploads/?mount="+none, "")
		// An empty blob.
		s.blob("x", "")
	})
}

func TestPushManifests(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.blob("x", "{}")
		m := image("{}", nil, "layer")
		d := digest.FromString(m).String()
		s.want(404, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/x/manifests/v1", m, "Content-Type", ociManifest)
		s.blob("other", "layer")
		s.want(404, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/x/manifests/v1", m, "Content-Type", ociManifest)
		s.blob("x", "layer")
		r := s.want(201, "", "PUT", "/v2/x/manifests/v1", m, "Content-Type", ociManifest)
		if r.Get("Docker-Content-Digest") != d || r.Get("Location") == "" {
			t.Errorf("%v", r.Header)
		}
		r = s.want(201, "", "PUT", "/v2/x/manifests/"+d+"?tag=t1&tag=t2", m, "Content-Type", ociManifest)
		if got := r.Values("OCI-Tag"); len(got) != 2 {
			t.Errorf("OCI-Tag %q", got)
		}
		s.want(200, "", "GET", "/v2/x/manifests/t2", "")
		s.want(400, "DIGEST_INVALID", "PUT", "/v2/x/manifests/"+digest.FromString("no").String(), m, "Content-Type", ociManifest)
		s.want(400, "TAG_INVALID", "PUT", "/v2/x/manifests/.v", m, "Content-Type", ociManifest)
		s.want(400, "TAG_INVALID", "PUT", "/v2/x/manifests/"+d+"?tag=../x", m, "Content-Type", ociManifest)
		wrong := strings.Replace(m, `"size":5`, `"size":6`, 1)
		s.want(400, "SIZE_INVALID", "PUT", "/v2/x/manifests/w", wrong, "Content-Type", ociManifest)
		// Docker's type, and an index of both.
		dm := strings.Replace(m, ociManifest, repo.DockerManifest, 1)
		s.want(201, "", "PUT", "/v2/x/manifests/docker", dm, "Content-Type", repo.DockerManifest)
		if r := s.want(200, "", "GET", "/v2/x/manifests/docker", ""); r.Get("Content-Type") != repo.DockerManifest {
			t.Errorf("%v", r.Header)
		}
		index := func(list ...string) string {
			entries := []any{}
			for _, l := range list {
				entries = append(entries, desc(ociManifest, l))
			}
			return text(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": entries})
		}
		s.want(201, "", "PUT", "/v2/x/manifests/all", index(m, dm), "Content-Type", ociIndex)
		s.want(404, "MANIFEST_BLOB_UNKNOWN", "PUT", "/v2/x/manifests/all", index(m, "none"), "Content-Type", ociIndex)
		for what, bad := range map[string]string{
			"no JSON": "x", "two values": m + m, "schema 1": `{"schemaVersion":1,"fsLayers":[]}`, "another type": strings.Replace(m, ociManifest, ociIndex, 1),
			"unknown type": strings.Replace(m, ociManifest, "text/plain", 1), "both": strings.Replace(m, `{"config"`, `{"manifests":[],"config"`, 1),
			"bad digest": strings.Replace(m, "sha256:", "sha256:/../", 1), "negative": strings.Replace(m, `"size":5`, `"size":-5`, 1), "array": "[]", "null": "null",
		} {
			if r := s.do("PUT", "/v2/x/manifests/bad", bad, "Content-Type", ociManifest); r.status != 400 || !strings.Contains(r.body, "MANIFEST_INVALID") {
				t.Errorf("%s: %d %s", what, r.status, r.body)
			}
		}
		s.want(413, "SIZE_INVALID", "PUT", "/v2/x/manifests/huge", strings.Repeat(" ", repo.MaxManifest+1), "Content-Type", ociManifest)
		s.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/x/manifests/bad", "")
	})
}

func TestDiscovery(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for _, tag := range []string{"c", "a", "B", "d"} {
			s.push("x/y", tag, "layer")
		}
		d := s.push("w", "a", "layer")
		s.want(404, "NAME_UNKNOWN", "GET", "/v2/none/tags/list", "")
		for q, want := range map[string]string{"": `["B","a","c","d"]`, "?n=0": `[]`, "?n=2": `["B","a"]`, "?n=2&last=a": `["c","d"]`, "?last=b": `["c","d"]`, "?n=9&last=d": `[]`} {
			r := s.want(200, "", "GET", "/v2/x/y/tags/list"+q, "")
			if r.body != `{"name":"x/y","tags":`+want+`}` {
				t.Errorf("%s: %s", q, r.body)
			}
			if link := r.Get("Link"); (q == "?n=2") != (link != "") || link != "" && link != `</v2/x/y/tags/list?last=a&n=2>; rel="next"` {
				t.Errorf("%s: Link %q", q, link)
			}
		}
		s.want(400, "", "GET", "/v2/x/y/tags/list?n=-1", "")
		r := s.want(200, "", "GET", "/v2/_catalog?n=1", "")
		if r.body != `{"repositories":["w"]}` || r.Get("Link") != `</v2/_catalog?last=w&n=1>; rel="next"` {
			t.Errorf("%s %v", r.body, r.Header)
		}
		if r := s.want(200, "", "GET", "/v2/_catalog?n=1&last=w", ""); r.body != `{"repositories":["x/y"]}` || r.Get("Link") != "" {
			t.Errorf("%s %v", r.body, r.Header)
		}
		// Referrers: noted, filtered, merged with the fallback tag.
		none := digest.FromString("not here yet").String()
		if r := s.want(200, "", "GET", "/v2/w/referrers/"+none, ""); !strings.Contains(r.body, `"manifests":[]`) || r.Get("Content-Type") != ociIndex {
			t.Errorf("%s %v", r.body, r.Header)
		}
		subject := map[string]any{"mediaType": ociManifest, "digest": d, "size": 1}
		for _, typ := range []string{"a/sbom", "a/sig"} {
			m := image("{}", map[string]any{"subject": subject, "artifactType": typ, "annotations": map[string]string{"k": typ}}, "layer")
			r := s.want(201, "", "PUT", "/v2/w/manifests/"+digest.FromString(m).String(), m, "Content-Type", ociManifest)
			if r.Get("OCI-Subject") != d {
				t.Errorf("%v", r.Header)
			}
		}
		r = s.want(200, "", "GET", "/v2/w/referrers/"+d, "")
		if strings.Count(r.body, `"artifactType"`) != 2 || !strings.Contains(r.body, `"k":"a/sig"`) || r.Get("OCI-Filters-Applied") != "" {
			t.Errorf("%s", r.body)
		}
		r = s.want(200, "", "GET", "/v2/w/referrers/"+d+"?artifactType=a/sbom", "")
		if strings.Count(r.body, `"artifactType"`) != 1 || r.Get("OCI-Filters-Applied") != "artifactType" {
			t.Errorf("%s %v", r.body, r.Header)
		}
		old := desc(ociManifest, "old")
		old["artifactType"] = "a/old"
		old["digest"] = d
		fallback := text(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{old}})
		s.want(201, "", "PUT", "/v2/w/manifests/"+strings.Replace(d, ":", "-", 1), fallback, "Content-Type", ociIndex)
		if r = s.want(200, "", "GET", "/v2/w/referrers/"+d, ""); strings.Count(r.body, `"artifactType"`) != 3 {
			t.Errorf("%s", r.body)
		}
		s.want(400, "DIGEST_INVALID", "GET", "/v2/w/referrers/x", "")
		if r := s.want(200, "", "GET", "/v1/search?q=x", ""); !strings.Contains(r.body, `/x/y"`) || strings.Contains(r.body, `/w"`) {
			t.Errorf("%s", r.body)
		}
		s.want(200, "", "GET", "/v1/_ping", "")
	})
}

func TestManagement(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		d := s.push("x", "v1", "layer")
		s.push("x", "v2", "layer")
		layer := digest.FromString("layer").String()
		s.push("y", "v1", "layer")
		s.want(202, "", "DELETE", "/v2/x/manifests/v1", "")
		s.want(404, "MANIFEST_UNKNOWN", "DELETE", "/v2/x/manifests/v1", "")
		s.want(200, "", "GET", "/v2/x/manifests/"+d, "")
		s.want(202, "", "DELETE", "/v2/x/manifests/"+d, "")
		s.want(404, "", "GET", "/v2/x/manifests/v2", "")
		s.want(404, "", "GET", "/v2/x/manifests/"+d, "")
		s.want(200, "", "GET", "/v2/y/manifests/"+d, "")
		s.want(202, "", "DELETE", "/v2/x/blobs/"+layer, "")
		s.want(404, "BLOB_UNKNOWN", "DELETE", "/v2/x/blobs/"+layer, "")
		// S17: what one repository has lost is not seen through another.
		s.want(200, "", "GET", "/v2/y/blobs/"+layer, "")
		s.want(404, "BLOB_UNKNOWN", "GET", "/v2/x/blobs/"+layer, "")
		if r := s.want(405, "UNSUPPORTED", "PUT", "/v2/x/tags/list", ""); r.Get("Allow") != "GET" {
			t.Errorf("%v", r.Header)
		}
		// A referrer that is deleted is listed no longer.
		m := image("{}", map[string]any{"subject": map[string]any{"mediaType": ociManifest, "digest": d, "size": 1}}, "layer")
		s.want(201, "", "PUT", "/v2/y/manifests/sig", m, "Content-Type", ociManifest)
		s.want(202, "", "DELETE", "/v2/y/manifests/"+digest.FromString(m).String(), "")
		if r := s.want(200, "", "GET", "/v2/y/referrers/"+d, ""); !strings.Contains(r.body, `"manifests":[]`) {
			t.Errorf("%s", r.body)
		}
	})
	dir := t.TempDir()
	s := start(t, local(t, dir), dir, func(o *registry.Options, _ *repo.Options) { o.NoDelete = true })
	d := s.push("x", "v1", "layer")
	s.want(405, "UNSUPPORTED", "DELETE", "/v2/x/manifests/"+d, "")
	s.want(405, "UNSUPPORTED", "DELETE", "/v2/x/blobs/"+d, "")
	dir = t.TempDir()
	s = start(t, local(t, dir), dir, func(o *registry.Options, _ *repo.Options) { o.ReadOnly = true })
	s.want(405, "UNSUPPORTED", "POST", "/v2/x/blobs/uploads/", "")
	s.want(405, "UNSUPPORTED", "PUT", "/v2/x/manifests/v1", "{}")
	s.want(405, "UNSUPPORTED", "DELETE", "/v2/x/manifests/v1", "")
	s.want(405, "UNSUPPORTED", "POST", "/gc", "")
}

// An upload goes on after the server has been restarted, and a chunk that was
// cut is kept as far as it came.
func TestUploadOutlivesServer(t *testing.T) {
	dir := t.TempDir()
	b := local(t, dir)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	d := digest.FromBytes(data)
	s := start(t, b, dir, nil)
	at := s.want(202, "", "POST", "/v2/x/blobs/uploads/", "").Get("Location")
	s.want(202, "", "PATCH", at, string(data[:1000]))
	cut := io.MultiReader(bytes.NewReader(data[1000:500000]), failing{})
	req, err := http.NewRequest("PATCH", s.url+at, cut)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(data) - 1000)
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		resp.Body.Close()
	}
	s.store.Close()
	second := start(t, b, dir, nil)
	var n int
	for deadline := time.Now().Add(20 * time.Second); n < 1000 && time.Now().Before(deadline); {
		if _, err := fmt.Sscanf(second.want(204, "", "GET", at, "").Get("Range"), "0-%d", &n); err != nil {
			t.Fatal(err)
		}
	}
	n++
	if n <= 1000 || n > 500000 {
		t.Errorf("%d bytes are left", n)
	}
	second.want(201, "", "PUT", at+"?digest="+d.String(), string(data[n:]), "Content-Range", fmt.Sprintf("%d-%d", n, len(data)-1))
	if r := second.want(200, "", "GET", "/v2/x/blobs/"+d.String(), ""); digest.FromString(r.body) != d {
		t.Error("the blob is another one")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return 0, io.ErrClosedPipe
}
