package telemetry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestTextFormat(t *testing.T) {
	m := New()
	m.Add(Family{"x_total", "Xs.", "kind"}, `a"b`, 2)
	m.Add(Family{"x_total", "Xs.", "kind"}, `a"b`, 1)
	m.Time(Family{"took_seconds", "Time.", "step"}, "net", 3*time.Millisecond)
	m.Time(Family{"took_seconds", "Time.", "step"}, "net", time.Minute)
	m.Gauge(Family{"up", "Up.", "a,b"}, func() map[string]float64 { return map[string]float64{Labels("1", "2"): 4} })
	var b strings.Builder
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# TYPE x_total counter\nx_total{kind=\"a\\\"b\"} 3\n",
		"# TYPE took_seconds histogram\ntook_seconds_bucket{step=\"net\",le=\"0.001\"} 0\ntook_seconds_bucket{step=\"net\",le=\"0.005\"} 1\n",
		"took_seconds_bucket{step=\"net\",le=\"10\"} 1\ntook_seconds_bucket{step=\"net\",le=\"+Inf\"} 2\ntook_seconds_sum{step=\"net\"} 60.003\ntook_seconds_count{step=\"net\"} 2\n",
		"# TYPE up gauge\nup{a=\"1\",b=\"2\"} 4\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestHandler(t *testing.T) {
	m, tr := New(), &Tracer{}
	Process(m, time.Now())
	for range traces + 1 {
		tr.Add(Trace{ID: "old"})
	}
	tr.Add(Trace{ID: "new", Steps: []Step{{"rootfs", time.Second}}})
	if n := len(tr.Last()); n != traces {
		t.Errorf("%d traces are kept", n)
	}
	s := httptest.NewServer(Handler(m, tr))
	defer s.Close()
	for path, want := range map[string]string{
		"/metrics": "process_resident_memory_bytes ", "/traces": `{"Name":"rootfs","Took":1000000000}`,
		"/debug/vars": `"memstats"`, "/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=2": "TestHandler",
	} {
		resp, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %.300s", path, resp.Status, body)
		}
	}
}
