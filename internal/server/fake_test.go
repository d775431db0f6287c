package server

import (
	"bufio"
	"context"
	"io"
	"iter"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/container"
	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/filter"
	"gantry/internal/wire"
)

// fake is an engine with one container, c1, that remembers what it was asked.
type fake struct {
	created container.CreateOptions
	stop    container.StopOptions
	stream  *fakeStream
	tty     bool
	attach  container.AttachOptions
	execErr error
	wait    chan wire.WaitResponse
	panics  bool
}

func (f *fake) see(ref string) error {
	if ref == "c1" {
		return nil
	}
	return errs.New(errs.NotFound, "No such container: %s", ref)
}

func (f *fake) Create(_ context.Context, o container.CreateOptions) (wire.CreateResponse, error) {
	f.created = o
	return wire.CreateResponse{ID: strings.Repeat("a", 64)}, nil
}
func (f *fake) Start(_ context.Context, ref string) error { return f.see(ref) }
func (f *fake) Stop(_ context.Context, ref string, o container.StopOptions) error {
	f.stop = o
	if ref == "stopped" {
		return errs.New(errs.NoChange, "not running")
	}
	return f.see(ref)
}
func (f *fake) Restart(_ context.Context, ref string, o container.StopOptions) error {
	return f.see(ref)
}
func (f *fake) Kill(_ context.Context, ref, signal string) error { return f.see(ref) }
func (f *fake) Pause(_ context.Context, ref string) error        { return f.see(ref) }
func (f *fake) Unpause(_ context.Context, ref string) error      { return f.see(ref) }
func (f *fake) Rename(_ context.Context, ref, name string) error { return f.see(ref) }
func (f *fake) Remove(_ context.Context, ref string, o container.RemoveOptions) error {
	return f.see(ref)
}
func (f *fake) Update(_ context.Context, ref string, c wire.UpdateRequest) (wire.UpdateResponse, error) {
	return wire.UpdateResponse{}, f.see(ref)
}
func (f *fake) Inspect(_ context.Context, ref string, o container.InspectOptions) (wire.ContainerJSON, error) {
	return wire.ContainerJSON{InspectResponse: wire.InspectResponse{ID: ref, Driver: "overlayfs", Config: &wire.ContainerConfig{}}}, f.see(ref)
}
func (f *fake) List(_ context.Context, o container.ListOptions) ([]wire.ContainerSummary, error) {
	if f.panics {
		panic("boom")
	}
	return nil, nil
}
func (f *fake) Top(_ context.Context, ref, args string) (wire.TopResponse, error) {
	return wire.TopResponse{}, f.see(ref)
}
func (f *fake) Stats(_ context.Context, ref string, o container.StatsOptions) (iter.Seq2[*wire.Stats, error], error) {
	return func(yield func(*wire.Stats, error) bool) {
		for yield(&wire.Stats{Name: "/c1"}, nil) && o.Stream {
		}
	}, f.see(ref)
}
func (f *fake) Prune(_ context.Context, a filter.Args) (wire.ContainersPruned, error) {
	return wire.ContainersPruned{}, nil
}
func (f *fake) Attach(_ context.Context, ref string, o container.AttachOptions) (*container.Attached, error) {
	f.attach = o
	if err := f.see(ref); err != nil {
		return nil, err
	}
	return &container.Attached{Stream: f.stream, TTY: f.tty}, nil
}
func (f *fake) Logs(_ context.Context, ref string, o container.LogOptions) (*container.LogStream, error) {
	return nil, errs.New(errs.Unsupported, "configured logging driver does not support reading")
}
func (f *fake) Resize(_ context.Context, ref string, h, w uint16) error { return f.see(ref) }
func (f *fake) Wait(_ context.Context, ref, condition string) (<-chan wire.WaitResponse, error) {
	return f.wait, f.see(ref)
}
func (f *fake) ExecCreate(_ context.Context, ref string, c wire.ExecCreate) (string, error) {
	return "e1", f.see(ref)
}
func (f *fake) ExecStart(_ context.Context, id string, o container.ExecStartOptions) (*container.Attached, error) {
	if id != "e1" {
		return nil, errs.New(errs.NotFound, "No such exec instance: %s", id)
	}
	if f.execErr != nil || o.Detach {
		return nil, f.execErr
	}
	return &container.Attached{Stream: f.stream, TTY: o.TTY}, nil
}
func (f *fake) ExecInspect(_ context.Context, id string) (wire.ExecInspect, error) {
	return wire.ExecInspect{ID: id}, nil
}
func (f *fake) ExecResize(_ context.Context, id string, h, w uint16) error { return nil }

func (f *fake) Info(context.Context) (wire.Info, error) { return wire.Info{ID: "x"}, nil }
func (f *fake) Version(context.Context) wire.Version    { return wire.Version{Version: "29.7.0"} }
func (f *fake) Examine(context.Context) (any, error)    { return []string{}, nil }
func (f *fake) Mend(context.Context) (any, error)       { return []string{"mended"}, nil }

// fakeStream is a process that answers each line with a frame and ends at the
// end of its input.
type fakeStream struct {
	out    *io.PipeReader
	outW   *io.PipeWriter
	mu     sync.Mutex
	in     strings.Builder
	closed chan struct{}
	once   sync.Once
	half   chan struct{}
}

func newFakeStream() *fakeStream {
	r, w := io.Pipe()
	return &fakeStream{out: r, outW: w, closed: make(chan struct{}), half: make(chan struct{})}
}

func (s *fakeStream) Read(p []byte) (int, error) { return s.out.Read(p) }
func (s *fakeStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.Write(p)
}
func (s *fakeStream) input() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.String()
}
func (s *fakeStream) CloseWrite() error { close(s.half); return nil }
func (s *fakeStream) Close() error {
	s.once.Do(func() { close(s.closed); s.out.Close() })
	return nil
}

// say writes a frame of standard output.
func (s *fakeStream) say(text string) {
	s.outW.Write(append(frameHead(stdoutFrame, len(text)), text...))
}

// running is a server on a unix socket.
type running struct {
	path string
	bus  *event.Bus
	srv  *Server
}

func serve(t *testing.T, f *fake) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	bus := event.New()
	s := New(ctx, Options{
		Lifecycle: f, States: f, Views: f, Streams: f, Execs: f, System: f, Doctor: f, Events: bus,
		Product: "Docker/29.7.0 (linux)", Log: slog.New(slog.DiscardHandler),
	})
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		short, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		if err := s.Shutdown(short); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		cancel()
	})
	return &running{path, bus, s}
}

func (r *running) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.UnixConn)
}

var dateLine = regexp.MustCompile(`Date: [^\r]*\r\n`)

// ask sends one request and returns the whole answer, without the date.
func (r *running) ask(t *testing.T, request string) string {
	t.Helper()
	c := r.dial(t)
	head, body, _ := strings.Cut(request, "\n\n")
	raw := strings.ReplaceAll(head, "\n", "\r\n") + "\r\nConnection: close\r\n\r\n" + body
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(dateLine.ReplaceAllString(string(all), ""), "Connection: close\r\n", "", 1)
}

// readHead reads up to the empty line.
func readHead(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q", err, b.String())
		}
		b.WriteString(line)
		if line == "\r\n" {
			return b.String()
		}
	}
}
