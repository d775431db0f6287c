package ocicli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
)

func TestFlags(t *testing.T) {
	f := flags{"bundle": flagValue, "b": "bundle", "all": flagOnly}
	for _, c := range []struct{ in, opts, rest string }{
		{"--bundle /x id", "map[bundle:[/x]]", "[id]"},
		{"-b /x --all id --all", "map[all:[true] bundle:[/x]]", "[id --all]"},
		{"--bundle=/x=y -- -b", "map[bundle:[/x=y]]", "[-b]"},
		{"--all=false", "map[all:[false]]", "[]"},
		{"--nosuch", "unknown flag: --nosuch", ""},
		{"--bundle", "flag needs a value: --bundle", ""},
	} {
		o, rest, err := f.parse(strings.Fields(c.in))
		if err != nil {
			if err.Error() != c.opts {
				t.Errorf("%q: %v", c.in, err)
			}
			continue
		}
		if got := fmt.Sprint(map[string][]string(o)); got != c.opts || fmt.Sprint(rest) != c.rest {
			t.Errorf("%q: %s %v", c.in, got, rest)
		}
	}
}

func TestCgroupPath(t *testing.T) {
	for in, want := range map[string]string{
		"": "/id", "/a/b": "/a/b", "../../a": "/a", "machine.slice:libpod:x": "/machine.slice/libpod-x.scope",
		"a-b.slice::x": "/a.slice/a-b.slice/x.scope", ":p:x": "/system.slice/p-x.scope", "-.slice:p:x": "/p-x.scope",
	} {
		if got := cgroupPath(in, "id"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestSignalNames(t *testing.T) {
	for in, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "SIGTERM": 15, "term": 15} {
		if got, err := parseSignal(in); err != nil || got != want {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"NOSUCH", "65", "-1", ""} {
		if got, err := parseSignal(in); err == nil {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func TestIDs(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", "a b", strings.Repeat("x", 256)} {
		if checkID(id) == nil {
			t.Errorf("%q was taken", id)
		}
	}
	if err := checkID("libpod-0_a.B+c"); err != nil {
		t.Error(err)
	}
}

// A host is where one test's containers live.
type host struct {
	t             *testing.T
	program, root string
	bundle        string
}

func newHost(t *testing.T, edit func(*specs.Spec)) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test must run as root")
		}
		t.Skip("needs root")
	}
	dir := t.TempDir()
	h := &host{t: t, program: filepath.Join(dir, "gantry-shim"), root: filepath.Join(dir, "root"), bundle: filepath.Join(dir, "bundle")}
	if err := testkit.Shim(h.program); err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(h.bundle, "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "tmp", "sys"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", "/bin/busybox", rootfs+"/bin/busybox").CombinedOutput(); err != nil {
		t.Fatalf("install busybox-static: %v %s", err, out)
	}
	for _, n := range []string{"sh", "echo", "sleep", "cat", "tty"} {
		if err := os.Symlink("busybox", rootfs+"/bin/"+n); err != nil {
			t.Fatal(err)
		}
	}
	h.write(edit)
	return h
}

// write makes the bundle's config.json.
func (h *host) write(edit func(*specs.Spec)) {
	h.t.Helper()
	spec := &specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: "rootfs"}, Hostname: "box",
		Process: &specs.Process{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin"}, Cwd: "/"},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			CgroupsPath: "/gantry-ocicli-test-" + strconv.Itoa(os.Getpid()),
			Namespaces:  []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "network"}},
		},
	}
	if edit != nil {
		edit(spec)
	}
	data, err := json.Marshal(spec)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.bundle, "config.json"), data, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// run runs one command and returns what it printed and its exit code.
func (h *host) run(args ...string) (string, int) {
	h.t.Helper()
	cmd := exec.Command(h.program, append([]string{"--root", h.root, "--log", filepath.Join(h.root, "..", "log"), "--log-format", "json"}, args...)...)
	// A file and not a pipe: the container keeps it open.
	out, err := os.CreateTemp(h.t.TempDir(), "out")
	if err != nil {
		h.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	data, err := os.ReadFile(out.Name())
	if err != nil {
		h.t.Fatal(err)
	}
	return string(data), cmd.ProcessState.ExitCode()
}

// must is run for commands that have to work.
func (h *host) must(args ...string) string {
	h.t.Helper()
	out, code := h.run(args...)
	if code != 0 {
		h.t.Fatalf("%v: exit %d: %s", args, code, out)
	}
	return out
}

func (h *host) status(id string) (s specs.State) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.must("state", id)), &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *host) await(id string, want specs.ContainerState) {
	h.t.Helper()
	var got specs.ContainerState
	for range 200 {
		if got = h.status(id).Status; got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatalf("container is %s, want %s", got, want)
}

// The life of a container through every command.
func TestLifeCycle(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) { s.Annotations = map[string]string{"k": "v"} })
	pidFile := filepath.Join(h.root, "..", "pid")
	h.must("create", "--bundle", h.bundle, "--pid-file", pidFile, "c1")
	t.Cleanup(func() { h.run("delete", "--force", "c1") })
	s := h.status("c1")
	pid, _ := os.ReadFile(pidFile)
	if s.Status != specs.StateCreated || strconv.Itoa(s.Pid) != string(pid) || s.Bundle != h.bundle || s.Annotations["k"] != "v" || s.ID != "c1" {
		t.Errorf("created: %+v, pid file %s", s, pid)
	}
	if out, code := h.run("create", "--bundle", h.bundle, "c1"); code == 0 || !strings.Contains(out, "container with id exists: c1") {
		t.Errorf("the same ID: %d %s", code, out)
	}
	h.must("start", "c1")
	if out, code := h.run("start", "c1"); code == 0 || !strings.Contains(out, "cannot start a container that is running") {
		t.Errorf("second start: %d %s", code, out)
	}
	if got := h.status("c1").Status; got != specs.StateRunning {
		t.Errorf("started: %s", got)
	}
	if out := h.must("list", "-q"); out != "c1\n" {
		t.Errorf("list -q: %q", out)
	}
	if out := h.must("list"); !strings.Contains(out, "running") {
		t.Errorf("list: %s", out)
	}
	if out, code := h.run("exec", "--env", "A=b", "--cwd", "/tmp", "c1", "sh", "-c", "echo $A; pwd; exit 9"); code != 9 || out != "b\n/tmp\n" {
		t.Errorf("exec: %d %q", code, out)
	}
	if out, code := h.run("exec", "c1", "nosuch"); code != 1 || !strings.Contains(out, "executable file not found in $PATH") {
		t.Errorf("exec nosuch: %d %q", code, out)
	}
	h.must("exec", "--detach", "--pid-file", pidFile, "c1", "sleep", "1000")
	var pids []int
	if err := json.Unmarshal([]byte(h.must("ps", "--format", "json", "c1")), &pids); err != nil || len(pids) != 2 {
		t.Errorf("ps: %v %v", pids, err)
	}
	if out := h.must("ps", "c1"); strings.Count(out, "sleep 1000") != 2 {
		t.Errorf("ps: %s", out)
	}
	h.must("pause", "c1")
	if got := h.status("c1").Status; got != "paused" {
		t.Errorf("paused: %s", got)
	}
	h.must("resume", "c1")
	h.must("update", "--pids-limit", "33", "c1")
	if out := h.must("events", "--stats", "c1"); !json.Valid([]byte(out)) || !strings.Contains(out, "33") {
		t.Errorf("events: %s", out)
	}
	if out, code := h.run("delete", "c1"); code == 0 || !strings.Contains(out, "not stopped: running") {
		t.Errorf("delete of a running one: %d %s", code, out)
	}
	h.must("kill", "c1", "KILL")
	h.await("c1", specs.StateStopped)
	if out, code := h.run("kill", "c1", "TERM"); code == 0 || !strings.Contains(out, "container not running") {
		t.Errorf("kill of a dead one: %d %s", code, out)
	}
	h.must("delete", "c1")
	if out, code := h.run("state", "c1"); code == 0 || !strings.Contains(out, "container c1 does not exist") {
		t.Errorf("state after delete: %d %s", code, out)
	}
	log, _ := os.ReadFile(filepath.Join(h.root, "..", "log"))
	var last struct{ Level, Msg, Time string }
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &last); err != nil || last.Level != "error" || last.Msg != "container c1 does not exist" || last.Time == "" {
		t.Errorf("log: %v %+v", err, last)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-ocicli-test-" + strconv.Itoa(os.Getpid())); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRunAndForce(t *testing.T) {
	h := newHost(t, nil)
	h.write(func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", "echo out; exit 6"} })
	if out, code := h.run("run", "--bundle", h.bundle, "c2"); code != 6 || out != "out\n" {
		t.Errorf("run: %d %q", code, out)
	}
	if out := h.must("list", "-q"); out != "" {
		t.Errorf("run left %s", out)
	}
	h.write(func(s *specs.Spec) { s.Process.Args = []string{"nosuch"} })
	if out, code := h.run("create", "--bundle", h.bundle, "c3"); code == 0 {
		if out, code = h.run("start", "c3"); code == 0 {
			t.Errorf("nosuch: %d %s", code, out)
		}
		h.must("delete", "--force", "c3")
	} else if !strings.Contains(out, "executable file not found in $PATH") {
		t.Errorf("nosuch: %s", out)
	}
	h.write(nil)
	h.must("create", "--bundle", h.bundle, "c4")
	h.must("delete", "--force", "c4")
	h.must("run", "--detach", "--bundle", h.bundle, "c5")
	h.must("pause", "c5")
	h.must("delete", "--force", "c5")
	h.must("delete", "--force", "nosuch")
	if out := h.must("list", "-q"); out != "" {
		t.Errorf("left: %s", out)
	}
	var f struct{ OCIVersionMax string }
	if err := json.Unmarshal([]byte(h.must("features")), &f); err != nil || f.OCIVersionMax == "" {
		t.Errorf("features: %v %+v", err, f)
	}
}

// The terminal's master goes to whoever listens on the console socket.
func TestConsoleSocket(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) {
		s.Process.Terminal = true
		s.Process.Args = []string{"sh", "-c", "tty; sleep 1000"}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
	})
	path := filepath.Join(h.root, "..", "s")
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(l, 1); err != nil {
		t.Fatal(err)
	}
	h.must("create", "--bundle", h.bundle, "--console-socket", path, "c6")
	t.Cleanup(func() { h.run("delete", "--force", "c6") })
	c, _, err := unix.Accept(l)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	name, oob := make([]byte, 100), make([]byte, 100)
	_, n, _, _, err := unix.Recvmsg(c, name, oob, 0)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatal(msgs, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	h.must("start", "c6")
	const want = "/dev/pts/0\r\n"
	buf := make([]byte, len(want))
	if n, err = io.ReadFull(master, buf); string(buf) != want || err != nil {
		t.Errorf("terminal: %q %v", buf[:n], err)
	}
	if out, code := h.run("exec", "--tty", "--detach", "c6", "tty"); code == 0 || !strings.Contains(out, "--console-socket") {
		t.Errorf("terminal without a place to go: %d %s", code, out)
	}
}
