package shim_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim"
	"gantry/internal/testkit"
)

// program is the path of the shim that all tests use, built from this tree.
var program string //nolint:gochecknoglobals // set once by TestMain

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "shim-test-*")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "gantry-shim")
		if err := testkit.Shim(program); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// needRoot skips a test that needs the kernel's help, but not where all tests
// must run.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test must run as root")
	}
	t.Skip("needs root")
}

// A box is one container under test.
type box struct {
	t      testing.TB
	l      *shim.Launcher
	id     string
	dir    string
	log    string
	client shim.Client
	req    shim.Request
}

func launcher(t testing.TB) *shim.Launcher {
	t.Helper()
	needRoot(t)
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	l, err := shim.NewLauncher(data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// rootfs makes a root file system of busybox alone.
func rootfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "proc", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal("install busybox-static:", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "echo", "sleep", "true", "yes", "seq", "stty", "ps", "dd", "head", "tty", "kill", "wc", "tail"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func process(args ...string) job.Process {
	return job.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", Umask: 0o022}
}

// request describes a container with namespaces of its own that runs args.
func request(t testing.TB, args ...string) shim.Request {
	t.Helper()
	containerID := id.New()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30), containerID) // longer than a socket's path may be
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return shim.Request{
		ID: containerID, Dir: dir,
		Log: shim.LogConfig{Driver: "json-file", Path: filepath.Join(dir, "c-json.log"), MaxSize: -1, MaxFile: 1},
		Job: &job.Job{
			ID: containerID, Process: process(args...), Hostname: "box",
			Namespaces: []job.Namespace{
				{Type: unix.CLONE_NEWPID}, {Type: unix.CLONE_NEWNS}, {Type: unix.CLONE_NEWIPC},
				{Type: unix.CLONE_NEWUTS}, {Type: unix.CLONE_NEWNET},
			},
			Devices: []job.Device{{Path: "/dev/null", Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 3}},
			Root:    job.Root{Path: rootfs(t)},
			Mounts:  []job.Mount{{Target: "/proc", Type: "proc", Source: "proc"}, {Target: "/dev", Type: "tmpfs", Source: "tmpfs", Data: []string{"mode=755"}}, {Target: "/dev/pts", Type: "devpts", Source: "devpts", Data: []string{"newinstance", "ptmxmode=0666", "mode=0620"}}},
			Cgroup:  job.Cgroup{Path: "/gantry-shim-test-" + containerID},
		},
	}
}

// create starts the shim of a request, and sees to it that nothing is left.
func create(t testing.TB, l *shim.Launcher, r shim.Request) *box {
	t.Helper()
	c, err := l.Create(t.Context(), r)
	if err != nil {
		t.Fatal("create:", err)
	}
	b := &box{t: t, l: l, id: r.ID, dir: r.Dir, log: r.Log.Path, client: c, req: r}
	t.Cleanup(b.end)
	return b
}

func (b *box) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b.client.Signal(ctx, 9)
	b.client.Wait(ctx)
	b.client.Shutdown(ctx)
	b.client.Close()
	if g := b.group(); g != nil {
		g.Kill()
		if err := g.Remove(); err != nil {
			b.t.Error(err)
		}
	}
}

func (b *box) group() *cgroup.Group {
	if b.req.Job.Cgroup.Path == "" {
		return nil
	}
	h, err := cgroup.Detect()
	if err != nil {
		b.t.Fatal(err)
	}
	return h.Group(b.req.Job.Cgroup.Path)
}

func (b *box) start() {
	b.t.Helper()
	if err := b.client.Start(b.ctx()); err != nil {
		b.t.Fatal("start:", err)
	}
}

func (b *box) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *box) wait() shim.Exit {
	b.t.Helper()
	e, err := b.client.Wait(b.ctx())
	if err != nil {
		b.t.Fatal("wait:", err)
	}
	return e
}

func (b *box) attach(want shim.Streams) shim.Stream {
	b.t.Helper()
	s, err := b.client.Attach(b.ctx(), want)
	if err != nil {
		b.t.Fatal("attach:", err)
	}
	b.t.Cleanup(func() { s.Close() })
	return s
}

var output = shim.Streams{Stdout: true, Stderr: true} //nolint:gochecknoglobals // never written
var allThree = shim.Streams{Stdin: true, Stdout: true, Stderr: true}

// frames takes a stream's frames apart until it ends.
func frames(t testing.TB, r io.Reader) (out, err string) {
	t.Helper()
	var parts [3]bytes.Buffer
	for {
		var h [8]byte
		if _, e := io.ReadFull(r, h[:]); errors.Is(e, io.EOF) {
			return parts[1].String(), parts[2].String()
		} else if e != nil {
			t.Error("stream:", e)
			return parts[1].String(), parts[2].String()
		}
		if h[0] < 1 || h[0] > 2 || h[1]|h[2]|h[3] != 0 {
			t.Fatalf("frame header % x", h)
		}
		if _, e := io.CopyN(&parts[h[0]], r, int64(binary.BigEndian.Uint32(h[4:]))); e != nil {
			t.Fatal("frame:", e)
		}
	}
}

func TestRunToTheEnd(t *testing.T) {
	l := launcher(t)
	b := create(t, l, request(t, "sh", "-c", "echo out; echo err >&2; printf tail; exit 7"))
	s := b.attach(output)
	b.start()
	out, errText := frames(t, s)
	if out != "out\ntail" || errText != "err\n" {
		t.Errorf("stdout %q stderr %q", out, errText)
	}
	e := b.wait()
	if e.Code != 7 || time.Since(e.At) > time.Minute || e.OOMKilled {
		t.Errorf("exit %+v", e)
	}
	if again := b.wait(); again != e {
		t.Errorf("second wait %+v", again)
	}
	if got, err := shim.ReadExit(b.dir); err != nil || got != e {
		t.Errorf("record %+v %v", got, err)
	}
	log, _ := os.ReadFile(b.log)
	for _, want := range []string{`{"log":"out\n","stream":"stdout","time":"`, `{"log":"err\n","stream":"stderr","time":"`, `{"log":"tail","stream":"stdout","time":"`} {
		if !strings.Contains(string(log), want) {
			t.Errorf("log lacks %s:\n%s", want, log)
		}
	}
	if err := b.client.Shutdown(b.ctx()); err != nil {
		t.Error(err)
	}
	if b.group().Exists() {
		t.Error("the cgroup is left")
	}
	if _, err := os.Stat(filepath.Join(b.dir, shim.SocketFile)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket is left")
	}
	if err := b.client.Signal(b.ctx(), 9); !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Conflict) {
		t.Errorf("signal after shutdown: %v", err)
	}
	if got, err := b.client.Wait(b.ctx()); err != nil || got != e {
		t.Errorf("wait after shutdown: %+v %v", got, err)
	}
}
