package clients_test

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gantry/internal/testkit"
	"gantry/test/clients"
)

// keepSubordinate puts the files of subordinate ids back as they are now.
func keepSubordinate(t *testing.T) {
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		old, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(old), "dockremap:") {
			continue
		}
		t.Cleanup(func() {
			now, err := os.ReadFile(file)
			if err != nil {
				t.Error(err)
				return
			}
			if err := os.WriteFile(file, regexp.MustCompile(`(?m)^dockremap:.*\n`).ReplaceAll(now, nil), 0o644); err != nil {
				t.Error(err)
			}
		})
	}
}

// remapped starts a daemon with --userns-remap=default and returns gantry and,
// if there is one, docker to drive it.
func remapped(t *testing.T, more ...string) (d *testkit.Daemon, gantry, docker story) {
	t.Helper()
	d = testkit.StartDaemon(t, more...)
	d.LoadBusybox(t)
	env := []string{"GANTRY_HOST=unix://" + d.Socket, "DOCKER_HOST=unix://" + d.Socket, "DOCKER_CONTEXT=", "DOCKER_CONFIG=" + t.TempDir(), "TERM=xterm"}
	gantry = story{t, clients.CLI{Path: d.Program("gantry"), Env: env}}
	docker = gantry
	if path, err := exec.LookPath("docker"); err == nil {
		docker.cli.Path = path
	}
	return d, gantry, docker
}

// hostUID is the user of a process as the host sees it.
func (s story) hostUID(container string) int {
	s.Helper()
	pid := strings.TrimSpace(s.ok("inspect", "--format", "{{.State.Pid}}", container))
	var st syscall.Stat_t
	s.must(syscall.Stat("/proc/"+pid, &st))
	return int(st.Uid)
}

const wholeMap = "         0          0 4294967295\n"

// TestUsernsRemap runs containers whose root is nobody on the host.
func TestUsernsRemap(t *testing.T) {
	keepSubordinate(t)
	d, _, s := remapped(t, "--userns-remap", "default")
	root := subordinate(t)
	if got := s.ok("info", "--format", "{{.SecurityOptions}}"); !strings.Contains(got, "name=userns") {
		t.Errorf("info: %s", got)
	}
	if got, want := s.ok("run", "--rm", "busybox", "cat", "/proc/self/uid_map"), fmt.Sprintf("%10d %10d %10d\n", 0, root, 65536); got != want {
		t.Errorf("map %q, want %q", got, want)
	}
	if got := s.ok("run", "--rm", "--userns", "host", "busybox", "cat", "/proc/self/uid_map"); got != wholeMap {
		t.Errorf("--userns=host: %q", got)
	}
	s.ok("run", "-d", "--name", "box", "--ipc", "shareable", "-v", "kept:/data", "busybox", "sh", "-c", "echo shared > /dev/shm/s; touch /data/f; chown 7:8 /data/f; exec sleep 1000")
	if got := s.hostUID("box"); got != root {
		t.Errorf("the process is of user %d on the host, want %d", got, root)
	}
	if got := s.ok("exec", "box", "sh", "-c", "cat /proc/self/uid_map; stat -c %u /"); !strings.HasSuffix(got, " 65536\n0\n") {
		t.Errorf("exec: %q", got)
	}
	for name, c := range map[string]struct{ want, script string }{
		"streams":  {"out\n", "echo out > /dev/stdout"},
		"files":    {"0\n0\n0\n", "stat -c %u /etc/hosts /etc/hostname /etc/resolv.conf; echo >> /etc/hosts"},
		"image":    {"5\n", "chown 5 /etc/passwd; stat -c %u /etc/passwd"},
		"devices":  {"x\n", "echo x | tee /dev/null; echo > /dev/zero; test -c /dev/full"},
		"names":    {"n\n", "hostname n; hostname"},
		"host's":   {"denied\n", "mount -t tmpfs x /tmp 2> /dev/null || echo denied; cat /proc/kmsg 2> /dev/null"},
		"own ping": {"0\t65535\n", "cat /proc/sys/net/ipv4/ping_group_range"},
	} {
		args := []string{"run", "--rm", "--cap-add", "SYS_ADMIN", "--cap-drop", "SYSLOG", "busybox", "sh", "-c", c.script + "; true"}
		if name == "host's" {
			args = append(args[:2], args[6:]...)
		}
		if got := s.ok(args...); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := s.ok("run", "--rm", "-u", "1000:1000", "busybox", "sh", "-c", "echo out > /dev/stdout; touch /tmp/f; stat -c %u:%g /tmp/f"); got != "out\n1000:1000\n" {
		t.Errorf("a user: %q", got)
	}
	term := s.terminal("run", "--rm", "-it", "-u", "1000", "busybox", "sh", "-c", "stat -c '%u %g' $(tty); echo > /dev/tty && echo good")
	s.must(term.Expect("1000 5\r\n\r\ngood"))
	if code, err := term.Wait(); err != nil || code != 0 {
		t.Errorf("terminal: %d, %v", code, err)
	}
	s.remappedNamespaces()
	s.remappedRefusals()
	s.remappedFiles(root)
	s.ok("rm", "-f", "box")
	s.ok("volume", "rm", "kept")
	_ = d
}

// subordinate is the first id of the default user's range.
func subordinate(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/etc/subuid")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^dockremap:(\d+):65536$`).FindSubmatch(data)
	if m == nil {
		t.Fatalf("no range for the default user in %q", data)
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// remappedNamespaces joins those of "box", and sets what belongs to them.
func (s story) remappedNamespaces() {
	pid := strings.TrimSpace(s.ok("inspect", "--format", "{{.State.Pid}}", "box"))
	ns, err := os.Readlink("/proc/" + pid + "/ns/user")
	s.must(err)
	for _, flag := range []string{"--network", "--pid", "--ipc"} {
		if got := s.ok("run", "--rm", flag, "container:box", "busybox", "readlink", "/proc/self/ns/user"); got != ns+"\n" {
			s.Errorf("%s of box: user namespace %q, want %q", flag, got, ns)
		}
	}
	if got := s.ok("run", "--rm", "--ipc", "container:box", "busybox", "cat", "/dev/shm/s"); got != "shared\n" {
		s.Errorf("shared memory: %q", got)
	}
	if got := s.ok("run", "--rm", "busybox", "readlink", "/proc/self/ns/user"); got == ns+"\n" {
		s.Error("two containers share a user namespace")
	}
	s.ok("run", "-d", "--name", "plain", "--userns", "host", "busybox", "sleep", "1000")
	s.fails(125, "cannot join the namespaces of a container that is in the host's user namespace", "run", "--rm", "--network", "container:plain", "busybox", "true")
	s.ok("run", "--rm", "--userns", "host", "--network", "container:box", "busybox", "true")
	s.ok("rm", "-f", "plain")
	if got := s.ok("run", "--rm", "--sysctl", "net.core.somaxconn=99", "--sysctl", "kernel.shmmax=12345678", "--ulimit", "nofile=100:200", "--shm-size", "2m", "--tmpfs", "/t:uid=5,mode=700",
		"busybox", "sh", "-c", "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax; ulimit -n; stat -c %u /t; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2"); got != "99\n12345678\n100\n5\n2048\n" {
		s.Errorf("own limits: %q", got)
	}
	if got := s.ok("run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", "ip link set lo down && ip addr add 10.9.9.9/32 dev eth0 && echo mine; ls /sys/class/net"); got != "mine\neth0\nlo\n" {
		s.Errorf("the network is not the container's: %q", got)
	}
}

func (s story) remappedRefusals() {
	s.fails(125, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode", "run", "--rm", "--privileged", "busybox", "true")
	s.fails(125, "cannot share the host's network namespace when user namespaces are enabled", "run", "--rm", "--network", "host", "busybox", "true")
	s.fails(125, "cannot share the host PID namespace when user namespaces are enabled", "run", "--rm", "--pid", "host", "busybox", "true")
	s.fails(125, "cannot set user 70000:0: it is not mapped in the container's user namespace", "run", "--rm", "-u", "70000", "busybox", "true")
	s.ok("run", "--rm", "--privileged", "--userns", "host", "busybox", "true")
}

// remappedFiles looks at what is shared with the host and with others.
func (s story) remappedFiles(root int) {
	dir := s.TempDir()
	s.must(os.Chmod(dir, 0o777))
	s.must(os.WriteFile(filepath.Join(dir, "secret"), []byte("host's"), 0o600))
	got := s.ok("run", "--rm", "-v", dir+":/b", "busybox", "sh", "-c", "cat /b/secret 2> /dev/null || echo denied; stat -c %u /b/secret; chown 0 /b/secret 2> /dev/null || echo denied; cp /bin/busybox /b/su; chmod 4755 /b/su")
	if got != "denied\n65534\ndenied\n" {
		s.Errorf("a bind mount: %q", got)
	}
	var st syscall.Stat_t
	s.must(syscall.Stat(filepath.Join(dir, "su"), &st))
	if int(st.Uid) != root || st.Mode&syscall.S_ISUID == 0 {
		s.Errorf("root of a container left a file of %d, mode %o", st.Uid, st.Mode)
	}
	// The image's content of a fresh volume, and a volume seen from both sides.
	if got := s.ok("run", "--rm", "-v", "fresh:/etc", "busybox", "stat", "-c", "%u %n", "/etc/passwd"); got != "0 /etc/passwd\n" {
		s.Errorf("a fresh volume: %q", got)
	}
	for _, ns := range []string{"", "host"} {
		if got := s.ok("run", "--rm", "--userns="+ns, "-v", "kept:/data", "busybox", "stat", "-c", "%u:%g", "/data/f"); got != "7:8\n" {
			s.Errorf("--userns=%s: the volume's file is of %q", ns, got)
		}
	}
	s.ok("volume", "rm", "fresh")
	// What reads and writes layers and live roots knows the ids of inside.
	s.ok("run", "-d", "--name", "writer", "busybox", "sh", "-c", "touch /f; chown 5:6 /f; mkdir /d; exec sleep 1000")
	s.must(os.Chown(filepath.Join(dir, "secret"), 7, 8))
	s.ok("exec", "writer", "sh", "-c", "until [ -d /d ]; do sleep 0.05; done")
	s.ok("cp", "-a", filepath.Join(dir, "secret"), "writer:/d/up")
	if got := s.ok("diff", "writer"); got != "A /d\nA /d/up\nA /f\n" {
		s.Errorf("diff: %q", got)
	}
	s.ok("commit", "writer", "written")
	if got := s.ok("run", "--rm", "written", "stat", "-c", "%u:%g", "/f", "/d/up"); got != "5:6\n7:8\n" {
		s.Errorf("the files of a commit are of %q", got)
	}
	if list := tarOwners(s.T, s.ok("export", "writer")); list["f"] != "5:6" || list["d/up"] != "7:8" || list["d/"] != "0:0" {
		s.Errorf("export: %v", list)
	}
	if list := tarOwners(s.T, s.ok("cp", "writer:/f", "-")); list["f"] != "5:6" {
		s.Errorf("cp: %v", list)
	}
	s.ok("rm", "-f", "writer")
	s.ok("rmi", "written")
	if got := s.ok("run", "--rm", "--device", "/dev/null:/dev/other", "busybox", "sh", "-c", "echo > /dev/other; stat -c %t:%T /dev/other"); got != "1:3\n" {
		s.Errorf("a device: %q", got)
	}
}

// tarOwners lists the owners of what a tar holds, by name.
func tarOwners(t *testing.T, data string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(strings.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = fmt.Sprintf("%d:%d", h.Uid, h.Gid)
	}
}

// TestUsernsSwitched: what a container is mapped to is a matter of each start,
// since the disk knows nothing of it.
func TestUsernsSwitched(t *testing.T) {
	keepSubordinate(t)
	file := filepath.Join(t.TempDir(), "daemon.json")
	config := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config("{}")
	d, s, _ := remapped(t, "--config-file", file)
	const script = "cat /proc/self/uid_map; stat -c %u:%g /f 2> /dev/null; touch /f; chown 5:6 /f"
	if got := s.ok("run", "--name", "box", "busybox", "sh", "-c", script); got != wholeMap {
		t.Errorf("without: %q", got)
	}
	s.ok("create", "--name", "hostnet", "--network", "host", "busybox", "true")
	config(`{"userns-remap": "default"}`)
	d.Stop(t)
	d.Start(t)
	if got, want := s.ok("start", "-a", "box"), fmt.Sprintf("%10d %10d %10d\n5:6\n", 0, subordinate(t), 65536); got != want {
		t.Errorf("with: %q, want %q", got, want)
	}
	s.fails(1, "cannot share the host's network namespace when user namespaces are enabled", "start", "hostnet")
	// A daemon that was killed adopts what runs, and goes into it.
	s.ok("run", "-d", "--name", "going", "busybox", "sleep", "1000")
	d.Kill()
	d.Start(t)
	if got := s.ok("exec", "-u", "3", "going", "sh", "-c", "id -u; echo x > /dev/stdout"); got != "3\nx\n" {
		t.Errorf("adopted: %q", got)
	}
	config("{}")
	d.Stop(t)
	d.Start(t)
	if got := s.ok("start", "-a", "box"); got != wholeMap+"5:6\n" {
		t.Errorf("without again: %q", got)
	}
	if got := s.ok("exec", "going", "id", "-u"); got != "0\n" {
		t.Errorf("adopted by a daemon without: %q", got)
	}
	s.ok("rm", "-f", "going", "box", "hostnet")
}

// TestUsernsAuto gives each container ids that no other has.
func TestUsernsAuto(t *testing.T) {
	d, s, _ := remapped(t)
	auto := func(args ...string) []string { return append([]string{"run", "--userns", "auto"}, args...) }
	s.ok(auto("-d", "--name", "one", "-v", "kept:/data", "busybox", "sh", "-c", "touch /data/f; exec sleep 1000")...)
	s.ok(auto("-d", "--name", "two", "-v", "kept:/data", "busybox", "sleep", "1000")...)
	one, two := s.hostUID("one"), s.hostUID("two")
	if one == two || one%65536 != 0 || two%65536 != 0 || one == 0 || two == 0 {
		t.Errorf("roots %d and %d", one, two)
	}
	if got := s.ok("exec", "two", "stat", "-c", "%u", "/data/f"); got != "0\n" {
		t.Errorf("the volume that both have: %q", got)
	}
	d.Kill()
	d.Start(t)
	s.ok(auto("-d", "--name", "three", "busybox", "sleep", "1000")...)
	if three := s.hostUID("three"); three == one || three == two {
		t.Errorf("a new daemon gave %d again", three)
	}
	s.ok("rm", "-f", "two")
	s.ok(auto("-d", "--name", "four", "busybox", "sleep", "1000")...)
	if four := s.hostUID("four"); four != two {
		t.Errorf("the range %d was not given back: %d", two, four)
	}
	s.fails(125, "privileged mode is incompatible with user namespaces", auto("--rm", "--privileged", "busybox", "true")...)
	s.ok("rm", "-f", "one", "three", "four")
	s.ok("volume", "rm", "kept")
	if left, _ := filepath.Glob(filepath.Join(d.Run, "userns", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
