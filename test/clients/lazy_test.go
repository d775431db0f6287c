package clients

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// A gate keeps requests for the middle of large blobs waiting until it is opened.
type gate struct {
	open chan struct{}
	once sync.Once
}

func newGate(t *testing.T) *gate {
	g := &gate{open: make(chan struct{})}
	t.Cleanup(g.let)
	return g
}

func (g *gate) let() { g.once.Do(func() { close(g.open) }) }

func (g *gate) before(_ http.ResponseWriter, r *http.Request) bool {
	from, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
	if n, err := strconv.Atoi(from); err == nil && n >= 8<<20 && n < 28<<20 {
		select {
		case <-g.open:
		case <-r.Context().Done():
		}
	}
	return false
}

// lazyImage puts an image of two layers into a registry: the upper one has more
// than 30 MB, changes the lower one, and ends with a small file.
func lazyImage(t *testing.T, r *registry.Server) (m ocispec.Manifest, sum string) {
	t.Helper()
	lower, err := testkit.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	big := registry.Noise(7, 31<<20)
	m = r.PutEstargz("big", "1", lower, testkit.Layer(
		testkit.File{Name: "etc/"}, testkit.File{Name: "etc/.wh.shadow"}, testkit.File{Name: "etc/first", Data: []byte("first\n"), Mode: 0o640, UID: 7, GID: 8},
		testkit.File{Name: "var/"}, testkit.File{Name: "var/.wh..wh..opq"}, testkit.File{Name: "var/new"},
		testkit.File{Name: "data" + "/"}, testkit.File{Name: "data/big", Data: big}, testkit.File{Name: "data/last", Data: []byte("last\n")}, testkit.File{Name: "data/link", Link: "last"},
	))
	return m, fmt.Sprintf("%x", sha256.Sum256(big))
}

// lazyMounts returns the mounts of a daemon's images that are being shown.
func lazyMounts(t *testing.T, d *testkit.Daemon) int {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(table), " "+d.Root+"/lazy/")
}

// TestLazyPull starts containers of an image of which most is kept back, kills the
// daemon meanwhile, and lets the rest come: the image becomes one like any other,
// and its containers go on and can be started again.
func TestLazyPull(t *testing.T) {
	d := testkit.StartDaemon(t)
	r := registry.New(t, registry.Options{})
	g := newGate(t) // opened before the registry ends
	r.Set(registry.Faults{Before: g.before})
	_, sum := lazyImage(t, r)
	ref := r.Host + "/big:1"
	if got := d.OK(t, "pull", "--lazy", ref); !strings.Contains(got, "the rest is fetched in the background") {
		t.Fatalf("pull --lazy: %s", got)
	}
	look := "stat -c '%a %u %g' /etc/first; cat /etc/first /data/link; ls -A /var; ls /etc; stat -c %s /data/big"
	want := "640 7 8\nfirst\nlast\nnew\nfirst\ngroup\npasswd\n32505856"
	got := strings.ReplaceAll(d.OK(t, "run", "--rm", ref, "sh", "-c", look), "hostname\nhosts\n", "")
	if got = strings.NewReplacer("mtab\n", "", "resolv.conf\n", "").Replace(got); got != want {
		t.Errorf("in a container:\n%s\nwant\n%s", got, want)
	}
	if got := d.OK(t, "images", "-q"); got != "" {
		t.Errorf("an image is listed that is not here: %s", got)
	}
	d.OK(t, "run", "-d", "--name", "box", ref, "sleep", "1000")
	d.Kill()
	d.Start(t)
	if got := d.OK(t, "exec", "box", "cat", "/data/last"); got != "last" {
		t.Errorf("a container that the daemon came back to: %s", got)
	}
	if got := d.OK(t, "run", "--rm", ref, "cat", "/etc/first"); got != "first" {
		t.Errorf("after the daemon's restart: %s", got)
	}
	g.let()
	if got := d.OK(t, "exec", "box", "sha256sum", "/data/big"); !strings.HasPrefix(got, sum) {
		t.Errorf("the large file has the sum %s", got)
	}
	testkit.Eventually(t, "the image is complete", func() bool { return d.OK(t, "images", "-q", ref) != "" && lazyMounts(t, d) == 0 })
	if got := d.OK(t, "run", "--rm", ref, "sha256sum", "/data/big"); !strings.HasPrefix(got, sum) {
		t.Errorf("of the complete image: %s", got)
	}
	if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, " 0 faults") {
		t.Errorf("verify: %s", got)
	}
	d.OK(t, "restart", "-t", "0", "box")
	if got := d.OK(t, "exec", "box", "sh", "-c", look); !strings.Contains(got, "32505856") {
		t.Errorf("started again: %s", got)
	}
	d.OK(t, "rm", "-f", "box")
	d.OK(t, "rmi", ref)
	d.Stop(t)
	d.Start(t)
	if list, err := filepath.Glob(d.Root + "/lazy/*"); err != nil || len(list) > 0 {
		t.Errorf("left behind: %v %v", list, err)
	}
}

// TestLazyRunOfStockClients is of a daemon whose clients need not know: what comes
// slowly starts before it is here, what is not in eStargz form is pulled as ever.
func TestLazyRunOfStockClients(t *testing.T) {
	d := testkit.StartDaemon(t, "--lazy-pull")
	r := registry.New(t, registry.Options{})
	g := newGate(t)
	_, sum := lazyImage(t, r)
	lower, err := testkit.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	r.Put("plain", "1", registry.Image{Layers: [][]byte{lower}})
	if out := docker(t, d, "run", "--rm", r.Host+"/plain:1", "echo", "here"); !strings.Contains(out, "here") {
		t.Errorf("docker run of another form: %s", out)
	}
	r.Set(registry.Faults{Before: g.before, Rate: 4 << 20})
	ref := r.Host + "/big:1"
	if out := docker(t, d, "run", "--rm", ref, "cat", "/data/last"); !strings.HasSuffix(strings.TrimSpace(out), "last") {
		t.Errorf("docker run: %s", out)
	}
	if lazyMounts(t, d) == 0 {
		t.Error("docker run has waited for all of it")
	}
	r.Set(registry.Faults{})
	g.let()
	testkit.Eventually(t, "the image is complete", func() bool { return d.OK(t, "images", "-q", ref) != "" && lazyMounts(t, d) == 0 })
	if got := d.OK(t, "run", "--rm", ref, "sha256sum", "/data/big"); !strings.HasPrefix(got, sum) {
		t.Errorf("of the complete image: %s", got)
	}
}

// TestLazyPullAsAWhole is of images that are not worth it, or can't be.
func TestLazyPullAsAWhole(t *testing.T) {
	d := testkit.StartDaemon(t)
	r := registry.New(t, registry.Options{})
	lower, err := testkit.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	r.PutEstargz("small", "1", lower)
	r.Put("plain", "1", registry.Image{Layers: [][]byte{lower}})
	for name, why := range map[string]string{"small": "that is faster", "plain": "not every layer is in eStargz form"} {
		ref := r.Host + "/" + name + ":1"
		if got := d.OK(t, "pull", "--lazy", ref); !strings.Contains(got, "Pulling as a whole: "+why) || !strings.Contains(got, "Downloaded newer image") {
			t.Errorf("%s: %s", name, got)
		}
		if got := d.OK(t, "pull", "--lazy", ref); !strings.Contains(got, "Image is up to date") {
			t.Errorf("%s again: %s", name, got)
		}
		d.OK(t, "run", "--rm", ref, "true")
	}
}

// TestLazyPullOfWrongBytes is of a registry that changes bytes: a table of contents
// is refused, and no wrong byte of a file reaches a container.
func TestLazyPullOfWrongBytes(t *testing.T) {
	d := testkit.StartDaemon(t)
	r := registry.New(t, registry.Options{})
	g := newGate(t) // what is wrong is found while the rest is kept back
	m, _ := lazyImage(t, r)
	var wrong sync.Map // range → true
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		g.before(w, q)
		from, to, _ := strings.Cut(strings.TrimPrefix(q.Header.Get("Range"), "bytes="), "-")
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a < 1<<20 || a > 8<<20 || !strings.HasSuffix(q.URL.Path, m.Layers[1].Digest.String()) {
			return false
		}
		wrong.Store(from, true)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a, b, m.Layers[1].Size))
		w.Header().Set("Content-Length", strconv.Itoa(b-a+1))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(make([]byte, b-a+1))
		return true
	}})
	ref := r.Host + "/big:1"
	d.OK(t, "pull", "--lazy", ref)
	if out, err := d.Gantry("run", "--rm", ref, "sh", "-c", "dd if=/data/big bs=1M skip=4 count=1 | wc -c"); err == nil && strings.TrimSpace(out) != "0" {
		t.Errorf("wrong bytes were read: %s", out)
	}
	g.let()
	testkit.Eventually(t, "what has come is refused", func() bool { return strings.Contains(d.Log(), "an image is not complete: pull it again") })
	n := 0
	wrong.Range(func(any, any) bool { n++; return true })
	if n == 0 {
		t.Error("nothing wrong was asked for")
	}
	if got := d.OK(t, "images", "-q"); got != "" {
		t.Errorf("it became an image: %s", got)
	}
}

// TestLazyFigures measures what GANTRY_LAZY says to docs/adr: 1 GB in 8 layers over
// so many bytes a second and connection (0: as fast as it goes), a program that reads
// 5 %, and one that reads all. It takes a minute or more.
func TestLazyFigures(t *testing.T) {
	rate, err := strconv.ParseInt(os.Getenv("GANTRY_LAZY"), 10, 64)
	if err != nil {
		t.Skip("GANTRY_LAZY is not set")
	}
	lower, err := testkit.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	r := registry.New(t, registry.Options{})
	layers := [][]byte{lower}
	for l := range 8 {
		var files []testkit.File
		for n := range 20 {
			files = append(files, testkit.File{Name: fmt.Sprintf("data-%d-%02d", l, n), Data: registry.Noise(uint64(l*100+n), 6400<<10)})
		}
		layers = append(layers, testkit.Layer(files...))
	}
	r.PutEstargz("big", "1", layers...)
	r.Set(registry.Faults{Rate: rate})
	ref := r.Host + "/big:1"
	for _, way := range []string{"pull", "pull --lazy"} {
		for _, what := range []string{"cat /data-?-00 | wc -c", "cat /data-* | wc -c"} {
			t.Run(way+" "+what, func(t *testing.T) {
				d := testkit.StartDaemon(t)
				began := time.Now()
				d.OK(t, append(strings.Fields(way), ref)...)
				pulled := time.Since(began)
				d.OK(t, "run", "--rm", ref, "sh", "-c", what)
				t.Logf("%s, %s: pulled %.2f s, done %.2f s", way, what, pulled.Seconds(), time.Since(began).Seconds())
				for lazyMounts(t, d) > 0 || d.OK(t, "images", "-q") == "" {
					time.Sleep(100 * time.Millisecond)
				}
				t.Logf("complete after %.2f s", time.Since(began).Seconds())
			})
		}
	}
}

// TestImageConvert makes an image that can be pulled lazily of one that can't, pushes
// it, and starts it while most of it is kept back.
func TestImageConvert(t *testing.T) {
	d := testkit.StartBusybox(t)
	r := registry.New(t, registry.Options{})
	lower, err := testkit.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	big := registry.Noise(9, 31<<20)
	r.Put("plain", "1", registry.Image{Packing: "zstd", Cmd: []string{"cat", "/data/last"}, Layers: [][]byte{lower, testkit.Layer(
		testkit.File{Name: "etc/"}, testkit.File{Name: "etc/.wh.shadow"}, testkit.File{Name: "data/", UID: 5, Mode: 0o2750},
		testkit.File{Name: "data/big", Data: big}, testkit.File{Name: "data/last", Data: []byte("last\n")}, testkit.File{Name: "data/link", Link: "last"})}})
	plain, ref := r.Host+"/plain:1", r.Host+"/lazy:1"
	d.OK(t, "pull", "-q", plain)
	if got := d.OK(t, "image", "convert", "--estargz", plain, ref); !strings.Contains(got, "2 of 2 layers converted") {
		t.Errorf("convert: %s", got)
	}
	if got := d.OK(t, "image", "diff", plain, ref); strings.Contains(got, "/data") || strings.Contains(got, "/etc") || strings.Contains(got, "config") {
		t.Errorf("the new image has other files:\n%s", got)
	}
	if got := d.OK(t, "image", "convert", "--estargz", ref, "again:1"); !strings.Contains(got, "0 of 2 layers converted") {
		t.Errorf("of what has the form: %s", got)
	}
	for want, args := range map[string][]string{
		"say which form":             {plain, "x"},
		"No such image: nosuch":      {"--estargz", "nosuch", "x"},
		"invalid reference format":   {"--estargz", plain, "X Y"},
		"specified platform (linux/": {"--estargz", "--platform", "linux/s390x", plain, "x"},
	} {
		if _, err := d.Gantry(append([]string{"image", "convert"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("convert %v: %v", args, err)
		}
	}
	d.OK(t, "push", "-q", ref)
	d.OK(t, "rmi", plain, ref, "again:1")
	g := newGate(t)
	r.Set(registry.Faults{Before: g.before})
	if got := d.OK(t, "pull", "--lazy", ref); !strings.Contains(got, "the rest is fetched in the background") {
		t.Fatalf("pull --lazy: %s", got)
	}
	if got := d.OK(t, "run", "--rm", ref); got != "last" {
		t.Errorf("the command of the image says %q", got)
	}
	if got := d.OK(t, "run", "--rm", ref, "sh", "-c", "stat -c '%a %u' /data; ls /etc/shadow 2>&1; cat /data/link"); !strings.HasPrefix(got, "2750 5\n") || !strings.Contains(got, "No such file") || !strings.HasSuffix(got, "last") {
		t.Errorf("in a container: %s", got)
	}
	if lazyMounts(t, d) == 0 {
		t.Error("it was not started lazily")
	}
	g.let()
	testkit.Eventually(t, "the image is complete", func() bool { return d.OK(t, "images", "-q", ref) != "" && lazyMounts(t, d) == 0 })
	if got, want := d.OK(t, "run", "--rm", ref, "sha256sum", "/data/big"), fmt.Sprintf("%x", sha256.Sum256(big)); !strings.HasPrefix(got, want) {
		t.Errorf("of the complete image: %s", got)
	}
}
