package telemetry

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// traces is how many of the last starts are remembered.
const traces = 64

// A Trace is how long the steps of one start took.
type Trace struct {
	ID    string
	At    time.Time
	Steps []Step
}

// A Step is one part of a start.
type Step struct {
	Name string
	Took time.Duration // in nanoseconds, as JSON has it
}

// A Tracer remembers the last starts.
type Tracer struct {
	mu   sync.Mutex
	last []Trace
}

// Add remembers a start.
func (t *Tracer) Add(tr Trace) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.last) == traces {
		t.last = append(t.last[:0], t.last[1:]...)
	}
	t.last = append(t.last, tr)
}

// Last returns what is remembered, the newest last.
func (t *Tracer) Last() []Trace {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Trace{}, t.last...)
}

// Show serves the metrics at /metrics.
func Show(m *Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = m.WriteTo(w)
	})
	return mux
}

// Handler serves everything that the debug socket shows: /metrics, /traces,
// /debug/vars, /debug/pprof/.
func Handler(m *Metrics, t *Tracer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", Show(m))
	mux.HandleFunc("GET /traces", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, t.Last()) })
	mux.Handle("GET /debug/", Profiler())
	return mux
}

// Profiler serves /debug/vars and /debug/pprof/ as net/http/pprof does.
func Profiler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/vars", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, vars()) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// vars is what expvar shows.
func vars() map[string]any {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return map[string]any{"cmdline": os.Args, "memstats": mem, "goroutines": runtime.NumGoroutine()}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// Process adds what the runtime and the kernel know of this process.
func Process(m *Metrics, began time.Time) {
	one := func(name, help string, read func() float64) {
		m.Gauge(Family{Name: name, Help: help}, func() map[string]float64 { return map[string]float64{"": read()} })
	}
	one("go_goroutines", "Goroutines that exist.", func() float64 { return float64(runtime.NumGoroutine()) })
	one("go_memstats_heap_alloc_bytes", "Bytes of heap in use.", func() float64 {
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		return float64(mem.HeapAlloc)
	})
	one("process_start_time_seconds", "When the process began, since 1970.", func() float64 { return float64(began.UnixNano()) / 1e9 })
	one("process_cpu_seconds_total", "Processor time used.", cpuSeconds)
	one("process_resident_memory_bytes", "Memory resident.", func() float64 { return float64(resident()) })
	one("process_open_fds", "Open file descriptors.", func() float64 {
		list, _ := os.ReadDir("/proc/self/fd")
		return float64(len(list))
	})
}

func cpuSeconds() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// resident is VmRSS of proc(5), in bytes.
func resident() int {
	data, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(data))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n * os.Getpagesize()
}
