package registry_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/registry"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
)

func TestHostilePaths(t *testing.T) {
	dir := t.TempDir()
	s := start(t, local(t, dir), dir, nil)
	s.push("x", "v1", "layer")
	for _, path := range []string{
		"/v2/../../etc/manifests/v1", "/v2/x/%2e%2e/y/manifests/v1", "/v2/x/blobs/uploads/../../../x", "/v2/x/blobs/uploads/..%2f..%2fx", "/v2/x/manifests/..%2f..%2fv1",
		"/v2/x/manifests/.tmp-1", "/v2/x+y/tags/list", "/v2/x/blobs/sha256:..%2f..%2f" + strings.Repeat("a", 58), "/v2/" + strings.Repeat("a", 300) + "/tags/list", "/v2/x%00/tags/list",
		"/v2//manifests/v1", "/v2/x//manifests/v1", "/v2/x/blobs/uploads/%00", "/v2/manifests/v1", "/v2/x/referrers/..", "/browse/r/../x", "/browse/m/x@../y", "/browse/style.css/../..",
	} {
		for _, method := range []string{"GET", "PUT", "PATCH", "DELETE", "POST", "BREW"} {
			r := s.do(method, path, "x", "Content-Type", ociManifest)
			if r.status < 400 || r.status >= 500 {
				t.Errorf("%s %s: %d %s", method, path, r.status, r.body)
			}
		}
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if top, _, _ := strings.Cut(rel, "/"); top != "." && top != "objects" && top != "spool" {
			t.Errorf("something has written %s", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A client that sends nothing more, or reads nothing, is let go.
func TestSlowClients(t *testing.T) {
	dir := t.TempDir()
	s := start(t, local(t, dir), dir, func(o *registry.Options, _ *repo.Options) { o.Stall = 300 * time.Millisecond })
	at := s.want(202, "", "POST", "/v2/x/blobs/uploads/", "").Get("Location")
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "PATCH "+at+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	// An error, or the end of the connection: in any case an end.
	var late net.Error
	if _, err := io.ReadAll(c); errors.As(err, &late) && late.Timeout() {
		t.Error("the connection stays")
	}
	if r := s.want(204, "", "GET", at, ""); r.Get("Range") != "0-2" {
		t.Errorf("%v", r.Header)
	}
}

func TestBlobLimit(t *testing.T) {
	dir := t.TempDir()
	s := start(t, local(t, dir), dir, func(_ *registry.Options, o *repo.Options) { o.MaxBlob = 10 })
	s.blob("x", "0123456789")
	at := s.want(202, "", "POST", "/v2/x/blobs/uploads/", "").Get("Location")
	s.want(413, "SIZE_INVALID", "PATCH", at, "0123456789a")
}

func FuzzRequests(f *testing.F) {
	for _, p := range []string{"/v2/a/manifests/b", "/v2/a/blobs/uploads/", "/v2/a/blobs/sha256:0", "/v2/a/tags/list?n=1&last=x", "/v2/a/referrers/sha256:0", "/v1/search?q=a&n=3", "/browse/m/a@b", "/token?scope=a:b:c"} {
		for _, m := range []string{"GET", "PUT", "PATCH", "POST", "DELETE"} {
			f.Add(m, p, "bytes=0-1", `{"schemaVersion":2}`, ociManifest)
		}
	}
	dir := f.TempDir()
	store, err := repo.Open(repo.Options{Backend: local(f, dir), Spool: filepath.Join(dir, "spool")})
	if err != nil {
		f.Fatal(err)
	}
	policy, err := auth.Open(auth.Options{})
	if err != nil {
		f.Fatal(err)
	}
	h := registry.New(registry.Options{Store: store, Policy: policy})
	f.Fuzz(func(t *testing.T, method, path, rng, body, typ string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !strings.HasPrefix(path, "/") {
			return
		}
		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method, r.URL = method, u
		r.Header = http.Header{"Range": {rng}, "Content-Range": {rng}, "Content-Type": {typ}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
	})
}
