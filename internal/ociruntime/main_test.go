package ociruntime

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// exe is the test binary in a sealed memfd: the child half of every container
// in these tests.
var exe *os.File

func TestMain(m *testing.M) {
	ChildMain()
	if len(os.Args) > 1 && os.Args[1] == probeArg {
		probe(os.Args[2:])
		return
	}
	var err error
	if exe, err = SealSelf(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// needRoot skips a test that needs the kernel's full cooperation. In CI that
// would hide a failure, so there it is one.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test must run as root in CI")
	}
	t.Skip("needs root")
}

// busybox makes an image's directory tree with the static busybox of the host.
func busybox(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "tmp", "root", "usr/bin", "sbin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	src, err := os.Open("/bin/busybox")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("needs the package busybox-static")
	}
	defer src.Close()
	dst, err := os.OpenFile(filepath.Join(dir, "bin/busybox"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(`sh echo cat true false sleep ls id mount grep env pwd hostname kill ps stat test
		touch mkdir rm ln chmod head tail wc readlink ip ulimit umask tty stty sysctl sort cut dd mknod su nproc date expr seq tr xargs usleep setsid`) {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
		"etc/group":  "root:x:0:\nuser:x:1000:\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Join(dir, "tmp"), 0o1777)
	return dir
}

// defaultCaps are the capabilities that Docker grants.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// newSpec is a container as Docker makes it, on an overlay over image.
func newSpec(args ...string) *specs.Spec {
	return &specs.Spec{
		Version: "1.3.0",
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/usr/bin:/bin:/sbin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: defaultCaps, Effective: defaultCaps, Permitted: defaultCaps},
		},
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// overlayOf makes an empty upper layer over image.
func overlayOf(t testing.TB, image string) *job.Overlay {
	t.Helper()
	dir := t.TempDir()
	o := &job.Overlay{Lower: []string{image}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	for _, d := range []string{o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func newJob(t testing.TB, image string, spec *specs.Spec) *job.Job {
	t.Helper()
	j, err := job.FromSpec(spec, job.Options{ID: "test", Bundle: "/", Overlay: overlayOf(t, image)})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// output is what a process writes to standard output and error.
type output struct {
	out, err bytes.Buffer
	files    [3]*os.File
	done     []chan struct{}
}

func capture(t testing.TB) *output {
	t.Helper()
	o := new(output)
	for n, b := range map[int]*bytes.Buffer{1: &o.out, 2: &o.err} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		o.files[n] = w
		done := make(chan struct{})
		o.done = append(o.done, done)
		go func() {
			io.Copy(b, r)
			r.Close()
			close(done)
		}()
	}
	return o
}

// wait closes our ends of the pipes and reads to the end.
func (o *output) wait(t testing.TB) {
	t.Helper()
	for _, f := range o.files {
		if f != nil {
			f.Close()
		}
	}
	for _, d := range o.done {
		select {
		case <-d:
		case <-time.After(20 * time.Second):
			t.Fatal("somebody still holds the standard streams")
		}
	}
}

// run runs a job to its end.
func run(t testing.TB, j *job.Job, opts ...func(*Options)) (stdout, stderr string, code int) {
	t.Helper()
	o := capture(t)
	defer o.wait(t)
	opt := Options{Exe: exe, Stdio: o.files}
	for _, f := range opts {
		f(&opt)
	}
	i, err := Create(j, opt)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	defer i.Close()
	if err := i.Start(); err != nil {
		t.Fatalf("Start: %v", err)
	}
	code, err = i.Wait()
	if err != nil {
		t.Fatal(err)
	}
	o.wait(t)
	return o.out.String(), o.err.String(), code
}

// sh runs a shell script in a container that edit may have changed.
func sh(t testing.TB, script string, edit ...func(*specs.Spec)) string {
	t.Helper()
	spec := newSpec("sh", "-c", script)
	for _, e := range edit {
		e(spec)
	}
	out, errOut, code := run(t, newJob(t, busybox(t), spec))
	if code != 0 {
		t.Fatalf("exit code %d, stderr %q, stdout %q", code, errOut, out)
	}
	return out
}

func addNamespace(typ specs.LinuxNamespaceType, path string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == typ })
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: typ, Path: path})
	}
}

func killed(t testing.TB, i *Init) {
	t.Helper()
	i.Signal(unix.SIGKILL)
	i.Wait()
	i.Close()
}
