package container

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/launch"
	"gantry/internal/ociruntime/job"
	"gantry/internal/plan"
	"gantry/internal/shim"
	"gantry/internal/store"
	"gantry/internal/volume"
	"gantry/internal/wire"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeShim is a process that ends when the test, or a signal, says so.
type fakeShim struct {
	l    *fakeLauncher
	id   string
	mu   sync.Mutex
	exit *shim.Exit
	done chan struct{}
	out  []*fakeStream
	sigs []int
	deaf bool // ignores all signals but SIGKILL
	fact chan string
	gone bool // the daemon's connection is closed
	// mounts are its mount points with their tags, under the launcher's lock.
	mounts map[string]string
}

func (f *fakeShim) Pid() int { return 4242 }

func (f *fakeShim) Start(context.Context) error {
	if e := f.l.startErr; e != nil {
		return e
	}
	f.l.mu.Lock()
	run := f.l.run
	f.l.mu.Unlock()
	if run != nil {
		go run(f)
	}
	return nil
}

// end ends the process.
func (f *fakeShim) end(code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.exit != nil {
		return
	}
	f.exit = &shim.Exit{Code: code, At: time.Now()}
	for _, s := range f.out {
		s.finish()
	}
	close(f.done)
	close(f.fact)
}

// print writes to every attached client.
func (f *fakeShim) print(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.out {
		s.put(text)
	}
}

func (f *fakeShim) Wait(ctx context.Context) (shim.Exit, error) {
	select {
	case <-f.done:
		return *f.exit, nil
	case <-ctx.Done():
		return shim.Exit{}, ctx.Err()
	}
}

func (f *fakeShim) Facts() <-chan string { return f.fact }

func (f *fakeShim) Signal(_ context.Context, sig int) error {
	f.mu.Lock()
	f.sigs = append(f.sigs, sig)
	gone, deaf := f.exit != nil, f.deaf
	f.mu.Unlock()
	switch {
	case gone:
		return errs.New(errs.NotFound, "no process")
	case sig == 9, sig == 15 && !deaf:
		f.end(128 + sig)
	}
	return nil
}

func (f *fakeShim) Resize(context.Context, uint16, uint16) error { return nil }

func (f *fakeShim) Attach(context.Context, shim.Streams) (shim.Stream, error) {
	s := newFakeStream()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out = append(f.out, s)
	if f.exit != nil {
		s.finish()
	}
	return s, nil
}

func (f *fakeShim) Exec(_ context.Context, id string, _ *job.Process, _ shim.Streams) (shim.Exec, error) {
	return &fakeExec{shim: f, stream: newFakeStream(), done: make(chan struct{})}, nil
}

func (f *fakeShim) Mounts(context.Context) (map[string]string, error) {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	return maps.Clone(f.mounts), nil
}

func (f *fakeShim) Mount(_ context.Context, tag string, m *job.Mount) error {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	if m.Target == f.l.badMount {
		return errors.New("attach: no such device")
	}
	if _, there := f.mounts[m.Target]; there {
		return errs.New(errs.Conflict, "there is a mount at %s", m.Target)
	}
	f.mounts[m.Target] = tag
	return nil
}

func (f *fakeShim) Unmount(_ context.Context, at string) error {
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	if _, there := f.mounts[at]; !there {
		return errs.New(errs.NotFound, "no mount at %s", at)
	}
	delete(f.mounts, at)
	return nil
}

func (f *fakeShim) Resume(string, int) shim.Exec {
	return &fakeExec{shim: f, stream: newFakeStream(), done: make(chan struct{})}
}

func (f *fakeShim) Checkpoint(_ context.Context, c shim.Checkpoint) error {
	if err := os.WriteFile(filepath.Join(c.Dir, "inventory.img"), nil, 0o600); err != nil {
		return err
	}
	if !c.LeaveRunning {
		f.end(137)
	}
	return nil
}

func (f *fakeShim) Shutdown(context.Context) error { return nil }

func (f *fakeShim) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	return nil
}

// fakeExec answers with the code that the launcher's probe function says.
type fakeExec struct {
	shim   *fakeShim
	stream *fakeStream
	done   chan struct{}
	once   sync.Once
	code   int
}

func (e *fakeExec) Stream() shim.Stream { return e.stream }

func (e *fakeExec) Start(context.Context) error {
	e.shim.l.mu.Lock()
	exec := e.shim.l.exec
	e.shim.l.mu.Unlock()
	if exec == nil {
		e.stream.finish()
		return &shim.StartError{ExitCode: 127, Text: `exec: "nosuch": executable file not found in $PATH`}
	}
	go func() {
		code, text := exec()
		e.finish(code, text)
	}()
	return nil
}

func (e *fakeExec) finish(code int, text string) {
	e.once.Do(func() {
		e.code = code
		e.stream.put(text)
		e.stream.finish()
		close(e.done)
	})
}

func (e *fakeExec) Pid() int { return 4243 }

func (e *fakeExec) Wait(ctx context.Context) (shim.Exit, error) {
	select {
	case <-e.done:
		return shim.Exit{Code: e.code, At: time.Now()}, nil
	case <-ctx.Done():
		return shim.Exit{}, ctx.Err()
	}
}

func (e *fakeExec) Signal(_ context.Context, sig int) error { e.finish(128+sig, ""); return nil }

func (e *fakeExec) Resize(context.Context, uint16, uint16) error { return nil }
func (e *fakeExec) Close() error                                 { return nil }

// fakeStream gives what is put into it.
type fakeStream struct {
	r *io.PipeReader
	w *io.PipeWriter
	c chan string
	// typed is what the client wrote.
	mu    sync.Mutex
	typed []byte
	once  sync.Once
}

func newFakeStream() *fakeStream {
	r, w := io.Pipe()
	s := &fakeStream{r: r, w: w, c: make(chan string, 64)}
	go func() {
		for text := range s.c {
			if _, err := io.WriteString(w, text); err != nil {
				break
			}
		}
		w.Close()
	}()
	return s
}

func (s *fakeStream) put(text string) {
	if text != "" {
		s.c <- text
	}
}
func (s *fakeStream) finish()                    { s.once.Do(func() { close(s.c) }) }
func (s *fakeStream) Read(p []byte) (int, error) { return s.r.Read(p) }
func (s *fakeStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.typed = append(s.typed, p...)
	return len(p), nil
}
func (s *fakeStream) CloseWrite() error { return nil }
func (s *fakeStream) Close() error      { s.finish(); return s.r.Close() }

// fakeLauncher launches fakeShims. It lives as long as a "machine": engines
// come and go.
type fakeLauncher struct {
	mu        sync.Mutex
	shims     map[string]*fakeShim
	run       func(*fakeShim) // what a started process does
	exec      func() (code int, output string)
	prepErr   error
	startErr  error
	slow      chan struct{} // Prepare waits for it, if it is not nil
	downs     int
	swept     [2][]string
	deaf      bool
	badMount  string // a target where nothing can be mounted
	published []wire.PortMap
	stuck     chan struct{} // Publish waits for it, or for the test's end
}

func newFakeLauncher() *fakeLauncher { return &fakeLauncher{shims: map[string]*fakeShim{}} }

func (l *fakeLauncher) Check(launch.Input) error { return nil }

func (l *fakeLauncher) Prepare(ctx context.Context, in launch.Input) (*launch.Running, error) {
	l.mu.Lock()
	slow, err := l.slow, l.prepErr
	l.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	f := &fakeShim{l: l, id: in.ID, done: make(chan struct{}), fact: make(chan string, 4), deaf: l.deaf, mounts: map[string]string{}}
	for _, m := range in.Plan.Mounts {
		f.mounts[m.Target] = ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.shims[in.ID]; old != nil {
		return nil, errors.New("a shim of this container is still there")
	}
	l.shims[in.ID] = f
	return &launch.Running{ID: in.ID, Client: f}, nil
}

func (l *fakeLauncher) Release(ctx context.Context, r *launch.Running) error {
	err := r.Client.Start(ctx)
	if err != nil {
		r.Client.(*fakeShim).end(0) // its streams end with it
		err = errors.Join(err, l.Teardown(ctx, r.ID))
	}
	return err
}

func (l *fakeLauncher) Adopt(_ context.Context, id string) (*launch.Running, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.shims[id]
	if f == nil {
		return nil, errs.New(errs.Unavailable, "no shim")
	}
	return &launch.Running{ID: id, Client: f}, nil
}

func (l *fakeLauncher) Teardown(_ context.Context, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.downs++
	delete(l.shims, id)
	return nil
}

func (l *fakeLauncher) Destroy(context.Context, string) error { return nil }
func (l *fakeLauncher) Sweep(_ context.Context, known, up []string) error {
	l.swept = [2][]string{known, up}
	return nil
}

func (l *fakeLauncher) Process(_ context.Context, _ launch.Input, _ int, p *plan.ExecPlan) (*launch.ExecProcess, error) {
	if p.Process.User == "nosuch" {
		return nil, errors.New("unable to find user nosuch: no matching entries in passwd file")
	}
	return &launch.ExecProcess{}, nil
}

func (l *fakeLauncher) Files(context.Context, launch.Input, launch.FilesOptions) (*launch.FileTree, error) {
	return nil, errs.New(errs.Unsupported, "no files")
}

func (l *fakeLauncher) Cgroup(id string, _ *plan.Plan) *launch.Group {
	return (&cgroup.Host{V1: map[string]string{}}).Group("/test/" + id)
}

func (l *fakeLauncher) Limit(context.Context, string, *plan.Plan) error { return nil }

func (l *fakeLauncher) Source(_ context.Context, _ launch.Input, m plan.Mount) (*launch.Source, error) {
	return launch.NewSource(job.Mount{Target: m.Target, Type: "bind", Source: "/nowhere"}), nil
}

func (l *fakeLauncher) Resolv(launch.Input, *launch.Sandbox, *launch.Sandbox) error { return nil }

func (l *fakeLauncher) Publish(ctx context.Context, in launch.Input) (*launch.Sandbox, error) {
	l.mu.Lock()
	stuck := l.stuck
	l.published = append(l.published, in.Plan.Ports)
	l.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	for _, bs := range in.Plan.Ports {
		for _, b := range bs {
			if b.HostPort == "666" {
				return nil, errors.New("Bind for 0.0.0.0:666 failed: port is already allocated")
			}
		}
	}
	return nil, nil
}

func (l *fakeLauncher) shim(t *testing.T, id string) *fakeShim {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.shims[id]
	if f == nil {
		t.Fatalf("container %s has no process", id)
	}
	return f
}

// fakeImages has one image, busybox:latest.
type fakeImages struct {
	mu     sync.Mutex
	pinned map[string]bool
}

const imageID = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

func (f *fakeImages) Resolve(_ context.Context, ref, _ string) (*plan.Image, Image, error) {
	if _, ok := f.Find(context.Background(), ref); !ok {
		return nil, Image{}, errs.New(errs.NotFound, "No such image: %s", ref)
	}
	cfg := dockerspec.DockerOCIImageConfig{}
	cfg.Cmd = []string{"sh"}
	return &plan.Image{Digest: imageID, Config: cfg}, Image{ID: imageID, Platform: "linux", Lower: []string{"/nowhere"}}, nil
}

func (f *fakeImages) Find(_ context.Context, ref string) (string, bool) {
	return imageID, ref == "busybox" || ref == "busybox:latest" || ref == imageID
}

func (f *fakeImages) Pin(_ context.Context, id string, _ ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pinned[id] = true
	return nil
}

func (f *fakeImages) Unpin(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pinned, id)
	return nil
}

func (f *fakeImages) Pinned(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for id := range f.pinned {
		out = append(out, id)
	}
	return out, nil
}

// machine is what outlives an engine: its disk, and what runs.
type machine struct {
	dir      string
	db       *store.DB
	bus      *event.Bus
	launcher *fakeLauncher
	images   *fakeImages
	volumes  *volume.Volumes
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	bus := event.New()
	vols, err := volume.Open(volume.Options{Store: db, Dir: filepath.Join(dir, "volumes"), Events: bus})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		bus.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &machine{dir: dir, db: db, bus: bus, launcher: newFakeLauncher(), images: &fakeImages{pinned: map[string]bool{}}, volumes: vols}
}

func (m *machine) open(t *testing.T) *Engine {
	t.Helper()
	e, err := Open(t.Context(), Options{
		Store: m.db, Images: m.images, Volumes: m.volumes, Launcher: m.launcher, Events: m.bus,
		Defaults: func() plan.Defaults {
			return plan.Defaults{Runtime: "gantry", Kernel: plan.CompleteKernel(2, plan.CgroupV1)}
		},
		Root: m.dir, RunDir: filepath.Join(m.dir, "run"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		m.launcher.mu.Lock()
		defer m.launcher.mu.Unlock()
		for _, f := range m.launcher.shims {
			f.end(0)
		}
	})
	return e
}

func create(t *testing.T, e *Engine, name string, change ...func(*wire.CreateRequest)) string {
	t.Helper()
	req := wire.CreateRequest{Config: &wire.ContainerConfig{Image: "busybox", Cmd: []string{"sleep", "1000"}}, HostConfig: &wire.HostConfig{}}
	for _, c := range change {
		c(&req)
	}
	r, err := e.Create(t.Context(), CreateOptions{Name: name, Request: req})
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func start(t *testing.T, e *Engine, ref string) {
	t.Helper()
	if err := e.Start(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, e *Engine, ref string) *wire.ContainerState {
	t.Helper()
	w, err := e.Inspect(t.Context(), ref, InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return w.State
}

func waitFor(t *testing.T, e *Engine, ref, condition string) wire.WaitResponse {
	t.Helper()
	ch, err := e.Wait(t.Context(), ref, condition)
	if err != nil {
		t.Fatal(err)
	}
	return receive(t, ch)
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came within 10 s")
		panic("unreachable")
	}
}

// wants holds err against a kind and a text.
func wants(t *testing.T, err error, kind errs.Kind, text string) {
	t.Helper()
	if err == nil || errs.KindOf(err) != kind || text != "" && err.Error() != text {
		t.Errorf("got (%v) %v\nwant (%v) %s", errs.KindOf(err), err, kind, text)
	}
}
