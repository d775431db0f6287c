package registry_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/registry/upstream"
)

// far is another registry, which can be switched off.
type far struct {
	*site
	front string
	down  atomic.Bool
	asked atomic.Int64
}

// farAway starts a registry that wants a name and a password, by a front that
// can be switched off.
func farAway(t *testing.T, user string) *far {
	dir := t.TempDir()
	f := &far{site: start(t, local(t, dir), dir, nil)}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		u, p, _ := r.BasicAuth()
		switch {
		case f.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case u+":"+p != user:
			w.Header().Set("WWW-Authenticate", `Basic realm="far"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			resp, err := http.Get(f.url + r.URL.RequestURI())
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			for k, v := range resp.Header {
				w.Header()[k] = v
			}
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, resp.Body) // a client that is gone does not read of it
		}
	}))
	t.Cleanup(front.Close)
	f.front = front.URL
	return f
}

func host(t *testing.T, address string) string {
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// One server is the mirror of two registries, each with its own password, for
// clients that say whom they mean, and answers for them while they are down.
func TestMirrorOfSeveral(t *testing.T) {
	one, two := farAway(t, "ann:pw1"), farAway(t, "bob:pw2")
	d1, d2 := one.push("team/app", "v1", "of one"), two.push("team/app", "v1", "of two")
	sbom := image("{}", map[string]any{"subject": map[string]any{"mediaType": ociManifest, "digest": d2, "size": 1}, "artifactType": "a/sbom"})
	two.want(201, "", "PUT", "/v2/team/app/manifests/"+digest.FromString(sbom).String(), sbom, "Content-Type", ociManifest)
	for _, tag := range []string{"a", "b", "c"} {
		one.push("team/app", tag, "of one")
	}
	s := copying(t,
		upstream.Remote{Prefix: "one", URL: one.front, Username: "ann", Password: "pw1", Hosts: []string{"Registry.Test", "other.test:5000"}, TTL: time.Nanosecond},
		upstream.Remote{Prefix: "two", URL: two.front, Username: "bob", Password: "pw2", TTL: time.Hour})
	s.push("team/app", "v1", "of this one")
	ns1, ns2 := "?ns=registry.test", "?ns="+host(t, two.front)
	check := func(what, query, want, body string) {
		t.Helper()
		if r := s.want(200, "", "GET", "/v2/team/app/manifests/v1"+query, ""); r.Get("Docker-Content-Digest") != want {
			t.Errorf("%s: another manifest: %v", what, r.Header)
		}
		if r := s.want(200, "", "GET", "/v2/team/app/blobs/"+digest.FromString(body).String()+query, ""); r.body != body {
			t.Errorf("%s: blob %q", what, r.body)
		}
	}
	check("the first", ns1, d1, "of one")
	check("the first by another name", "?ns=other.test:5000", d1, "of one")
	check("the second", ns2, d2, "of two")
	own := s.want(200, "", "GET", "/v2/team/app/manifests/v1", "").Get("Docker-Content-Digest")
	check("its own", "", own, "of this one")
	check("its own by its name", "?ns="+host(t, s.url), own, "of this one")
	// Clients that put the prefix before the name themselves say whom they mean, too.
	for _, ns := range []string{ns1, "?ns=unknown.test"} {
		if r := s.want(200, "", "GET", "/v2/one/team/app/manifests/v1"+ns, ""); r.Get("Docker-Content-Digest") != d1 {
			t.Errorf("%s: %v", ns, r.Header)
		}
	}
	// Whom it does not know it does not speak for, though it has such a name.
	s.want(404, "NAME_UNKNOWN", "GET", "/v2/team/app/manifests/v1?ns=evil.test", "")
	s.want(405, "UNSUPPORTED", "POST", "/v2/team/app/blobs/uploads/"+ns1, "")
	// Lists are the other registry's.
	if r := s.want(200, "", "GET", "/v2/one/team/app/tags/list?n=2", ""); r.body != `{"name":"one/team/app","tags":["a","b"]}` {
		t.Errorf("%s", r.body)
	}
	r := s.want(200, "", "GET", "/v2/team/app/tags/list"+ns1+"&n=3", "")
	if !strings.HasSuffix(r.body, `"tags":["a","b","c"]}`) || !strings.Contains(r.Get("Link"), "ns=registry.test") {
		t.Errorf("%s %v", r.body, r.Header)
	}
	if r := s.want(200, "", "GET", "/v2/two/team/app/referrers/"+d2, ""); strings.Count(r.body, `"a/sbom"`) != 1 {
		t.Errorf("%s", r.body)
	}
	s.want(404, "NAME_UNKNOWN", "GET", "/v2/one/none/tags/list", "")
	// A young tag and all blobs are answered without asking.
	n := two.asked.Load()
	check("the second again", ns2, d2, "of two")
	if two.asked.Load() != n {
		t.Error("the second registry was asked again")
	}
	one.down.Store(true)
	two.down.Store(true)
	check("the first, down", ns1, d1, "of one")
	check("the second, down", ns2, d2, "of two")
	if r := s.want(200, "", "GET", "/v2/one/team/app/tags/list", ""); r.body != `{"name":"one/team/app","tags":["v1"]}` || r.Get("Warning") == "" {
		t.Errorf("%s %v", r.body, r.Header)
	}
	s.want(503, "UNAVAILABLE", "GET", "/v2/one/team/app/manifests/a", "")
	s.want(503, "UNAVAILABLE", "GET", "/v2/two/none/tags/list", "")
}

// A registry that is copied can't fill the memory by lists, nor lead away or in
// circles.
func TestHostileLists(t *testing.T) {
	var answer func(w http.ResponseWriter, r *http.Request)
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answer(w, r)
	}))
	defer srv.Close()
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("somebody else was asked for %s", r.URL)
	}))
	defer thief.Close()
	s := copying(t, upstream.Remote{Prefix: "p", URL: srv.URL})
	big := `{"tags":["a` + strings.Repeat(" ", 1<<20) + `"]}`
	answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", fmt.Sprintf(`</v2/x/tags/list?last=%d>; rel="next"`, asked.Load()))
		_, _ = io.WriteString(w, big)
	}
	s.want(503, "UNAVAILABLE", "GET", "/v2/p/x/tags/list", "")
	if n := asked.Load(); n > 20 {
		t.Errorf("%d pages of a megabyte were read", n)
	}
	answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("last") == "" {
			w.Header().Set("Link", "<"+thief.URL+`/v2/x/tags/list?last=a>; rel="next"`)
		} else {
			w.Header().Set("Link", "<"+r.URL.String()+`>; rel="next"`)
		}
		_, _ = io.WriteString(w, `{"tags":["a","../b","<script>"]}`)
	}
	if r := s.want(200, "", "GET", "/v2/p/x/tags/list", ""); r.body != `{"name":"p/x","tags":["a"]}` {
		t.Errorf("%s", r.body)
	}
	answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[]`) }
	s.want(503, "UNAVAILABLE", "GET", "/v2/p/x/tags/list", "")
	if r := s.want(200, "", "GET", "/v2/p/x/referrers/"+digest.FromString("x").String(), ""); r.Get("Warning") == "" || !strings.Contains(r.body, `"manifests":[]`) {
		t.Errorf("%s %v", r.body, r.Header)
	}
}

// The pages show what is there, and what others have written as text.
func TestBrowse(t *testing.T) {
	dir := t.TempDir()
	s := start(t, local(t, dir), dir, nil)
	const evil = `<script>alert(1)</script>"'>`
	s.push("team/app", "v1", strings.Repeat("x", 4998))
	m := image("{}", map[string]any{"annotations": map[string]string{"title": evil}}, strings.Repeat("x", 4998))
	s.want(201, "", "PUT", "/v2/team/app/manifests/evil", m, "Content-Type", ociManifest)
	sub := map[string]any{"mediaType": ociManifest, "digest": digest.FromString(m).String(), "size": 1}
	sig := image("{}", map[string]any{"subject": sub, "artifactType": evil})
	s.want(201, "", "PUT", "/v2/team/app/manifests/"+digest.FromString(sig).String(), sig, "Content-Type", ociManifest)
	entry := desc(ociManifest, m)
	entry["platform"] = map[string]any{"os": evil, "architecture": "amd64"}
	list := text(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": []any{entry}})
	s.want(201, "", "PUT", "/v2/team/app/manifests/all", list, "Content-Type", ociIndex)
	for path, want := range map[string][]string{
		"/browse/":           {`<a href="/browse/r/team/app">team/app</a>`},
		"/browse/r/team/app": {"<td>v1</td><td>5 kB</td>", "<td>all</td><td>5 kB</td>", "<td>evil</td>", "/browse/m/team/app@" + digest.FromString(m).String()},
		"/browse/m/team/app@" + digest.FromString(m).String():    {"&lt;script&gt;", "5 kB", "layer", "What refers to it"},
		"/browse/m/team/app@" + digest.FromString(list).String(): {"&lt;script&gt;", "amd64"},
	} {
		r := s.want(200, "", "GET", path, "")
		for _, w := range want {
			if !strings.Contains(r.body, w) {
				t.Errorf("%s: no %q in\n%s", path, w, r.body)
			}
		}
		if strings.Contains(r.body, "<script") || strings.Contains(r.body, "http://") || strings.Contains(r.body, "https://") {
			t.Errorf("%s: a script, or something from elsewhere:\n%s", path, r.body)
		}
		if csp := r.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") {
			t.Errorf("%s: policy %q", path, csp)
		}
		if r.Get("Content-Type") != "text/html; charset=utf-8" || r.Get("X-Content-Type-Options") != "nosniff" || r.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %v", path, r.Header)
		}
	}
	s.want(404, "", "GET", "/browse/r/none", "")
	s.want(404, "", "GET", "/browse/"+url.PathEscape(evil), "")
	if r := s.want(200, "", "GET", "/metrics", ""); !strings.Contains(r.body, `gantry_registry_requests_total{route="browse",method="GET",code="200"} 4`) {
		t.Errorf("%s", r.body)
	}
}
