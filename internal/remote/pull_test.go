package remote_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/remote"
	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

func TestPullFormats(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	for _, i := range []registry.Image{{}, {Packing: "zstd"}, {Packing: "none"}, {Docker: true}} {
		i.Layers = small(i.Packing).Layers
		tag := fmt.Sprintf("t%s%v", i.Packing, i.Docker)
		d := r.Put("a/b", tag, i)
		out := h.mustPull(r.Host + "/a/b:" + tag)
		for _, want := range []string{
			`^` + tag + `: Pulling from a/b\n`, `\n[0-9a-f]{12}: (Pull complete|Already exists)\n`,
			`\nDigest: ` + d.Digest.String() + `\nStatus: Downloaded newer image for ` + r.Host + `/a/b:` + tag + `\n$`,
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("%s: no %s in\n%s", tag, want, out)
			}
		}
		if got := h.file(r.Host+"/a/b:"+tag, "text"); got != i.Packing {
			t.Errorf("%s: text is %q", tag, got)
		}
		if out := h.mustPull(r.Host + "/a/b:" + tag); !strings.Contains(out, "Status: Image is up to date for "+r.Host+"/a/b:"+tag) {
			t.Errorf("second pull: %s", out)
		}
	}
}

func TestPullByDigest(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	d := r.Put("a", "1", small("x"))
	r.Put("b", "1", small("other"))
	name := r.Host + "/a@" + d.Digest.String()
	h.mustPull(name)
	if got := h.file(name, "text"); got != "x" {
		t.Errorf("text is %q", got)
	}
	i, err := h.images.Resolve(t.Context(), name, nil)
	if err != nil || len(i.Names) != 0 {
		t.Errorf("names %v, %v: a name by digest is no tag", i.Names, err)
	}
	// GO-2022-0360 and Engine 20.10.20: that a digest is here does not mean
	// that the repository named has it.
	_, err = h.pull(r.Host + "/b:1@" + d.Digest.String())
	wantText(t, err, "not found")
	if !errs.Is(err, errs.NotFound) {
		t.Errorf("kind of %v", err)
	}
}

func TestPullPlatforms(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	image := func(text, arch, variant string) ocispec.Descriptor {
		i := small(text)
		i.Platform = &ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant}
		return r.Put("multi", "", i)
	}
	attested := r.PutManifest("multi", "", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{},"layers":[]}`))
	attested.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attested.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	r.PutIndex("multi", "1", attested, image("v6", "arm", "v6"), image("v7", "arm", "v7"), image("amd", "amd64", ""), image("arm64", "arm64", "v8"))
	for platform, want := range map[string]string{"linux/amd64": "amd", "linux/arm64": "arm64", "linux/arm/v7": "v7", "linux/arm/v6": "v6", "linux/arm/v8": "v7"} {
		p := &ocispec.Platform{OS: "linux"}
		_, rest, _ := strings.Cut(platform, "/")
		p.Architecture, p.Variant, _ = strings.Cut(rest, "/")
		if out, err := h.pullCtx(t.Context(), r.Host+"/multi:1", remote.PullOptions{Platform: p}); err != nil {
			t.Errorf("%s: %v\n%s", platform, err, out)
			continue
		}
		if got := h.fileFor(r.Host+"/multi:1", "text", p); got != want {
			t.Errorf("%s: text is %q, not %q", platform, got, want)
		}
	}
	for _, q := range r.Requests() {
		if strings.Contains(q.Path, attested.Digest.String()) {
			t.Error("the attestation was fetched")
		}
	}
	_, err := h.pullCtx(t.Context(), r.Host+"/multi:1", remote.PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	wantText(t, err, "no matching manifest for linux/s390x in the manifest list entries: no match for platform in manifest: not found")
	r.Put("single", "1", small("x"))
	_, err = h.pullCtx(t.Context(), r.Host+"/single:1", remote.PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	wantText(t, err, "was found but does not provide the specified platform (linux/s390x)")
}

func TestPullAllTags(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	for _, tag := range []string{"a", "b", "c", "d", "e", "f", "g"} { // more than a page
		r.Put("all", tag, small(tag))
	}
	if out, err := h.pullCtx(t.Context(), r.Host+"/all", remote.PullOptions{All: true}); err != nil {
		t.Fatal(err, out)
	}
	for _, tag := range []string{"a", "d", "g"} {
		if got := h.file(r.Host+"/all:"+tag, "text"); got != tag {
			t.Errorf("%s holds %q", tag, got)
		}
	}
}

func TestPullErrors(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	r.Put("a", "1", small("x"))
	for name, want := range map[string]string{
		r.Host + "/a:2":    `failed to resolve reference "` + r.Host + `/a:2": ` + r.Host + `/a:2: not found`,
		r.Host + "/none:1": `failed to resolve reference "` + r.Host + `/none:1": ` + r.Host + `/none:1: not found`,
		"127.0.0.1:1/a:1":  `failed to resolve reference "127.0.0.1:1/a:1": failed to do request: Head "https://127.0.0.1:1/v2/a/manifests/1": dial tcp 127.0.0.1:1: connect: connection refused`,
	} {
		_, err := h.pull(name)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", name, err, want)
		}
	}
	h.config.Insecure = nil
	tls := registry.New(t, registry.Options{TLS: true})
	tls.Put("a", "1", small("x"))
	h.mustPull(tls.Host + "/a:1") // loopback: not checked
}

func TestTooManyRequests(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	r.Put("a", "1", small("x"))
	n := 0
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/manifests/") {
			n++
			if n == 1 {
				w.Header().Set("Retry-After", "1")
				http.Error(w, "{}", http.StatusTooManyRequests)
				return true
			}
		}
		return false
	}})
	began := time.Now()
	h.mustPull(r.Host + "/a:1")
	if d := time.Since(began); d < time.Second {
		t.Errorf("it took %v: Retry-After was not heard", d)
	}
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}})
	_, err := h.pull(r.Host + "/a:1")
	wantText(t, err, "toomanyrequests: ")
	wantText(t, err, "try again in 1h0m0s")
}

// big is an image of n layers of size bytes that do not compress.
func big(n, size int) registry.Image {
	var i registry.Image
	for k := range n {
		i.Layers = append(i.Layers, registry.NoiseLayer(fmt.Sprintf("f%d", k), uint64(k+1), size))
	}
	i.Packing = "none"
	return i
}

func TestCutConnections(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{Faults: registry.Faults{CutAfter: 1 << 20}})
	r.Put("big", "1", big(3, 5<<20))
	h.mustPull(r.Host + "/big:1")
	if got, least := r.Sent(), int64(15<<20); got > least*11/10 {
		t.Errorf("%d bytes were fetched for %d", got, least)
	}
	// Without ranges there is no progress, and the attempts end.
	r.Set(registry.Faults{CutAfter: 64 << 10, NoRanges: true})
	r.Put("big2", "1", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 99, 1<<20)}, Packing: "none"})
	h.config.Attempts = 2
	_, err := h.pull(r.Host + "/big2:1")
	if err == nil {
		t.Error("pulled over connections that are always cut")
	}
}

// A pull cut at 90 % re-fetches less than 15 %, also after a restart.
func TestResumeAfterRestart(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	r.Put("big", "1", big(4, 6<<20))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.Set(registry.Faults{Rate: 20 << 20})
	total := int64(24 << 20)
	go func() {
		for r.Sent() < total*9/10 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := h.pullCtx(ctx, r.Host+"/big:1", remote.PullOptions{}); err == nil {
		t.Fatal("the pull was not cut")
	}
	time.Sleep(100 * time.Millisecond)
	h.reopen()
	r.Set(registry.Faults{})
	r.Forget()
	h.mustPull(r.Host + "/big:1")
	if again := r.Sent(); again > total*15/100 {
		t.Errorf("after a cut at 90 %% and a restart, %d of %d bytes were fetched again", again, total)
	} else {
		t.Logf("fetched after the restart: %.1f %%", 100*float64(again)/float64(total))
	}
}

func TestLargeBlobsInRanges(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	r.Put("big", "1", big(1, 50<<20))
	h.mustPull(r.Host + "/big:1")
	ranges := 0
	for _, q := range r.Requests() {
		if q.Range == "" || !strings.Contains(q.Path, "/blobs/") {
			continue
		}
		ranges++
		// Nothing is asked for behind the end of a range.
		var from, to int64
		if n, err := fmt.Sscanf(q.Range, "bytes=%d-%d", &from, &to); n != 2 || from > to {
			t.Errorf("range %q: %v", q.Range, err)
		}
	}
	if ranges != 13 {
		t.Errorf("%d ranges for 50 MiB", ranges)
	}
	if got := r.Sent(); got > 51<<20 {
		t.Errorf("%d bytes were sent", got)
	}
	r.Set(registry.Faults{NoRanges: true})
	r.Put("big2", "1", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 77, 50<<20)}, Packing: "none"})
	h.mustPull(r.Host + "/big2:1")
}

// Many pulls of one image fetch it once, and the end of one does not hurt the
// others.
func TestManyPullsFetchOnce(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{Faults: registry.Faults{Rate: 20 << 20}})
	r.Put("big", "1", big(2, 5<<20))
	first, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ctx := t.Context()
			if i == 0 {
				ctx = first
			} else {
				time.Sleep(50 * time.Millisecond)
			}
			_, err := h.pullCtx(ctx, r.Host+"/big:1", remote.PullOptions{})
			if i > 0 && err != nil {
				t.Errorf("pull %d: %v", i, err)
			}
		})
	}
	time.Sleep(150 * time.Millisecond)
	cancel()
	wg.Wait()
	if got := r.Sent(); got > 11<<20 {
		t.Errorf("%d bytes were fetched for 10 MiB", got)
	}
}

func TestSharedLayersOfTwoImages(t *testing.T) {
	h, r := newHost(t), registry.New(t, registry.Options{})
	base := testkit.Layer(testkit.File{Name: "base", Data: registry.Noise(5, 1<<20)})
	for _, n := range []string{"x", "y"} {
		r.Put(n, "1", registry.Image{Layers: [][]byte{base, testkit.Layer(testkit.File{Name: "text", Data: []byte(n)})}})
	}
	h.mustPull(r.Host + "/x:1")
	r.Forget()
	if out := h.mustPull(r.Host + "/y:1"); !strings.Contains(out, ": Already exists\n") {
		t.Error(out)
	}
	if got := r.Sent(); got > 64<<10 {
		t.Errorf("%d bytes for a layer that is here", got)
	}
}
