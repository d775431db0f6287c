package ociruntime

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// start starts a container that sleeps until it is killed.
func start(t testing.TB, edit ...func(*specs.Spec)) *Init {
	t.Helper()
	spec := newSpec("sleep", "1000")
	for _, e := range edit {
		e(spec)
	}
	i, err := Create(newJob(t, busybox(t), spec), Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { killed(t, i) })
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	return i
}

// execIn runs a further process in a container.
func execIn(t testing.TB, c *Init, p *specs.Process, opts ...func(*Options)) (string, int) {
	t.Helper()
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if p.Env == nil {
		p.Env = []string{"PATH=/bin"}
	}
	jp, err := job.ProcessFromSpec(p, job.ProcessOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := capture(t)
	o.files[2].Close()
	o.files[2] = o.files[1]
	opt := Options{Exe: exe, Stdio: o.files}
	for _, f := range opts {
		f(&opt)
	}
	i, err := Exec(Target{Pid: c.Pid(), Pidfd: c.Pidfd()}, jp, opt)
	if err != nil {
		o.wait(t)
		t.Fatalf("Exec: %v", err)
	}
	defer i.Close()
	if err := i.Start(); err != nil {
		o.wait(t)
		t.Fatalf("Start: %v", err)
	}
	code, err := i.Wait()
	if err != nil {
		t.Fatal(err)
	}
	o.wait(t)
	return o.out.String(), code
}

func TestExec(t *testing.T) {
	c := start(t)
	caps := newSpec().Process.Capabilities
	out, code := execIn(t, c, &specs.Process{Capabilities: caps, Args: []string{"sh", "-c", "hostname; cat /proc/1/cmdline | tr '\\0' ' '; for n in mnt pid net ipc uts; do [ \"$(readlink /proc/1/ns/$n)\" = \"$(readlink /proc/self/ns/$n)\" ] || echo $n differs; done; exit 3"}})
	if want := "box\nsleep 1000 "; out != want || code != 3 {
		t.Errorf("got %q, exit code %d, want %q and 3", out, code, want)
	}
	p, _ := job.ProcessFromSpec(&specs.Process{Args: []string{"nosuch"}, Cwd: "/"}, job.ProcessOptions{})
	i, err := Exec(Target{Pid: c.Pid()}, p, Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	var ee *ExecError
	if err := i.Start(); !errors.As(err, &ee) || ee.Code != 127 {
		t.Errorf("nosuch: got %v", err)
	}
}

func TestExecGone(t *testing.T) {
	needRoot(t)
	c := start(t)
	killed(t, c)
	p := &job.Process{Args: []string{"true"}, Cwd: "/"}
	if i, err := Exec(Target{Pid: c.Pid()}, p, Options{Exe: exe}); err == nil {
		i.Close()
		t.Error("a process could be put into a container that is gone")
	}
}

func readConsole(t testing.TB, f *os.File) string {
	t.Helper()
	var b bytes.Buffer
	f.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := io.Copy(&b, f)
	if err != nil && !errors.Is(err, unix.EIO) { // EIO: the last slave is closed
		t.Errorf("read console: %v", err)
	}
	return b.String()
}

func TestTerminal(t *testing.T) {
	const script = "stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo terminal; ls -l /dev/console | cut -c1; echo x > /dev/tty; stat -c %u:%g $(tty)"
	spec := newSpec("sh", "-c", script)
	spec.Process.Terminal = true
	spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	i, err := Create(newJob(t, busybox(t), spec), Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	out := readConsole(t, i.Console())
	if code, _ := i.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	i.Close()
	if want := "33 99\r\n/dev/pts/0\r\nterminal\r\nc\r\nx\r\n0:5\r\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestExecTerminal(t *testing.T) {
	c := start(t)
	p := &job.Process{Args: []string{"sh", "-c", "tty; stty size; ps -o tty= | head -0; echo x > /dev/tty"}, Env: []string{"PATH=/bin"}, Cwd: "/", Terminal: true, ConsoleHeight: 5, ConsoleWidth: 6}
	i, err := Exec(Target{Pid: c.Pid()}, p, Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	out := readConsole(t, i.Console())
	i.Wait()
	i.Close()
	if !strings.HasPrefix(out, "/dev/pts/0\r\n5 6\r\n") {
		t.Errorf("got %q", out)
	}
}

// mapped puts a container into a user namespace whose root is 100000.
func mapped(s *specs.Spec) {
	addNamespace(specs.UserNamespace, "")(s)
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
}

// own gives the image and the layers to the container's root.
func chownTree(t testing.TB, dir string, id int) {
	t.Helper()
	filepath.Walk(dir, func(p string, _ os.FileInfo, _ error) error { return os.Lchown(p, id, id) })
	for p := filepath.Dir(dir); strings.HasPrefix(p, os.TempDir()) && p != os.TempDir(); p = filepath.Dir(p) {
		os.Chmod(p, 0o755)
	}
}

func mappedJob(t testing.TB, image string, spec *specs.Spec) *job.Job {
	t.Helper()
	mapped(spec)
	j := newJob(t, image, spec)
	chownTree(t, image, 100000)
	chownTree(t, j.Root.Overlay.Upper, 100000)
	return j
}

func TestUserNamespace(t *testing.T) {
	spec := newSpec("sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /x; stat -c %u /x; echo > /dev/null; ls -l /dev/zero | cut -c1; mount -t tmpfs t /tmp 2>&1")
	out, errOut, code := run(t, mappedJob(t, busybox(t), spec))
	want := fmt.Sprintf("%[1]s%[1]s0\n0\nc\nmount: permission denied (are you root?)\n", "         0     100000      65536\n")
	if out != want {
		t.Errorf("got %q (%q, %d), want %q", out, errOut, code, want)
	}
}

// TestMappedRoot: the image and the layer stay the host's root's on the disk, and
// are the container's root's inside.
func TestMappedRoot(t *testing.T) {
	spec := newSpec("sh", "-c", "stat -c %u /bin /bin/sh; touch /x; chown 5:6 /x; echo more >> /etc/passwd; grep -c 'msgqueue size *7000 *7001' /proc/self/limits; echo to stdout > /dev/stdout; exec 3<>/dev/stdin")
	mapped(spec)
	spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_MSGQUEUE", Soft: 7000, Hard: 7001}}
	j, err := job.FromSpec(spec, job.Options{ID: "test", Bundle: "/", Overlay: overlayOf(t, busybox(t))})
	if err != nil {
		t.Fatal(err)
	}
	j.Root.Overlay.Mapped = true
	out, errOut, code := run(t, j)
	if want := "0\n0\n1\nto stdout\n"; out != want || code != 0 {
		t.Errorf("got %q (%q, %d), want %q", out, errOut, code, want)
	}
	for file, want := range map[string]uint32{"x": 5, "etc/passwd": 0} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(j.Root.Overlay.Upper, file), &st); err != nil || st.Uid != want {
			t.Errorf("%s is of %d on the disk, want %d (%v)", file, st.Uid, want, err)
		}
	}
}

// TestJoin joins every kind of namespace of a running container, the user
// namespace among them, first each alone and then all together.
func TestJoin(t *testing.T) {
	image := busybox(t)
	base := newSpec("sleep", "1000")
	addNamespace(specs.CgroupNamespace, "")(base)
	addNamespace(specs.TimeNamespace, "")(base)
	base.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}}
	c, err := Create(mappedJob(t, image, base), Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	defer killed(t, c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	files := map[specs.LinuxNamespaceType]string{
		specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts",
		specs.UserNamespace: "user", specs.CgroupNamespace: "cgroup", specs.TimeNamespace: "time",
	}
	check := func(t *testing.T, types ...specs.LinuxNamespaceType) {
		var script strings.Builder
		spec := newSpec("sh", "-c", "")
		spec.Hostname = ""
		for _, typ := range types {
			fmt.Fprintf(&script, "readlink /proc/self/ns/%s; ", files[typ])
			addNamespace(typ, fmt.Sprintf("/proc/%d/ns/%s", c.Pid(), files[typ]))(spec)
		}
		if len(types) == 1 && types[0] == specs.PIDNamespace {
			script.WriteString("ps | grep -q 'sleep 1000' || echo no sleep")
		}
		spec.Process.Args[2] = script.String()
		if len(types) == 1 && (types[0] == specs.NetworkNamespace) {
			// sysfs belongs to the network namespace's owner
			spec.Mounts = append(spec.Mounts[:3:3], spec.Mounts[4:]...)
		}
		if len(types) == 1 && types[0] == specs.IPCNamespace {
			spec.Mounts = append(spec.Mounts[:4:4], spec.Mounts[5:]...)
		}
		out, errOut, code := run(t, newJob(t, image, spec))
		var want strings.Builder
		for _, typ := range types {
			link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.Pid(), files[typ]))
			fmt.Fprintln(&want, link)
		}
		if out != want.String() || code != 0 {
			t.Errorf("got %q %q %d, want %q", out, errOut, code, want.String())
		}
	}
	var all []specs.LinuxNamespaceType
	for typ, name := range files {
		all = append(all, typ)
		t.Run(name, func(t *testing.T) { check(t, typ) })
	}
	t.Run("all", func(t *testing.T) { check(t, all...) })
	t.Run("exec", func(t *testing.T) {
		out, code := execIn(t, c, &specs.Process{Args: []string{"sh", "-c", "id -u; cut -d. -f1 /proc/uptime; cat /proc/self/uid_map"}})
		f := strings.Fields(out)
		if code != 0 || len(f) != 5 || f[0] != "0" || len(f[1]) < 7 || f[3] != "100000" {
			t.Errorf("got %q, %d", out, code)
		}
	})
	var own, now unix.Stat_t
	unix.Stat("/proc/self/ns/pid", &own)
	unix.Stat("/proc/self/ns/pid_for_children", &now)
	if own.Ino != now.Ino {
		t.Error("this process's children would be born in another pid namespace")
	}
}

// TestNewUserJoinNet: a new user namespace with an existing network namespace
// that belongs to the host, as an engine with remapped users does it.
func TestNewUserJoinNet(t *testing.T) {
	c := start(t)
	spec := newSpec("readlink", "/proc/self/ns/net")
	addNamespace(specs.NetworkNamespace, fmt.Sprintf("/proc/%d/ns/net", c.Pid()))(spec)
	spec.Mounts = append(spec.Mounts[:3:3], spec.Mounts[4:]...)
	out, errOut, _ := run(t, mappedJob(t, busybox(t), spec))
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", c.Pid()))
	if strings.TrimSpace(out) != link {
		t.Errorf("got %q %q, want %q", out, errOut, link)
	}
}
