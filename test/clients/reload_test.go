package clients_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// crowd counts how many requests are there at once. Each waits for company, or
// for a moment.
type crowd struct {
	match  func(r *http.Request) bool
	wait   time.Duration
	broken bool // requests are refused

	mu        sync.Mutex
	now, most int
	paths     map[string]int
	company   chan struct{} // closed when there are two
}

func newCrowd(wait time.Duration, match func(r *http.Request) bool) *crowd {
	return &crowd{match: match, wait: wait, paths: map[string]int{}, company: make(chan struct{})}
}

func (c *crowd) before(w http.ResponseWriter, r *http.Request) bool {
	if !c.match(r) {
		return false
	}
	c.mu.Lock()
	c.now++
	c.paths[r.URL.Path]++
	if c.now == 2 && c.most < 2 {
		close(c.company)
	}
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	select {
	case <-c.company:
	case <-time.After(c.wait):
	}
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
	if c.broken {
		w.WriteHeader(http.StatusBadGateway)
	}
	return c.broken
}

// TestTransfersReload: how many layers come and go at once, and how often one is
// asked for, is read again on SIGHUP.
func TestTransfersReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	configure := func(n int) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, `{"max-concurrent-downloads": %d, "max-concurrent-uploads": %d, "max-download-attempts": %d}`, n, n, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(1)
	d := testkit.StartDaemon(t, "--bridge", "none", "--config-file", file)
	r := registry.New(t, registry.Options{})
	var configs []string // which are no layers
	image := func(name string) string {
		i := registry.Image{Cmd: []string{"/f"}}
		for n := range 4 {
			i.Layers = append(i.Layers, registry.NoiseLayer("f", uint64(len(name)*10+n), 1000))
		}
		r.Put(name, "1", i)
		_, data, _ := r.Manifest(name, "1")
		var m struct{ Config struct{ Digest string } }
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		configs = append(configs, m.Config.Digest)
		return r.Host + "/" + name + ":1"
	}
	layer := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") && !slices.Contains(configs, path.Base(r.URL.Path))
	}
	upload := func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/")
	}
	most := func(wait time.Duration, match func(*http.Request) bool, args ...string) int {
		t.Helper()
		c := newCrowd(wait, match)
		r.Set(registry.Faults{Before: c.before})
		d.OK(t, args...)
		return c.most
	}
	attempts := func(name string) (most int) {
		t.Helper()
		c := newCrowd(0, layer)
		c.broken = true
		r.Set(registry.Faults{Before: c.before})
		if out, err := d.Gantry("pull", "-q", image(name)); err == nil {
			t.Errorf("a broken registry gives %s", out)
		}
		for _, n := range c.paths {
			most = max(most, n)
		}
		return most
	}
	first, second := image("a"), image("bb")
	if n := most(50*time.Millisecond, layer, "pull", "-q", first); n != 1 {
		t.Errorf("%d downloads at once, of one", n)
	}
	d.OK(t, "tag", first, r.Host+"/ccc:1")
	if n := most(50*time.Millisecond, upload, "push", "-q", r.Host+"/ccc:1"); n > 1 {
		t.Errorf("%d uploads at once, of one", n)
	}
	if n := attempts("dddd"); n != 1 {
		t.Errorf("asked %d times, of one", n)
	}

	configure(2)
	if err := syscall.Kill(d.Pid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !strings.Contains(d.Log(), "reload"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the configuration is not read again")
		}
	}
	if n := most(20*time.Second, layer, "pull", "-q", second); n != 2 {
		t.Errorf("%d downloads at once, of two", n)
	}
	if n := attempts("eeeee"); n != 2 {
		t.Errorf("asked %d times, of two", n)
	}
}
