package registry_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/registry"
	"gantry/internal/registry/repo"
	"gantry/internal/registry/upstream"
)

// copying serves a registry that copies others.
func copying(t *testing.T, remotes ...upstream.Remote) *site {
	dir := t.TempDir()
	var c *upstream.Cache
	s := start(t, local(t, dir), dir, func(o *registry.Options, ro *repo.Options) {})
	c, err := upstream.NewCache(t.Context(), s.store, remotes)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(registry.New(registry.Options{Store: s.store, Cache: c, Policy: everybody(t)}))
	t.Cleanup(func() {
		srv.Close()
		c.Close()
	})
	s.url = srv.URL
	return s
}

// Many clients ask for the same, and the other registry is asked once; then it is
// not needed any more.
func TestCopies(t *testing.T) {
	dir := t.TempDir()
	far := start(t, local(t, dir), dir, nil)
	layer := strings.Repeat("0123456789", 300000)
	d := far.push("lib/app", "v1", layer)
	var blobs, all atomic.Int64
	var down atomic.Bool
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all.Add(1)
		if down.Load() {
			w.WriteHeader(502)
			return
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			blobs.Add(1)
			time.Sleep(50 * time.Millisecond)
		}
		http.Redirect(w, r, far.url+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	defer front.Close()
	s := copying(t, upstream.Remote{Prefix: "hub", URL: front.URL, TTL: time.Hour}, upstream.Remote{Prefix: "hub/fast", URL: front.URL, TTL: time.Nanosecond})
	if r := s.want(200, "", "GET", "/v2/hub/lib/app/manifests/v1", ""); digest.FromString(r.body).String() != d {
		t.Errorf("%s", r.body)
	}
	var wg sync.WaitGroup
	ld := digest.FromString(layer).String()
	for range 8 {
		wg.Go(func() {
			if r := s.want(200, "", "GET", "/v2/hub/lib/app/blobs/"+ld, ""); r.body != layer {
				t.Errorf("%d bytes", len(r.body))
			}
		})
	}
	wg.Wait()
	if blobs.Load() != 1 {
		t.Errorf("the blob was fetched %d times", blobs.Load())
	}
	if r := s.want(206, "", "GET", "/v2/hub/lib/app/blobs/"+ld, "", "Range", "bytes=10-12"); r.body != "012" {
		t.Errorf("%q", r.body)
	}
	n := all.Load()
	s.want(200, "", "GET", "/v2/hub/lib/app/manifests/v1", "")
	if all.Load() != n {
		t.Error("a young tag was asked for again")
	}
	s.want(200, "", "GET", "/v2/hub/fast/lib/app/manifests/v1", "")
	s.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/hub/lib/app/manifests/none", "")
	s.want(404, "BLOB_UNKNOWN", "GET", "/v2/hub/lib/app/blobs/"+digest.FromString("none").String(), "")
	s.want(405, "UNSUPPORTED", "POST", "/v2/hub/lib/app/blobs/uploads/", "")
	d2 := far.push("lib/app", "v1", "new")
	if r := s.want(200, "", "GET", "/v2/hub/fast/lib/app/manifests/v1", ""); r.Get("Docker-Content-Digest") != d2 {
		t.Errorf("an old tag was not asked for again")
	}
	down.Store(true)
	if r := s.want(200, "", "GET", "/v2/hub/fast/lib/app/manifests/v1", ""); r.Get("Docker-Content-Digest") != d2 || r.Get("Warning") == "" {
		t.Errorf("%v", r.Header)
	}
	s.want(503, "UNAVAILABLE", "GET", "/v2/hub/lib/app/manifests/v2", "")
}

// S15: a registry that is copied can't have its credentials sent elsewhere
// (CVE-2026-33540: a cache that trusts the realm).
func TestCopiesKeepCredentials(t *testing.T) {
	var seen sync.Map
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.URL.Path, r.Header.Get("Authorization"))
		fmt.Fprint(w, `{"token":"t"}`)
	}))
	defer thief.Close()
	mode := "realm"
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case mode == "realm" && !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer"):
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+thief.URL+`/realm",service="x"`)
			w.WriteHeader(401)
		case mode == "redirect" && r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
		default:
			http.Redirect(w, r, thief.URL+"/redirect", http.StatusTemporaryRedirect)
		}
	}))
	defer far.Close()
	for _, mode = range []string{"realm", "redirect"} {
		s := copying(t, upstream.Remote{Prefix: "p", URL: far.URL, Username: "user", Password: "secret"})
		// What it gets is not the blob: the answer may be cut.
		if resp, err := http.Get(s.url + "/v2/p/x/blobs/" + digest.FromString(mode).String()); err == nil {
			resp.Body.Close()
		}
		got, ok := seen.Load("/" + mode)
		if !ok || strings.HasPrefix(got.(string), "Basic") {
			t.Errorf("%s: asked %v, with %v", mode, ok, got)
		}
	}
}

// A blob that is not what its digest says is never complete, and is not kept.
func TestCopiesVerify(t *testing.T) {
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Repeat("evil", 1000))
	}))
	defer far.Close()
	s := copying(t, upstream.Remote{Prefix: "p", URL: far.URL})
	d := digest.FromString("good").String()
	for range 2 {
		resp, err := http.Get(s.url + "/v2/p/x/blobs/" + d)
		if err != nil {
			continue // cut before the header
		}
		var b strings.Builder
		_, err = fmt.Fprint(&b, resp.StatusCode)
		n, rerr := resp.Body.Read(make([]byte, 1<<16))
		for rerr == nil {
			var m int
			m, rerr = resp.Body.Read(make([]byte, 1<<16))
			n += m
		}
		resp.Body.Close()
		if err != nil || resp.StatusCode == 200 && n >= 4000 {
			t.Errorf("%d: %d bytes", resp.StatusCode, n)
		}
	}
	s.want(404, "MANIFEST_UNKNOWN", "GET", "/v2/other/manifests/x", "")
	if r := s.do("GET", "/v2/p/x/manifests/"+d, ""); r.status < 400 {
		t.Errorf("%d", r.status)
	}
}
