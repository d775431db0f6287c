package remote_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/remote"
	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// refuses pulls what must not be pulled, and says which words the error must
// have. Nothing may be recorded.
func (h *host) refuses(name, want string) {
	h.t.Helper()
	began := time.Now()
	out, err := h.pull(name)
	if err == nil {
		h.t.Errorf("%s was pulled:\n%s", name, out)
		return
	}
	wantText(h.t, err, want)
	if _, ok := h.images.Find(h.t.Context(), name); ok {
		h.t.Errorf("%s was recorded", name)
	}
	if d := time.Since(began); d > 10*time.Second {
		h.t.Errorf("%s: it took %v to refuse it", name, d)
	}
	if len(err.Error()) > 3000 {
		h.t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
	}
}

// serve answers requests whose path ends in suffix.
func serve(r *registry.Server, suffix string, fn http.HandlerFunc) {
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, suffix) {
			return false
		}
		fn(w, q)
		return true
	}})
}

// endless writes until the other side has had enough, at most most bytes.
func endless(w io.Writer, most int64, sent *atomic.Int64) {
	b := bytes.Repeat([]byte{' '}, 64<<10)
	for sent.Load() < most {
		n, err := w.Write(b)
		sent.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// GO-2022-0482, CVE-2021-21285: bodies without end, of every kind.
func TestEndlessBodies(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	h.config.Attempts = 2
	d := r.Put("a", "1", small("x"))
	_, data, _ := r.Manifest("a", "1")
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	const most = 256 << 20
	for what, suffix := range map[string]string{
		"manifest": "/manifests/1", "manifest by digest": d.Digest.String(), "configuration": m.Config.Digest.String(), "layer": m.Layers[1].Digest.String(),
	} {
		var sent atomic.Int64
		serve(r, suffix, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			if q.Method == http.MethodHead && what == "manifest" {
				return
			}
			if q.Method == http.MethodHead {
				w.Header().Set("Docker-Content-Digest", d.Digest.String())
				w.Header().Set("Content-Length", fmt.Sprint(d.Size))
				return
			}
			endless(w, most, &sent)
		})
		h.refuses(r.Host+"/a:1", "")
		if n := sent.Load(); n > 64<<20 {
			t.Errorf("%s: %d bytes were read", what, n)
		}
	}
	var sent atomic.Int64
	serve(r, "/tags/list", func(w http.ResponseWriter, _ *http.Request) { endless(w, most, &sent) })
	if _, err := h.pullCtx(t.Context(), r.Host+"/a", remote.PullOptions{All: true}); err == nil || sent.Load() > 64<<20 {
		t.Errorf("list of tags: %v after %d bytes", err, sent.Load())
	}
	serve(r, "/tags/list", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Link", `</v2/a/tags/list?last=x>; rel="next"`)
		_, _ = io.WriteString(w, `{"tags":["1"]}`)
	})
	_, err := h.pullCtx(t.Context(), r.Host+"/a", remote.PullOptions{All: true})
	wantText(t, err, "pages")
	serve(r, "/tags/list", func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.WriteString(w, `{"tags":["../../x"]}`)
	})
	_, err = h.pullCtx(t.Context(), r.Host+"/a", remote.PullOptions{All: true})
	wantText(t, err, "is no tag")
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		for i := range 4000 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
		}
		return false
	}})
	h.refuses(r.Host+"/a:1", "")
}

func TestWrongContent(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	r.Put("a", "1", small("x"))
	_, data, _ := r.Manifest("a", "1")
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	n := 0
	serve(r, m.Layers[1].Digest.String(), func(w http.ResponseWriter, q *http.Request) {
		n++
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(make([]byte, m.Layers[1].Size)))
	})
	h.refuses(r.Host+"/a:1", "another digest")
	if n > 6 {
		t.Errorf("it was asked for %d times", n)
	}
	if list, _ := os.ReadDir(filepath.Join(h.dir, "content", "ingest")); len(list) > 0 {
		t.Errorf("%d parts were kept", len(list))
	}
	serve(r, "/manifests/1", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", "sha256:../../../../etc/passwd")
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "{}")
	})
	h.refuses(r.Host+"/a:1", "digest")
	r.Set(registry.Faults{})
	h.mustPull(r.Host + "/a:1")
}

// 10 GB of zeros in 10 MB, in small.
func TestBomb(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	tar := testkit.Layer(testkit.File{Name: "zeros", Data: make([]byte, 256<<20)})
	if _, err := z.Write(tar); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	put(t, r, "bomb", b.Bytes(), digest.FromBytes(tar), "")
	h.refuses(r.Host+"/bomb:1", "times its size: refused")
}

// put adds an image of one layer to a repository. size, if it is not empty, is
// what the manifest says instead of the layer's.
func put(t *testing.T, r *registry.Server, name string, blob []byte, diffID digest.Digest, size string) {
	t.Helper()
	l := r.PutBlob(name, blob)
	l.MediaType = ocispec.MediaTypeImageLayerGzip
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}}
	config := r.PutBlob(name, toJSON(t, c))
	config.MediaType = ocispec.MediaTypeImageConfig
	data := toJSON(t, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{l}})
	if size != "" {
		data = []byte(strings.Replace(string(data), fmt.Sprintf(`"size":%d}]`, l.Size), `"size":`+size+`}]`, 1))
	}
	r.PutManifest(name, "1", ocispec.MediaTypeImageManifest, data)
}

func TestHostileManifests(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	h.config.Attempts = 2
	layer := testkit.Layer(testkit.File{Name: "f", Data: []byte("x")})
	put(t, r, "size", layer, digest.FromBytes(layer), "17")
	h.refuses(r.Host+"/size:1", "")
	put(t, r, "negative", layer, digest.FromBytes(layer), "-1")
	h.refuses(r.Host+"/negative:1", "negative size")
	put(t, r, "diff", layer, digest.FromString("something else"), "")
	h.refuses(r.Host+"/diff:1", "its image says")

	config := r.PutBlob("m", []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`))
	config.MediaType = ocispec.MediaTypeImageConfig
	blob := r.PutBlob("m", layer)
	blob.MediaType = ocispec.MediaTypeImageLayer
	many := make([]ocispec.Descriptor, 10_000)
	for i := range many {
		many[i] = blob
	}
	manifest := func(layers ...ocispec.Descriptor) []byte {
		return toJSON(t, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers})
	}
	good := string(manifest())
	badDigest := blob
	badDigest.Digest = "sha256:../../../../etc/passwd"
	for tag, c := range map[string]struct{ mediaType, body, want string }{
		"many":     {ocispec.MediaTypeImageManifest, string(manifest(many...)), "layers, more than"},
		"config":   {ocispec.MediaTypeImageManifest, string(manifest(blob)), "configuration names 0 layers, its manifest 1"},
		"digest":   {ocispec.MediaTypeImageManifest, string(manifest(badDigest)), "digest"},
		"index":    {ocispec.MediaTypeImageIndex, good, "manifest says it is"},
		"both":     {ocispec.MediaTypeImageManifest, strings.Replace(good, `{`, `{"manifests":[],`, 1), "could be read in two ways"},
		"artifact": {ocispec.MediaTypeImageManifest, strings.Replace(good, ocispec.MediaTypeImageConfig, "application/vnd.other+json", 1), "is not an image that can be run"},
		"text":     {"text/html", "<html>", "is no image"},
		"schema1":  {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"fsLayers":[]}`, "schema 1 support has been removed"},
		"hidden1":  {ocispec.MediaTypeImageManifest, `{"schemaVersion":1,"fsLayers":[{}]}`, "schema 1"},
		"huge":     {ocispec.MediaTypeImageManifest, good + strings.Repeat(" ", 5<<20), ""},
		"nothing":  {ocispec.MediaTypeImageManifest, `{}`, "without a configuration"},
		"null":     {ocispec.MediaTypeImageIndex, `null`, "without manifests"},
		"garbage":  {ocispec.MediaTypeImageManifest, "\x00\xff", "manifest"},
	} {
		r.PutManifest("m", tag, c.mediaType, []byte(c.body))
		h.refuses(r.Host+"/m:"+tag, c.want)
	}
}

// Indexes in indexes: as deep, and as many, as a stranger likes.
func TestNestedIndexes(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	d := r.Put("x", "0", small("x"))
	d.Platform = nil
	for range 3 {
		d = r.PutIndex("x", "3", d)
	}
	h.mustPull(r.Host + "/x:3")
	for range 20 {
		d = r.PutIndex("x", "23", d)
	}
	h.refuses(r.Host+"/x:23", "indexes lead to indexes")
	// One that leads to itself can only be had from a registry that lies
	// about digests.
	self := digest.FromString("self")
	loop := toJSON(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageIndex, Digest: self, Size: 272}}})
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		w.Header().Set("Docker-Content-Digest", self.String())
		w.Header().Set("Content-Length", fmt.Sprint(len(loop)))
		if q.Method != http.MethodHead {
			_, _ = w.Write(loop)
		}
		return true
	}})
	h.refuses(r.Host+"/loop:1", "registry sent")
}

// A registry that sends next to nothing holds nobody for long.
func TestSlowLoris(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	h.config.Attempts, h.config.Stall = 2, 300*time.Millisecond
	r.Put("a", "1", small("x"))
	_, data, _ := r.Manifest("a", "1")
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	serve(r, m.Layers[1].Digest.String(), func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(m.Layers[1].Size))
		for q.Context().Err() == nil {
			_, _ = w.Write([]byte{' '})
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	})
	h.refuses(r.Host+"/a:1", "stopped sending")
}

func TestEndlessChallenges(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	n := 0
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/token" {
			return false
		}
		n++
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x",scope="repository:r%d:pull",error="invalid_token"`, r.URL, n))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}})
	h.refuses(r.Host+"/a:1", "pull access denied")
	if n > 20 {
		t.Errorf("%d requests", n)
	}
	for _, realm := range []string{"", "file:///etc/passwd", "::", "http://", strings.Repeat("x", 100_000)} {
		r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}})
		h.refuses(r.Host+"/a:1", "")
	}
	n = 0
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		n++
		http.Redirect(w, q, fmt.Sprintf("%s?%d", q.URL.Path, n), http.StatusFound)
		return true
	}})
	h.refuses(r.Host+"/a:1", "stopped after 10 redirects")
}

// A registry with TLS never leads to plain HTTP.
func TestNoDowngrade(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{TLS: true})
	plain := registry.New(t, registry.Options{})
	plain.Put("a", "1", small("x"))
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, certificate(r), 0o600); err != nil {
		t.Fatal(err)
	}
	// example.com is a name in the certificate of the test's server, and no
	// loopback name, so TLS is not optional; a proxy leads there.
	proxy := tunnel(t, r.Host)
	h.config.HTTPSProxy, h.config.HTTPProxy = proxy, proxy
	h.config.Registries = map[string]remote.Registry{"example.com": {CA: ca}}
	r.Put("a", "1", small("x"))
	h.mustPull("example.com/a:1")
	r.Put("b", "1", small("y"))
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		http.Redirect(w, q, "http://other.example"+q.URL.Path, http.StatusFound)
		return true
	}})
	h.refuses("example.com/b:1", "only https is allowed")
	r.Set(registry.Faults{})
	h.config.Registries = nil
	h.refuses("example.com/b:1", "certificate signed by unknown authority")
	h.config.Insecure = []string{"example.com"}
	h.mustPull("example.com/b:1")
	// That its certificate is not checked is no reason to check no other.
	r.Put("c", "1", small("z"))
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") && q.Host == "example.com" {
			http.Redirect(w, q, "https://other.example"+q.URL.Path, http.StatusFound)
			return true
		}
		return false
	}})
	h.config.Attempts = 1
	h.refuses("example.com/c:1", "certificate")
	h.config.Insecure = append(h.config.Insecure, "other.example")
	h.mustPull("example.com/c:1")
}
