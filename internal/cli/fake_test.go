package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gantry/internal/cli/conf"
)

// fakeDaemon answers on a unix socket as the engine does, for one container whose
// process copies its input to its output and then says "end" on standard error.
type fakeDaemon struct {
	t    *testing.T
	host string
	mux  *http.ServeMux

	mu      sync.Mutex
	calls   []string // METHOD path, without the version
	bodies  map[string][]byte
	exit    int
	tty     bool
	fail    map[string]string // path suffix → "status text"
	resized chan string
	kills   chan string
	started chan struct{}
	ended   chan struct{}
}

func newFake(t *testing.T) *fakeDaemon {
	t.Helper()
	f := &fakeDaemon{t: t, mux: http.NewServeMux(), bodies: map[string][]byte{}, fail: map[string]string{}, resized: make(chan string, 16),
		kills: make(chan string, 16), started: make(chan struct{}), ended: make(chan struct{})}
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	f.host = "unix://" + sock
	f.mux.HandleFunc("POST /containers/create", f.create)
	f.mux.HandleFunc("POST /containers/{id}/start", func(w http.ResponseWriter, _ *http.Request) { close(f.started); w.WriteHeader(204) })
	f.mux.HandleFunc("POST /containers/{id}/wait", f.wait)
	f.mux.HandleFunc("POST /containers/{id}/attach", func(w http.ResponseWriter, r *http.Request) { f.stream(w, f.started, f.tty) })
	f.mux.HandleFunc("POST /containers/{id}/resize", func(w http.ResponseWriter, r *http.Request) { f.resized <- r.URL.RawQuery })
	f.mux.HandleFunc("POST /exec/{id}/resize", func(w http.ResponseWriter, r *http.Request) { f.resized <- r.URL.RawQuery })
	f.mux.HandleFunc("POST /containers/{id}/kill", func(w http.ResponseWriter, r *http.Request) {
		f.kills <- r.URL.Query().Get("signal")
		w.WriteHeader(204)
	})
	f.mux.HandleFunc("POST /containers/{id}/exec", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201); io.WriteString(w, `{"Id":"e1"}`) })
	f.mux.HandleFunc("POST /exec/{id}/start", func(w http.ResponseWriter, r *http.Request) {
		if bytes.Contains(f.body("/exec/e1/start"), []byte(`"Detach":true`)) {
			return
		}
		done := make(chan struct{})
		close(done)
		f.stream(w, done, f.tty)
	})
	f.mux.HandleFunc("GET /exec/{id}/json", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"ID":"e1","ExitCode":%d}`, f.exit) })
	f.mux.HandleFunc("GET /containers/{id}/json", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"Id":"c1","Name":"/c","Config":{"Tty":%v,"OpenStdin":true},"HostConfig":{},"State":{"Running":true,"Status":"running"}}`, f.tty)
	})
	s := &http.Server{Handler: http.HandlerFunc(f.serve)}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return f
}

func (f *fakeDaemon) serve(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if rest, ok := strings.CutPrefix(path, "/v1.56"); ok {
		path = rest
	}
	f.mu.Lock()
	f.calls = append(f.calls, r.Method+" "+path)
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		f.bodies[path], _ = io.ReadAll(r.Body)
	}
	for suffix, answer := range f.fail {
		if strings.HasSuffix(path, suffix) {
			f.mu.Unlock()
			code, text, _ := strings.Cut(answer, " ")
			w.Header().Set("Content-Type", "application/json")
			n := 0
			fmt.Sscan(code, &n)
			w.WriteHeader(n)
			_ = json.NewEncoder(w).Encode(map[string]string{"message": text})
			return
		}
	}
	f.mu.Unlock()
	r.URL.Path = path
	w.Header().Set("Content-Type", "application/json")
	f.mux.ServeHTTP(w, r)
}

func (f *fakeDaemon) body(path string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bodies[path]
}

// seen returns the calls so far, sorted out of attach and wait, which may come in
// any order.
func (f *fakeDaemon) seen() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, "\n")
}

func (f *fakeDaemon) create(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(201)
	io.WriteString(w, `{"Id":"c1","Warnings":["be careful"]}`)
}

func (f *fakeDaemon) wait(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
	select {
	case <-f.ended:
		fmt.Fprintf(w, `{"StatusCode":%d}`, f.exit)
	case <-r.Context().Done():
	}
}

// stream takes the connection over: input is copied to output when go is closed.
func (f *fakeDaemon) stream(w http.ResponseWriter, start chan struct{}, tty bool) {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		f.t.Error(err)
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	<-start
	out := func(stream byte, b []byte) {
		if !tty {
			_, _ = conn.Write([]byte{stream, 0, 0, 0, byte(len(b) >> 24), byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))})
		}
		_, _ = conn.Write(b)
	}
	in := bufio.NewReader(buf)
	b := make([]byte, 4096)
	for {
		n, err := in.Read(b)
		if n > 0 {
			out(1, b[:n])
		}
		if tty && bytes.IndexByte(b[:n], 4) >= 0 || err != nil {
			break
		}
	}
	out(2, []byte("end"))
	conn.(*net.UnixConn).CloseWrite()
	select {
	case <-f.ended:
	default:
		close(f.ended)
	}
}

// result of one run of the command line.
type result struct {
	out, err string
	code     int
}

// run executes the command line in this process, as docker, with input on
// standard input.
func run(t *testing.T, host, input string, args ...string) result {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() { defer w.Close(); _, _ = io.WriteString(w, input) }()
	return runIn(t, host, r, nil, args...)
}

// runIn is run with a given input; stdout may be a file.
func runIn(t *testing.T, host string, in *os.File, stdout io.Writer, args ...string) result {
	t.Helper()
	for _, v := range []string{"GANTRY_HOST", "DOCKER_CONTEXT", "GANTRY_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_API_VERSION", "GANTRY_CONFIG", "DOCKER_DEFAULT_PLATFORM"} {
		t.Setenv(v, "")
	}
	if os.Getenv("TEST_HOME") == "" {
		home := t.TempDir()
		t.Setenv("TEST_HOME", home)
		t.Setenv("HOME", home)
		t.Setenv("DOCKER_CONFIG", filepath.Join(home, ".docker"))
	}
	t.Setenv("DOCKER_HOST", host)
	var out, errb bytes.Buffer
	if stdout == nil {
		stdout = &out
	}
	code := Run(context.Background(), Streams{In: in, Out: stdout, Err: &errb}, Build{Version: "1.2.3", Commit: "abc"}, append([]string{"docker"}, args...))
	return result{out.String(), errb.String(), code}
}

// globalFor is what --host leaves behind.
func globalFor(host string) conf.Global { return conf.Global{Hosts: []string{host}} }
