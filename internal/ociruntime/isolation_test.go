package ociruntime

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// addProbe puts this test binary into an image as /probe.
func addProbe(t testing.TB, image string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(image, "probe"), data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestDescriptors is row S1: only what was asked for is open in the program.
func TestDescriptors(t *testing.T) {
	image := busybox(t)
	addProbe(t, image)
	secret, err := os.Open(filepath.Join(image, "etc/passwd")) // close-on-exec, as Go opens it
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	leak, err := unix.Open("/", unix.O_RDONLY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	names := func(out string) (fds []string) {
		for line := range strings.Lines(out) {
			fd, to, _ := strings.Cut(strings.TrimSpace(line), " ")
			if to == "" || strings.HasPrefix(to, "/proc/") || strings.HasPrefix(to, "anon_inode:[event") {
				continue // of the probe itself
			}
			fds = append(fds, fd)
		}
		return fds
	}
	for _, c := range []struct {
		name   string
		extra  int
		reaper bool
		want   []string
	}{
		{"plain", 0, false, []string{"0", "1", "2"}},
		{"extra", 3, false, []string{"0", "1", "2", "3", "4", "5"}},
		{"reaper", 0, true, []string{"0", "1", "2"}},
		{"reaper extra", 2, true, []string{"0", "1", "2", "3", "4"}},
	} {
		j := newJob(t, image, newSpec("/probe", probeArg, "fds"))
		j.Reaper = c.reaper
		out, errOut, code := run(t, j, func(o *Options) {
			for range c.extra {
				o.ExtraFiles = append(o.ExtraFiles, secret)
			}
		})
		if got := names(out); !slices.Equal(got, c.want) || code != 0 {
			t.Errorf("%s: open are %v (%s %s), want %v", c.name, got, out, errOut, c.want)
		}
	}
	box := start(t, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/probe", Source: filepath.Join(image, "probe"), Options: []string{"bind"}})
	})
	out, _ := execIn(t, box, &specs.Process{Args: []string{"/probe", probeArg, "fds"}})
	if got := names(out); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("exec: open are %v: %s", got, out)
	}
}

// TestCwdThroughDescriptor is row S1 again, CVE-2024-21626: no descriptor of
// ours can serve as a working directory.
func TestCwdThroughDescriptor(t *testing.T) {
	image := busybox(t)
	for n := 3; n < 40; n++ {
		spec := newSpec("pwd")
		spec.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", n)
		i, err := Create(newJob(t, image, spec), Options{Exe: exe})
		if err == nil {
			if err = i.Start(); err == nil {
				killed(t, i)
			}
			i.Close()
		}
		if err == nil {
			t.Errorf("a process runs in %s", spec.Process.Cwd)
		}
	}
}

func status(t testing.TB, out, field string) string {
	t.Helper()
	for line := range strings.Lines(out) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no %s in %q", field, out)
	return ""
}

// TestIdentity is row S21: ids, groups and capabilities exactly as asked for.
func TestIdentity(t *testing.T) {
	image := busybox(t)
	const docker = "00000000a80425fb"
	const none = "0000000000000000"
	caps := func(b, e, i, p, a []string) *specs.LinuxCapabilities {
		return &specs.LinuxCapabilities{Bounding: b, Effective: e, Inheritable: i, Permitted: p, Ambient: a}
	}
	net := []string{"CAP_NET_RAW"}
	for _, c := range []struct {
		name                    string
		edit                    func(*specs.Process)
		inh, prm, eff, bnd, amb string
		uid, groups, nnp        string
	}{
		{"root", func(*specs.Process) {}, none, docker, docker, docker, none, "0\t0\t0\t0", "", "0"},
		{"no capabilities", func(p *specs.Process) { p.Capabilities = nil }, none, none, none, none, none, "0\t0\t0\t0", "", "0"},
		{"user", func(p *specs.Process) { p.User = specs.User{UID: 1000, GID: 7, AdditionalGids: []uint32{5, 9}} },
			none, none, none, docker, none, "1000\t1000\t1000\t1000", "5 9", "0"},
		{"ambient user", func(p *specs.Process) {
			p.User = specs.User{UID: 1000, GID: 1000}
			p.Capabilities = caps(net, net, net, net, net)
		}, "0000000000002000", "0000000000002000", "0000000000002000", "0000000000002000", "0000000000002000", "1000\t1000\t1000\t1000", "", "0"},
		{"inheritable", func(p *specs.Process) { p.Capabilities = caps(net, net, net, net, nil) },
			"0000000000002000", "0000000000002000", "0000000000002000", "0000000000002000", none, "0\t0\t0\t0", "", "0"},
		{"no new privileges", func(p *specs.Process) { p.NoNewPrivileges = true }, none, docker, docker, docker, none, "0\t0\t0\t0", "", "1"},
		{"largest id", func(p *specs.Process) { p.User = specs.User{UID: 4294967294, GID: 4294967294} },
			none, none, none, docker, none, "4294967294\t4294967294\t4294967294\t4294967294", "", "0"},
	} {
		spec := newSpec("cat", "/proc/self/status")
		c.edit(spec.Process)
		out, errOut, _ := run(t, newJob(t, image, spec))
		if out == "" {
			t.Errorf("%s: %s", c.name, errOut)
			continue
		}
		for field, want := range map[string]string{
			"CapInh": c.inh, "CapPrm": c.prm, "CapEff": c.eff, "CapBnd": c.bnd, "CapAmb": c.amb,
			"Uid": c.uid, "Groups": c.groups, "NoNewPrivs": c.nnp,
		} {
			if got := status(t, out, field); got != want {
				t.Errorf("%s: %s is %q, want %q", c.name, field, got, want)
			}
		}
	}
}

func TestLimitsAndSignals(t *testing.T) {
	image := busybox(t)
	addProbe(t, image)
	signal.Ignore(unix.SIGHUP, unix.SIGTERM)
	defer signal.Reset(unix.SIGHUP, unix.SIGTERM)
	spec := newSpec("/probe", probeArg, "umask", "signals")
	mask := uint32(0o27)
	spec.Process.User.Umask = &mask
	out, _, _ := run(t, newJob(t, image, spec))
	if got := status(t, out, "SigIgn"); got != strings.Repeat("0", 16) {
		t.Errorf("ignored signals: %s", got)
	}
	if got := status(t, out, "SigBlk"); got != strings.Repeat("0", 16) {
		t.Errorf("blocked signals: %s", got)
	}
	if !strings.HasPrefix(out, "027\n") {
		t.Errorf("umask is %q", out)
	}
	out = sh(t, "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj", func(s *specs.Spec) {
		adj := 321
		s.Process.OOMScoreAdj = &adj
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 100}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
	})
	if out != "99\n100\n0\n321\n" {
		t.Errorf("got %q", out)
	}
}

func TestReadonlyRoot(t *testing.T) {
	out := sh(t, "touch /x 2>&1; touch /dev/shm/x && echo shm; mkdir /proc/sys/x 2>&1; echo b > /proc/sysrq-trigger", func(s *specs.Spec) {
		s.Root.Readonly = true
		s.Process.Args[2] += " ; true"
	})
	if !strings.Contains(out, "touch: /x: Read-only file system\nshm\n") {
		t.Errorf("got %q", out)
	}
}

func TestBindMounts(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), []byte("data\n"), 0o644)
	sub := filepath.Join(dir, "sub")
	os.Mkdir(sub, 0o755)
	needRoot(t)
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(sub, unix.MNT_DETACH)
	script := `cat /d/f /file; touch /ro/x /ro/sub/x /rro/x /rro/sub/x 2>&1; touch /d/sub/y; ls -A /ro/sub; mount | grep -c ' /flat/sub'; grep ' /ro ' /proc/self/mountinfo | cut -d' ' -f6`
	out := sh(t, script+"; true", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/d", Source: dir, Options: []string{"rbind"}},
			specs.Mount{Destination: "/file", Source: dir + "/f", Options: []string{"bind", "ro"}},
			specs.Mount{Destination: "/ro", Source: dir, Options: []string{"rbind", "ro", "nosuid", "noatime"}},
			specs.Mount{Destination: "/rro", Source: dir, Options: []string{"rbind", "rro"}},
			specs.Mount{Destination: "/flat", Source: dir, Options: []string{"bind"}},
		)
	})
	want := "data\ndata\ntouch: /ro/x: Read-only file system\ntouch: /rro/x: Read-only file system\ntouch: /rro/sub/x: Read-only file system\nx\ny\n0\nro,nosuid,noatime\n"
	if out != want {
		t.Errorf("got  %q\nwant %q", out, want)
	}
}

func TestPropagation(t *testing.T) {
	dir := t.TempDir()
	needRoot(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"late", "fromc"} {
		os.Mkdir(filepath.Join(dir, d), 0o755)
	}
	script := `while [ ! -e /private/go ]; do usleep 1000; done; ls -A /private/late /slave/late /shared/late; mount -t tmpfs t /shared/fromc`
	spec := newSpec("sh", "-c", script)
	all := []string{"CAP_SYS_ADMIN"}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	for _, p := range []string{"private", "slave", "shared"} {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/" + p, Source: dir, Options: []string{"rbind", "r" + p}})
	}
	o := capture(t)
	i, err := Create(newJob(t, busybox(t), spec), Options{Exe: exe, Stdio: o.files})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	late := filepath.Join(dir, "late")
	if err := unix.Mount("tmpfs", late, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(late, unix.MNT_DETACH)
	os.WriteFile(filepath.Join(late, "x"), nil, 0o644)
	os.WriteFile(filepath.Join(dir, "go"), nil, 0o644)
	code, _ := i.Wait()
	i.Close()
	o.wait(t)
	if want := "/private/late:\n\n/shared/late:\nx\n\n/slave/late:\nx\n"; o.out.String() != want || code != 0 {
		t.Errorf("got %q %q %d", o.out.String(), o.err.String(), code)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if !strings.Contains(string(mounts), dir+"/fromc") {
		t.Error("what the container mounted in a shared mount did not come back")
	}
	unix.Unmount(filepath.Join(dir, "fromc"), unix.MNT_DETACH)
}

func TestTmpfsCopyUp(t *testing.T) {
	image := busybox(t)
	data := filepath.Join(image, "data")
	os.MkdirAll(filepath.Join(data, "d"), 0o750)
	os.WriteFile(filepath.Join(data, "d/f"), []byte("x"), 0o640)
	os.Lchown(filepath.Join(data, "d/f"), 12, 34)
	os.Symlink("f", filepath.Join(data, "d/l"))
	spec := newSpec("sh", "-c", "stat -c '%n %a %u:%g %F' /data/d /data/d/f /data/d/l; touch /data/x 2>&1; stat -f -c %T /data")
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "ro"}})
	out, errOut, _ := run(t, newJob(t, image, spec))
	want := "/data/d 750 0:0 directory\n/data/d/f 640 12:34 regular file\n/data/d/l 777 0:0 symbolic link\ntouch: /data/x: Read-only file system\ntmpfs\n"
	if out != want {
		t.Errorf("got  %q %s\nwant %q", out, errOut, want)
	}
}

// TestMaskedPaths is row S4: an image's own /dev/null is never a mask's source.
func TestMaskedPaths(t *testing.T) {
	image := busybox(t)
	os.Symlink("/proc/sysrq-trigger", filepath.Join(image, "dev/null"))
	os.WriteFile(filepath.Join(image, "secret"), []byte("secret"), 0o644)
	os.Mkdir(filepath.Join(image, "hidden"), 0o755)
	os.WriteFile(filepath.Join(image, "hidden/f"), nil, 0o644)
	spec := newSpec("sh", "-c", "cat /secret; stat -c %t,%T /secret; ls -A /hidden; touch /hidden/x 2>&1; cat /proc/keys")
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") })
	spec.Linux.MaskedPaths = append(spec.Linux.MaskedPaths, "/secret", "/hidden", "/not/there")
	i, err := Create(newJob(t, image, spec), Options{Exe: exe})
	if err == nil {
		killed(t, i)
		t.Error("a link at /dev/null was taken for the device")
	}
	os.Remove(filepath.Join(image, "dev/null"))
	out, errOut, _ := run(t, newJob(t, image, spec))
	if want := "1,3\ntouch: /hidden/x: Read-only file system\n"; out != want {
		t.Errorf("got %q %q, want %q", out, errOut, want)
	}
}

func TestSysctl(t *testing.T) {
	out := sh(t, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced", func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "17", "kernel.shm_rmid_forced": "1"}
	})
	if out != "17\n1\n" {
		t.Errorf("got %q", out)
	}
}

func TestDevices(t *testing.T) {
	mode := os.FileMode(0o640)
	id := uint32(33)
	out := sh(t, "stat -c '%n %a %u:%g %t,%T' /dev/x/fuse /dev/null", func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &id, GID: &id}}
	})
	if want := "/dev/x/fuse 640 33:33 a,e5\n/dev/null 666 0:0 1,3\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestSeccomp(t *testing.T) {
	// Let everything but uname(2) pass; that gives EPERM: load number, compare.
	const uname = unix.SYS_UNAME
	var f []byte
	add := func(code uint16, jt, jf uint8, k uint32) {
		f = binary.NativeEndian.AppendUint16(f, code)
		f = append(f, jt, jf)
		f = binary.NativeEndian.AppendUint32(f, k)
	}
	add(0x20, 0, 0, 0) // ld [nr]
	add(0x15, 0, 1, uname)
	add(0x06, 0, 0, unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))
	add(0x06, 0, 0, unix.SECCOMP_RET_ALLOW)
	image := busybox(t)
	for _, nnp := range []bool{false, true} {
		spec := newSpec("sh", "-c", "hostname 2>&1; cat /proc/self/status")
		spec.Process.NoNewPrivileges = nnp
		spec.Process.User = specs.User{UID: 1000, GID: 1000}
		j := newJob(t, image, spec)
		j.Process.Seccomp = &job.Seccomp{Filter: f}
		out, errOut, _ := run(t, j)
		if status(t, out, "Seccomp") != "2" || !strings.HasPrefix(out, "?\n") {
			t.Errorf("no_new_privs %v: got %q %q", nnp, out, errOut)
		}
	}
}

func TestReaper(t *testing.T) {
	image := busybox(t)
	j := newJob(t, image, newSpec("sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline; for i in 1 2 3 4 5; do (sleep 0.01 & ) ; done; sleep 0.1; ps -o stat | grep -c Z; exit 5"))
	j.Reaper = true
	out, errOut, code := run(t, j)
	if !strings.HasPrefix(out, "/sbin/docker-init -- sh -c ") || !strings.HasSuffix(out, " 0\n") || code != 5 {
		t.Errorf("got %q %q %d", out, errOut, code)
	}
	j = newJob(t, image, newSpec("sh", "-c", "trap 'echo got; exit 9' TERM; echo ready; while true; do usleep 1000; done"))
	j.Reaper = true
	o := capture(t)
	i, err := Create(j, Options{Exe: exe, Stdio: o.files})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	i.Signal(unix.SIGTERM)
	code, _ = i.Wait()
	i.Close()
	o.wait(t)
	if o.out.String() != "ready\ngot\n" || code != 9 {
		t.Errorf("signal: got %q %q %d", o.out.String(), o.err.String(), code)
	}
	j = newJob(t, image, newSpec("nosuch"))
	j.Reaper = true
	if i, err = Create(j, Options{Exe: exe}); err != nil {
		t.Fatal(err)
	}
	if err := i.Start(); err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("got %v", err)
	}
	i.Close()
}

func TestFifo(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "exec.fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	o := capture(t)
	i, err := Create(newJob(t, busybox(t), newSpec("echo", "late")), Options{Exe: exe, Stdio: o.files, Fifo: fifo})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	if err := ReleaseFifo(fifo); err != nil {
		t.Fatal(err)
	}
	code, _ := i.Wait()
	i.Close()
	o.wait(t)
	if o.out.String() != "late\n" || code != 0 {
		t.Errorf("got %q %q %d", o.out.String(), o.err.String(), code)
	}
	if err := ReleaseFifo(fifo); err == nil {
		t.Error("a second release worked")
	}
	if i, err := Create(newJob(t, busybox(t), newSpec("nosuch")), Options{Exe: exe, Fifo: fifo}); err == nil {
		i.Close()
		t.Error("a missing program was not found at create")
	}
}

func TestHooks(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/busybox", Args: []string{"sh", "-c", "(echo " + name + "; cat; echo) >> " + log}}}
	}
	spec := newSpec("cat", "/log")
	spec.Hooks = &specs.Hooks{
		//lint:ignore SA1019 deprecated, and still in use
		Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"),
		Poststart: hook("poststart"), Poststop: hook("poststop"),
		StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo inside > /log"}}},
	}
	spec.Annotations = map[string]string{"a\"b": "c\n"}
	j := newJob(t, busybox(t), spec)
	out, errOut, code := run(t, j)
	if out != "inside\n" || code != 0 {
		t.Errorf("got %q %q %d", out, errOut, code)
	}
	data, _ := os.ReadFile(log)
	var names []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "{") {
			names = append(names, line)
			continue
		}
		if !strings.Contains(line, `"id":"test"`) || !strings.Contains(line, `"annotations":{"a\"b":"c\u000a"}`) {
			t.Errorf("state: %s", line)
		}
	}
	if want := []string{"prestart", "createRuntime", "createContainer", "poststart"}; !slices.Equal(names, want) {
		t.Errorf("ran %v, want %v", names, want)
	}
	one := uint32(1)
	began := time.Now()
	err := RunHooks([]job.Hook{{Path: "/bin/busybox", Args: []string{"sleep", "10"}, Timeout: one}}, nil)
	if err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("timeout: %v after %v", err, time.Since(began))
	}
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/busybox", Args: []string{"sh", "-c", "echo no >&2; exit 3"}}}}
	_, err = Create(newJob(t, busybox(t), spec), Options{Exe: exe})
	if err == nil || !strings.Contains(err.Error(), "exit status 3: no") {
		t.Errorf("failing hook: %v", err)
	}
}
