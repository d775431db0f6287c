package clients

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// One registry server is the copy of two registries that want to know who asks,
// each in its way, and the daemon's mirror for both. What has come once comes from
// the copy, also when both registries are down.
func TestCopyOfTwoRegistries(t *testing.T) {
	one := registry.New(t, registry.Options{Auth: registry.Token, User: "ann", Password: "pw1"})
	two := registry.New(t, registry.Options{Auth: registry.Basic, User: "bob", Password: "pw2"})
	for i, r := range []*registry.Server{one, two} {
		r.Put("lib/app", "v1", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", uint64(i+1), 1<<20), registry.NoiseLayer("g", uint64(i+3), 1<<20)}})
	}
	dir := t.TempDir()
	conf, daemon := filepath.Join(dir, "c.yml"), filepath.Join(dir, "daemon.json")
	text := fmt.Sprintf("upstreams:\n- {prefix: one, url: %q, username: ann, password: pw1, ttl: 1h}\n- {prefix: two, url: %q, username: bob, password: pw2, ttl: 1ns}\n", "http://"+one.Host, "http://"+two.Host)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	host := serveRegistry(t, "--config", conf)
	rules := fmt.Sprintf(`{"registries": {"one.test": {"mirrors": ["http://%[1]s"], "rewrite": {"^(.*)$": "one/$1"}}, "two.test": {"mirrors": ["http://%[1]s"], "rewrite": {"^(.*)$": "two/$1"}}}}`, host)
	if err := os.WriteFile(daemon, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	d := testkit.StartDaemon(t, "--bridge", "none", "--config-file", daemon)
	images := []string{"one.test/lib/app:v1", "two.test/lib/app:v1"}
	ids := map[string]string{}
	for _, i := range images {
		d.OK(t, "pull", "-q", i)
		ids[i] = d.OK(t, "image", "inspect", "-f", "{{.Id}}", i)
	}
	if ids[images[0]] == ids[images[1]] {
		t.Error("both names mean the same image")
	}
	blobs := func() (n int) {
		for _, r := range []*registry.Server{one, two} {
			for _, q := range r.Requests() {
				if q.Method == http.MethodGet && strings.Contains(q.Path, "/blobs/") && q.Authorization != "" {
					n++
				}
			}
		}
		return n
	}
	came := blobs()
	down := registry.Faults{Before: func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	}}
	one.Set(down)
	two.Set(down)
	for _, i := range images {
		d.OK(t, "rmi", i)
		d.OK(t, "pull", "-q", i)
		if id := d.OK(t, "image", "inspect", "-f", "{{.Id}}", i); id != ids[i] {
			t.Errorf("%s is %s now, and was %s", i, id, ids[i])
		}
	}
	// Two layers and a configuration of each.
	if n := blobs(); came != 6 || n != came {
		t.Errorf("%d blobs were fetched at first, want 6, and %d afterwards", came, n-came)
	}
	if out := d.OK(t, "search", host+"/app"); !strings.Contains(out, "one/lib/app") || !strings.Contains(out, "two/lib/app") {
		t.Errorf("search: %s", out)
	}
}
