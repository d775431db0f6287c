package remote_test

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gantry/internal/remote"
	"gantry/internal/testkit/registry"
)

// certificate returns that of a registry, PEM.
func certificate(r *registry.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.HTTP.Certificate().Raw})
}

// tunnel is a proxy that leads every connection to one host.
func tunnel(t *testing.T, to string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodConnect {
			http.Error(w, "only tunnels", http.StatusMethodNotAllowed)
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer out.Close()
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer in.Close()
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(out, in); out.Close() }()
		_, _ = io.Copy(in, out)
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}

// Mirrors are for any registry, and may call repositories otherwise.
func TestMirrors(t *testing.T) {
	h, r, m := newHost(t), registry.New(t, registry.Options{}), registry.New(t, registry.Options{})
	r.Put("team/app", "1", small("origin"))
	m.Put("cache/team/app", "1", small("origin"))
	h.config.Registries = map[string]remote.Registry{r.Host + "/team": {Mirrors: []string{m.URL}, Rewrite: map[string]string{"^(.*)$": "cache/$1"}}}
	h.mustPull(r.Host + "/team/app:1")
	if n := len(r.Requests()); n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
	// What a mirror does not have, or has wrong, comes from the registry.
	r.Put("team/app", "2", small("only origin"))
	h.mustPull(r.Host + "/team/app:2")
	if got := h.file(r.Host+"/team/app:2", "text"); got != "only origin" {
		t.Errorf("text is %q", got)
	}
	r.Put("team/app", "3", small("third"))
	m.Put("cache/team/app", "3", small("third"))
	m.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write(make([]byte, 100))
			return true
		}
		return false
	}})
	h.mustPull(r.Host + "/team/app:3")
	if got := h.file(r.Host+"/team/app:3", "text"); got != "third" {
		t.Errorf("text is %q", got)
	}
	// Other repositories know no mirror, and dead mirrors are passed over.
	m.Forget()
	r.Put("other", "1", small("x"))
	h.mustPull(r.Host + "/other:1")
	if n := len(m.Requests()); n != 0 {
		t.Errorf("the mirror was asked %d times for another repository", n)
	}
	h.config.Registries = map[string]remote.Registry{r.Host: {Mirrors: []string{"http://127.0.0.1:1"}}}
	r.Put("other", "2", small("y"))
	h.mustPull(r.Host + "/other:2")
	// Nothing is pushed to a mirror.
	h.config.Registries = map[string]remote.Registry{r.Host: {Mirrors: []string{m.URL}}}
	m.Forget()
	if _, err := h.push(r.Host+"/other:2", remote.PushOptions{}); err != nil {
		t.Error(err)
	}
	for _, q := range m.Requests() {
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			t.Errorf("the mirror saw %s %s", q.Method, q.Path)
		}
	}
}

// The default registry's mirrors are the daemon's key registry-mirrors.
func TestDefaultMirrors(t *testing.T) {
	h, m := newHost(t), registry.New(t, registry.Options{})
	m.Put("library/app", "latest", small("mirrored"))
	h.config.Mirrors = []string{m.URL}
	h.config.HTTPSProxy = "http://127.0.0.1:1" // no traffic leaves the machine
	h.mustPull("app")
	if got := h.file("app", "text"); got != "mirrored" {
		t.Errorf("text is %q", got)
	}
}

func TestSearch(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	for _, n := range []string{"team/app", "team/db", "other/app", "a", "b", "c"} {
		r.Put(n, "1", small("x"))
	}
	list, err := h.client.Search(t.Context(), remote.SearchOptions{Term: r.Host + "/app"})
	if err != nil || len(list) != 2 || list[0].Name != r.Host+"/other/app" {
		t.Errorf("%v, %v", list, err)
	}
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		switch q.URL.Path {
		case "/v1/_ping":
		case "/v1/search":
			_, _ = io.WriteString(w, `{"results":[{"name":"x","star_count":3,"description":"\u001b[2Jd"},{"name":"y","is_official":true}]}`)
		default:
			return false
		}
		return true
	}})
	list, err = h.client.Search(t.Context(), remote.SearchOptions{Term: r.Host + "/q", Stars: 1})
	if err != nil || len(list) != 1 || list[0].Name != "x" || list[0].Description != "[2Jd" {
		t.Errorf("%v, %v", list, err)
	}
	yes := true
	list, err = h.client.Search(t.Context(), remote.SearchOptions{Term: r.Host + "/q", Official: &yes})
	if err != nil || len(list) != 1 || list[0].Name != "y" {
		t.Errorf("%v, %v", list, err)
	}
}

func TestLookup(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	d := r.Put("a", "1", small("x"))
	x := r.PutIndex("a", "2", d)
	for tag, want := range map[string]string{"1": d.Digest.String(), "2": x.Digest.String()} {
		n, err := remote.ParseName(r.Host+"/a", tag)
		if err != nil {
			t.Fatal(err)
		}
		v, err := h.client.Lookup(t.Context(), n, creds(""))
		if err != nil || v.Descriptor.Digest.String() != want || len(v.Platforms) != 1 || v.Platforms[0].OS != "linux" {
			t.Errorf("%s: %+v, %v", tag, v, err)
		}
	}
}

// TestMixtures pulls a blob of which an earlier pull, or a mirror, has sent a wrong part:
// who has sent the rest is not blamed, although nobody else has it.
func TestMixtures(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	wrong, right := registry.New(t, registry.Options{}), registry.New(t, registry.Options{})
	for _, s := range []*registry.Server{r, wrong, right} {
		s.Put("app", "1", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 3, 1<<20)}})
	}
	blobs := func(answer func(w http.ResponseWriter)) registry.Faults {
		return registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.Contains(q.URL.Path, "/blobs/") {
				return false
			}
			answer(w)
			return true
		}}
	}
	r.Set(blobs(func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }))
	wrong.Set(blobs(func(w http.ResponseWriter) { _, _ = w.Write(make([]byte, 200)) }))
	h.config.Registries = map[string]remote.Registry{r.Host: {Mirrors: []string{wrong.URL}}}
	if _, err := h.pull(r.Host + "/app:1"); err == nil {
		t.Error("it was pulled from nobody")
	}
	h.config.Registries = map[string]remote.Registry{r.Host: {Mirrors: []string{right.URL}}}
	h.mustPull(r.Host + "/app:1")
	r.Put("app", "2", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 4, 1<<20)}})
	wrong.Put("app", "2", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 4, 1<<20)}})
	right.Put("app", "2", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 4, 1<<20)}})
	h.config.Registries = map[string]remote.Registry{r.Host: {Mirrors: []string{wrong.URL, right.URL}}}
	h.mustPull(r.Host + "/app:2")
}
