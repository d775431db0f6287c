package shim_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/shim"
)

// foreignRequest describes a container that another runtime's program isolates.
func foreignRequest(t *testing.T, runtime string, terminal bool, args ...string) shim.Request {
	t.Helper()
	r := request(t, args...)
	r.Runtime = []string{runtime}
	r.Bundle = t.TempDir()
	r.Job.Process.Terminal = terminal
	all := []string{"CAP_KILL", "CAP_SETUID", "CAP_SETGID"}
	spec := specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: r.Job.Root.Path}, Hostname: "box",
		Process: &specs.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", Terminal: terminal, Capabilities: &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: r.Job.Cgroup.Path,
			Namespaces:  []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "network"}},
		},
	}
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Bundle, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// runtimes are our own program as an OCI runtime, and runc where there is one.
func runtimes(t *testing.T) map[string]string {
	needRoot(t)
	all := map[string]string{"gantry-shim": program}
	if p, err := exec.LookPath("runc"); err == nil {
		all["runc"] = p
	}
	return all
}

func TestForeignRuntime(t *testing.T) {
	for name, path := range runtimes(t) {
		t.Run(name, func(t *testing.T) {
			r := foreignRequest(t, path, false, "sh", "-c", "echo ready; cat; exit 7")
			r.OpenStdin, r.StdinOnce = true, true
			b := create(t, launcher(t), r)
			s := b.attach(allThree)
			b.start()
			if got := readFrame(t, s); got != "ready\n" {
				t.Errorf("output %q", got)
			}
			e := b.exec("e", allThree, process("sh", "-c", "cat; echo err >&2; exit 4"))
			if err := e.Start(b.ctx()); err != nil {
				t.Fatal(err)
			}
			io.WriteString(e.Stream(), "in\n")
			e.Stream().CloseWrite()
			if out, errText := frames(t, e.Stream()); out != "in\n" || errText != "err\n" {
				t.Errorf("exec: %q %q", out, errText)
			}
			if got, err := e.Wait(b.ctx()); err != nil || got.Code != 4 || e.Pid() <= 0 {
				t.Errorf("exec: %+v %v", got, err)
			}
			bad := b.exec("bad", output, process("nosuch"))
			var se *shim.StartError
			if err := bad.Start(b.ctx()); !errors.As(err, &se) || se.ExitCode != 127 {
				t.Errorf("exec nosuch: %v", err)
			}
			if got, err := bad.Wait(b.ctx()); err != nil || got.Code != 127 {
				t.Errorf("exec nosuch: %+v %v", got, err)
			}
			never := b.exec("never", output, process("true"))
			never.Close()
			io.WriteString(s, "bye\n")
			s.CloseWrite()
			if out, _ := frames(t, s); out != "bye\n" {
				t.Errorf("output %q", out)
			}
			if e := b.wait(); e.Code != 7 {
				t.Errorf("%+v", e)
			}
			if err := b.client.Shutdown(b.ctx()); err != nil {
				t.Error(err)
			}
			if b.group().Exists() {
				t.Error("the cgroup is left")
			}
		})
	}
}

func TestForeignRuntimeTerminal(t *testing.T) {
	for name, path := range runtimes(t) {
		t.Run(name, func(t *testing.T) {
			r := foreignRequest(t, path, true, "sh", "-c", "read x; stty size; sleep 1000")
			r.OpenStdin = true
			b := create(t, launcher(t), r)
			s := b.attach(allThree)
			b.start()
			if err := b.client.Resize(b.ctx(), 12, 34); err != nil {
				t.Fatal(err)
			}
			io.WriteString(s, "\n")
			buf := make([]byte, 100)
			var got strings.Builder
			for !strings.Contains(got.String(), "12 34\r\n") {
				n, err := s.Read(buf)
				got.Write(buf[:n])
				if err != nil {
					t.Fatalf("%q %v", got.String(), err)
				}
			}
			p := process("sh", "-c", "read x; echo got $x")
			p.Terminal = true
			e := b.exec("tty", allThree, p)
			if err := e.Start(b.ctx()); err != nil {
				t.Fatal(err)
			}
			io.WriteString(e.Stream(), "this\n")
			if out, err := io.ReadAll(e.Stream()); !strings.Contains(string(out), "got this\r\n") || err != nil {
				t.Errorf("exec: %q %v", out, err)
			}
			if err := b.client.Signal(b.ctx(), 9); err != nil {
				t.Fatal(err)
			}
			if e := b.wait(); e.Code != 137 {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestForeignRuntimeFails(t *testing.T) {
	r := foreignRequest(t, "/nosuch/runtime", false, "true")
	if _, err := launcher(t).Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), "/nosuch/runtime") {
		t.Errorf("create: %v", err)
	}
}
