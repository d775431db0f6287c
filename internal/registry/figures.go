package registry

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
)

// figures are what Prometheus reads.
type figures struct {
	mu      sync.Mutex
	count   map[[3]string]int64 // route, method, status
	spent   map[string]*spread  // by route
	in, out atomic.Int64
	flying  atomic.Int64
	stale   atomic.Int64
	gcRuns  atomic.Int64
	gcBlobs atomic.Int64
	gcBytes atomic.Int64
}

// spread is a histogram of seconds.
type spread struct {
	buckets [len(bounds) + 1]int64
	sum     float64
	n       int64
}

// bounds of the buckets, in seconds.
var bounds = [...]float64{0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60}

func newFigures() *figures {
	return &figures{count: map[[3]string]int64{}, spent: map[string]*spread{}}
}

// begin counts a request that is under way, and returns how to count its end.
func (f *figures) begin() func(route, method string, status int, in, out int64, took time.Duration) {
	f.flying.Add(1)
	return func(route, method string, status int, in, out int64, took time.Duration) {
		f.flying.Add(-1)
		f.in.Add(in)
		f.out.Add(out)
		if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}, method) {
			method = "other"
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.count[[3]string{route, method, fmt.Sprint(status)}]++
		s := f.spent[route]
		if s == nil {
			s = &spread{}
			f.spent[route] = s
		}
		i, _ := slices.BinarySearch(bounds[:], took.Seconds())
		s.buckets[i]++
		s.sum += took.Seconds()
		s.n++
	}
}

func (f *figures) collected(got repo.Collected) {
	f.gcRuns.Add(1)
	f.gcBlobs.Add(got.Blobs)
	f.gcBytes.Add(got.Bytes)
}

// render writes the figures.
// Format: Prometheus text exposition 0.0.4.
func (f *figures) render() []byte {
	var b bytes.Buffer
	one := func(name, typ, help string, v int64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", name, help, name, typ, name, v)
	}
	one("gantry_registry_requests_in_flight", "gauge", "Requests that are being answered.", f.flying.Load())
	one("gantry_registry_received_bytes_total", "counter", "Bytes of request bodies.", f.in.Load())
	one("gantry_registry_sent_bytes_total", "counter", "Bytes of answers.", f.out.Load())
	one("gantry_registry_stale_total", "counter", "Tags of copies that were answered while their registry could not be asked.", f.stale.Load())
	one("gantry_registry_gc_runs_total", "counter", "Collections of garbage.", f.gcRuns.Load())
	one("gantry_registry_gc_blobs_total", "counter", "Blobs that collections have removed.", f.gcBlobs.Load())
	one("gantry_registry_gc_bytes_total", "counter", "Bytes that collections have removed.", f.gcBytes.Load())
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for k, n := range f.count {
		lines = append(lines, fmt.Sprintf("gantry_registry_requests_total{route=%q,method=%q,code=%q} %d\n", k[0], k[1], k[2], n))
	}
	slices.Sort(lines)
	b.WriteString("# HELP gantry_registry_requests_total Requests that were answered.\n# TYPE gantry_registry_requests_total counter\n" + strings.Join(lines, ""))
	b.WriteString("# HELP gantry_registry_request_seconds How long answers took.\n# TYPE gantry_registry_request_seconds histogram\n")
	routes := []string{}
	for r := range f.spent {
		routes = append(routes, r)
	}
	slices.Sort(routes)
	for _, r := range routes {
		s, sum := f.spent[r], int64(0)
		for i, le := range bounds {
			sum += s.buckets[i]
			fmt.Fprintf(&b, "gantry_registry_request_seconds_bucket{route=%q,le=\"%g\"} %d\n", r, le, sum)
		}
		fmt.Fprintf(&b, "gantry_registry_request_seconds_bucket{route=%q,le=\"+Inf\"} %d\n", r, s.n)
		fmt.Fprintf(&b, "gantry_registry_request_seconds_sum{route=%q} %g\ngantry_registry_request_seconds_count{route=%q} %d\n", r, s.sum, r, s.n)
	}
	return b.Bytes()
}

// metrics sends the figures to who may administer the registry.
func (s *pages) metrics(r *request) error {
	if err := s.need(r, "", auth.Admin); err != nil {
		return err
	}
	r.w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	r.w.WriteHeader(http.StatusOK)
	_, _ = r.w.Write(s.figures.render()) // a client that is gone does not read of it
	return nil
}
