package api

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// With -D the API serves the profiler, as Docker's does; without it there is no
// such page.
func TestProfiler(t *testing.T) {
	get := func(d *testkit.Daemon, path string) (int, string) {
		resp, err := d.Client().Get("http://gantry" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	quiet, open := testkit.StartDaemon(t), testkit.StartDaemon(t, "-D")
	for _, c := range []struct{ request, has string }{
		{"GET /debug/pprof/", "goroutine"},
		{"GET /debug/pprof/cmdline", "gantryd"},
		{"GET /debug/pprof/symbol", "num_symbols"},
		{"GET /debug/pprof/profile?seconds=1", "\x1f\x8b"},
		{"GET /debug/pprof/trace?seconds=0.1", "go 1."},
		{"GET /debug/pprof/heap?debug=1", "heap profile"},
	} {
		path := strings.TrimPrefix(c.request, "GET ")
		if status, text := get(open, path); status != http.StatusOK || !strings.Contains(text, c.has) {
			t.Errorf("%s: %d %.200q", c.request, status, text)
		}
		if status, _ := get(quiet, path); status != http.StatusNotFound {
			t.Errorf("%s without -D: %d", c.request, status)
		}
	}
}
