package shim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim"
)

func TestStartErrors(t *testing.T) {
	for _, c := range []struct {
		arg  string
		code int
		text string
	}{
		{"nosuch", 127, `exec: "nosuch": executable file not found in $PATH`},
		{"/etc", 126, `exec: "/etc": is a directory: permission denied`},
	} {
		r := request(t, c.arg)
		b := create(t, launcher(t), r)
		err := b.client.Start(b.ctx())
		var se *shim.StartError
		if !errors.As(err, &se) || se.ExitCode != c.code || !strings.Contains(se.Text, c.text) {
			t.Errorf("%s: %v", c.arg, err)
		}
		if e := b.wait(); e.Code != c.code {
			t.Errorf("%s: %+v", c.arg, e)
		}
	}
}

func TestCreateFails(t *testing.T) {
	l := launcher(t)
	r := request(t, "true")
	r.Job.Root.Path = "/nosuch"
	if _, err := l.Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), "/nosuch") {
		t.Errorf("create: %v", err)
	}
	b := &box{t: t, req: r}
	if b.group().Exists() {
		t.Error("the cgroup is left")
	}
	r = request(t, "true")
	r.Log.Driver = "nosuch"
	if _, err := l.Create(t.Context(), r); !errs.Is(err, errs.Unsupported) {
		t.Errorf("log driver: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Create(ctx, request(t, "true")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A container that its daemon has left before Start undoes itself.
func TestLeftBeforeStart(t *testing.T) {
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	pid := b.client.Pid()
	b.client.Close()
	for range 300 {
		if unix.Kill(pid, 0) != nil && !b.group().Exists() {
			if _, err := shim.ReadExit(b.dir); !errs.Is(err, errs.NotFound) {
				t.Errorf("exit record: %v", err)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("it is still there: process %v, cgroup %v", unix.Kill(pid, 0), b.group().Exists())
}

func TestSignal(t *testing.T) {
	b := create(t, launcher(t), request(t, "sh", "-c", "trap 'echo term; exit 3' TERM; echo ready; while true; do sleep 0.05; done"))
	s := b.attach(output)
	b.start()
	readFrame(t, s)
	if err := b.client.Signal(b.ctx(), int(syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(); e.Code != 3 {
		t.Errorf("%+v", e)
	}
	if err := b.client.Signal(b.ctx(), 15); !errs.Is(err, errs.Conflict) {
		t.Errorf("signal after the end: %v", err)
	}
	k := create(t, launcher(t), request(t, "sleep", "1000"))
	k.start()
	if err := k.client.Shutdown(k.ctx()); !errs.Is(err, errs.Conflict) {
		t.Errorf("shutdown of a running container: %v", err)
	}
	if err := k.client.Signal(k.ctx(), 9); err != nil {
		t.Fatal(err)
	}
	if e := k.wait(); e.Code != 137 {
		t.Errorf("%+v", e)
	}
}

// The shim survives what service managers send, and the container does not
// inherit that.
func TestSignalsToTheShim(t *testing.T) {
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	b.start()
	pid := b.shimPid()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.client.Wait(short(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.client.Pid()))
	for line := range strings.Lines(string(status)) {
		if (strings.HasPrefix(line, "SigBlk") || strings.HasPrefix(line, "SigIgn")) && !strings.HasSuffix(line, "\t0000000000000000\n") {
			t.Errorf("the container's process has %s", line)
		}
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if string(comm) != "gantry-shim\n" {
		t.Errorf("the shim is named %q", comm)
	}
}

func (b *box) exec(id string, want shim.Streams, p job.Process) shim.Exec {
	b.t.Helper()
	e, err := b.client.Exec(b.ctx(), id, &p, want)
	if err != nil {
		b.t.Fatal("exec:", err)
	}
	b.t.Cleanup(func() { e.Close() })
	return e
}

func TestExec(t *testing.T) {
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	if _, err := b.client.Exec(b.ctx(), "early", &job.Process{}, output); !errs.Is(err, errs.Conflict) {
		t.Errorf("exec before the start: %v", err)
	}
	b.start()
	e := b.exec("e1", allThree, process("sh", "-c", "cat; echo err >&2; echo $$ > /tmp/pid; exit 4"))
	if err := e.Start(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if e.Pid() <= 0 {
		t.Errorf("pid %d", e.Pid())
	}
	io.WriteString(e.Stream(), "in\n")
	e.Stream().CloseWrite()
	if out, errText := frames(t, e.Stream()); out != "in\n" || errText != "err\n" {
		t.Errorf("%q %q", out, errText)
	}
	if got, err := e.Wait(b.ctx()); err != nil || got.Code != 4 {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := b.client.Exec(b.ctx(), "e1", &job.Process{Args: []string{"true"}, Cwd: "/"}, output); !errs.Is(err, errs.Conflict) {
		t.Errorf("the same ID: %v", err)
	}
	bad := b.exec("e2", output, process("nosuch"))
	var se *shim.StartError
	if err := bad.Start(b.ctx()); !errors.As(err, &se) || se.ExitCode != 127 {
		t.Errorf("nosuch: %v", err)
	}
	if got, err := bad.Wait(b.ctx()); err != nil || got.Code != 127 {
		t.Errorf("nosuch: %+v %v", got, err)
	}
	quiet := b.exec("e3", shim.Streams{}, process("sh", "-c", "echo nobody; exit 6"))
	if quiet.Stream() != nil {
		t.Error("a stream that nobody wanted")
	}
	quiet.Start(b.ctx())
	if got, err := quiet.Wait(b.ctx()); err != nil || got.Code != 6 {
		t.Errorf("detached: %+v %v", got, err)
	}
}

func TestExecTerminal(t *testing.T) {
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	b.start()
	p := process("sh", "-c", "read x; stty size; exit 2")
	p.Terminal = true
	e := b.exec("tty", allThree, p)
	if err := e.Start(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := e.Resize(b.ctx(), 12, 34); err != nil {
		t.Fatal(err)
	}
	io.WriteString(e.Stream(), "\n")
	out, err := io.ReadAll(e.Stream())
	if !strings.Contains(string(out), "12 34\r\n") || err != nil {
		t.Errorf("%q %v", out, err)
	}
	if got, err := e.Wait(b.ctx()); err != nil || got.Code != 2 {
		t.Errorf("%+v %v", got, err)
	}
}

// An exec whose child keeps its output open ends nevertheless, and the child
// lives on.
func TestExecLeavesAChild(t *testing.T) {
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	b.start()
	e := b.exec("bg", output, process("sh", "-c", "(sleep 3; echo late; echo $? > /tmp/alive) & echo now"))
	start := time.Now()
	e.Start(b.ctx())
	if out, _ := frames(t, e.Stream()); out != "now\n" {
		t.Errorf("output %q", out)
	}
	if got, err := e.Wait(b.ctx()); err != nil || got.Code != 0 {
		t.Errorf("%+v %v", got, err)
	}
	if d := time.Since(start); d > 2900*time.Millisecond {
		t.Errorf("took %v", d)
	}
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(b.req.Job.Root.Path + "/tmp/alive")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the child was killed:", err)
		}
	}
}

func TestExecsEndWithTheContainer(t *testing.T) {
	b := create(t, launcher(t), request(t, "sleep", "1000"))
	b.start()
	e := b.exec("e", output, process("sleep", "1000"))
	e.Start(b.ctx())
	b.client.Signal(b.ctx(), 9)
	if got, err := e.Wait(b.ctx()); err != nil || got.Code != 137 {
		t.Errorf("%+v %v", got, err)
	}
	b.wait()
}

// Without a pid namespace of its own the container's strays are killed with it.
func TestHostPids(t *testing.T) {
	r := request(t, "sh", "-c", "sleep 1000 & echo $!; exit 1")
	r.Job.Namespaces = r.Job.Namespaces[1:]
	b := create(t, launcher(t), r)
	s := b.attach(output)
	b.start()
	out, _ := frames(t, s)
	if e := b.wait(); e.Code != 1 {
		t.Errorf("%+v", e)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatalf("output %q", out)
	}
	for range 100 {
		if unix.Kill(pid, 0) != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is left", pid)
}

func TestOutOfMemory(t *testing.T) {
	r := request(t, "sh", "-c", "x=a; while true; do x=$x$x$x$x; done")
	limit := int64(24 << 20)
	r.Job.Cgroup.Resources = memoryLimit(limit)
	b := create(t, launcher(t), r)
	b.start()
	fact := make(chan string, 1)
	go func() { fact <- <-b.client.Facts() }()
	if e := b.wait(); e.Code != 137 || !e.OOMKilled {
		t.Errorf("%+v", e)
	}
	select {
	case f := <-fact:
		if f != "oom" {
			t.Errorf("fact %q", f)
		}
	case <-time.After(2 * time.Second):
		t.Error("no fact")
	}
}
