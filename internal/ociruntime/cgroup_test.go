package ociruntime

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestParseHierarchies(t *testing.T) {
	const mountinfo = `30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
32 30 0:28 /lxc/a\040b /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:28 / /other/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 30 0:30 / /sys/fs/cgroup/mystery rw - cgroup cgroup rw,unknown
bad line
`
	const own = "4:cpu,cpuacct:/lxc/a b/c\n1:name=systemd:/d\n0::/e\n"
	got := parseHierarchies(mountinfo, own)
	want := []hierarchy{
		{name: "systemd", options: []string{"name=systemd"}, point: "/sys/fs/cgroup/systemd", root: "/", own: "/d"},
		{name: "cpu,cpuacct", options: []string{"cpu", "cpuacct"}, point: "/sys/fs/cgroup/cpu,cpuacct", root: "/lxc/a b", own: "/lxc/a b/c"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

// inGroup makes a cgroup in every v1 hierarchy (or the v2 tree) and returns how
// to join it.
func inGroup(t *testing.T, name string) func(*Options) {
	t.Helper()
	needRoot(t)
	points, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	var dirs []string
	for _, p := range points {
		dir := filepath.Join(filepath.Dir(p), name)
		if filepath.Base(filepath.Dir(p)) == "unified" {
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if v, err := os.ReadFile(filepath.Join(filepath.Dir(p), f)); err == nil {
				os.WriteFile(filepath.Join(dir, f), v, 0)
			}
		}
	}
	if len(dirs) == 0 {
		t.Skip("no cgroup v1 hierarchies here")
	}
	t.Cleanup(func() {
		for _, d := range dirs {
			if err := unix.Rmdir(d); err != nil {
				t.Errorf("remove %s: %v", d, err)
			}
		}
	})
	return func(o *Options) {
		o.Joined = func(pid int) error {
			for _, d := range dirs {
				if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

func TestCgroupMounts(t *testing.T) {
	group := fmt.Sprintf("gantry-test-%d", os.Getpid())
	joined := inGroup(t, group)
	image := busybox(t)
	const script = `cut -d' ' -f4- /proc/self/mountinfo | grep ' /sys/fs/cgroup'; cat /proc/self/cgroup; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x 2>&1; cat /sys/fs/cgroup/memory/tasks`
	for _, private := range []bool{false, true} {
		spec := newSpec("sh", "-c", script+"; true")
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}})
		root := "/" + group
		if private {
			addNamespace(specs.CgroupNamespace, "")(spec)
			root = "/"
		}
		out, errOut, _ := run(t, newJob(t, image, spec), joined)
		for _, want := range []string{
			root + " /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime - cgroup cgroup rw,memory\n",
			root + " /sys/fs/cgroup/systemd ro,nosuid,nodev,noexec,relatime - cgroup cgroup rw,name=systemd\n",
			":memory:" + root + "\n",
			"mkdir: can't create directory '/sys/fs/cgroup/x': Read-only file system\n",
			"mkdir: can't create directory '/sys/fs/cgroup/memory/x': Read-only file system\n1\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("private %v: no %q in\n%s%s", private, want, out, errOut)
			}
		}
	}
}

func TestJoinedFails(t *testing.T) {
	j := newJob(t, busybox(t), newSpec("true"))
	_, err := Create(j, Options{Exe: exe, Joined: func(int) error { return unix.EBUSY }})
	if err == nil || !strings.Contains(err.Error(), "join cgroup: device or resource busy") {
		t.Errorf("got %v", err)
	}
}

// TestBornInGroup: clone3(2) with CLONE_INTO_CGROUP, on the v2 tree.
func TestBornInGroup(t *testing.T) {
	needRoot(t)
	top := "/sys/fs/cgroup/unified"
	if _, err := os.Stat(top + "/cgroup.procs"); err != nil {
		top = "/sys/fs/cgroup"
	}
	dir := filepath.Join(top, fmt.Sprintf("gantry-born-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer unix.Rmdir(dir)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, _, _ := run(t, newJob(t, busybox(t), newSpec("cat", "/proc/self/cgroup")), func(o *Options) { o.CgroupFD = int(f.Fd()) })
	if !strings.Contains(out, "0::/"+filepath.Base(dir)+"\n") {
		t.Errorf("got %q", out)
	}
}

func TestIDMappedMount(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), nil, 0o644)
	if os.Geteuid() == 0 {
		os.Chown(dir, 6000, 6000)
		os.Chown(filepath.Join(dir, "f"), 5000, 5001)
	}
	out := sh(t, "stat -c %u:%g /m/f; touch /m/new; true", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: "/m", Source: dir, Options: []string{"bind"},
			UIDMappings: []specs.LinuxIDMapping{{ContainerID: 5000, HostID: 70, Size: 10}, {ContainerID: 6000, HostID: 0, Size: 1}},
			GIDMappings: []specs.LinuxIDMapping{{ContainerID: 5000, HostID: 80, Size: 10}, {ContainerID: 6000, HostID: 0, Size: 1}},
		})
	})
	if out != "70:81\n" {
		t.Errorf("got %q", out)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "new"), &st); err != nil || st.Uid != 6000 || st.Gid != 6000 {
		t.Errorf("a file of the container's root belongs to %d:%d on disk, %v", st.Uid, st.Gid, err)
	}
}

// TestOverlayOptions: the job's mount options reach the overlay, and nothing of
// it is in the host's mount table.
func TestOverlayOptions(t *testing.T) {
	j := newJob(t, busybox(t), newSpec("sh", "-c", "touch /x; cut -d' ' -f4- /proc/self/mountinfo | head -1"))
	j.Root.Overlay.Options = []string{"redirect_dir=nofollow"}
	i, err := Create(j, Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	killed(t, i)
	if err != nil || strings.Contains(string(mounts), j.Root.Overlay.Upper) {
		t.Errorf("the overlay is mounted on the host (%v)", err)
	}
	out, errOut, _ := run(t, j)
	if !strings.HasPrefix(out, "/ / rw") || !strings.Contains(out, "lowerdir") || !strings.Contains(out, "redirect_dir=nofollow") {
		t.Errorf("got %q %q", out, errOut)
	}
	if _, err := os.Stat(filepath.Join(j.Root.Overlay.Upper, "x")); err != nil {
		t.Error(err)
	}
}
