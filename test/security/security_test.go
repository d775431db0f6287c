// Package security attacks a real daemon's containers in the ways that have
// worked against container engines: one test for each class, named after its
// oldest case. What can be tested closer to the code is: paths in root file
// systems in internal/rootpath and internal/ociruntime, layers in
// internal/image and internal/layer, filters in internal/seccomp.
package security

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// refused runs a command that must fail and returns what it said.
func refused(t *testing.T, d *testkit.Daemon, args ...string) string {
	t.Helper()
	out, err := d.Gantry(args...)
	if err == nil {
		t.Errorf("gantry %s was not refused: %q", strings.Join(args, " "), out)
		return ""
	}
	return err.Error()
}

// CVE-2024-21626, CVE-2016-9962: descriptors of the host reach the container.
func TestLeakedDescriptors(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "box", "busybox", "sleep", "300")
	for n := 3; n < 24; n++ {
		dir := fmt.Sprintf("/proc/self/fd/%d", n)
		for _, args := range [][]string{{"run", "--rm", "-w", dir, "busybox", "pwd"}, {"exec", "-w", dir, "box", "pwd"}} {
			refused(t, d, args...)
		}
	}
	// The listing itself holds one descriptor, of the directory.
	for _, args := range [][]string{{"run", "--rm", "busybox", "ls", "/proc/self/fd"}, {"exec", "box", "ls", "/proc/self/fd"}} {
		if got := strings.Fields(d.OK(t, args...)); strings.Join(got, " ") != "0 1 2 3" {
			t.Errorf("%v: descriptors %v", args, got)
		}
	}
	if got := d.OK(t, "exec", "box", "ls", "/proc/1/fd"); strings.Join(strings.Fields(got), " ") != "0 1 2" {
		t.Errorf("descriptors of the first process: %q", got)
	}
	if got := d.OK(t, "run", "--rm", "busybox", "readlink", "/proc/self/cwd"); got != "/" {
		t.Errorf("working directory %q", got)
	}
}

// CVE-2019-5736: the container overwrites the program that starts containers.
func TestRuntimeIsNotWritable(t *testing.T) {
	d := testkit.StartBusybox(t)
	want := hash(t, d.Program("gantry-shim"))
	d.OK(t, "run", "-d", "--name", "attacker", "--cap-add", "ALL", "busybox", "sh", "-c",
		`while :; do for p in /proc/[0-9]*; do echo overwritten >$p/exe; done; done 2>/dev/null`)
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		d.OK(t, "exec", "attacker", "true")
		d.Gantry("exec", "attacker", "/proc/self/exe", "features")
	}
	d.Gantry("run", "--rm", "busybox", "/proc/self/exe", "features")
	if got := hash(t, d.Program("gantry-shim")); got != want {
		t.Fatal("the shim on disk has changed")
	}
	pid := d.OK(t, "inspect", "-f", "{{.State.Pid}}", "attacker")
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	shim := regexp.MustCompile(`PPid:\s*(\d+)`).FindSubmatch(status)
	if got := hash(t, "/proc/"+string(shim[1])+"/exe"); got != want {
		t.Error("the running shim is not the one that was built")
	}
}

func hash(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// CVE-2025-31133: what masks a path comes from the image.
func TestMasksAreNotTheImages(t *testing.T) {
	d := testkit.StartBusybox(t)
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		if got, err := d.Gantry("run", "--rm", "busybox", "sh", "-c", "head -c 16 "+path+" 2>/dev/null | wc -c"); err == nil && strings.TrimSpace(got) != "0" {
			t.Errorf("%s can be read: %s bytes", path, got)
		}
	}
	for _, path := range []string{"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper"} {
		refused(t, d, "run", "--rm", "busybox", "sh", "-c", "echo x >"+path)
	}
}

// CVE-2022-24769 and its kin: inheritable capabilities and groups that nobody
// asked for.
func TestCapabilitiesAndGroups(t *testing.T) {
	d := testkit.StartBusybox(t)
	const standard, none = "00000000a80425fb", "0000000000000000"
	for _, tc := range []struct {
		args                       []string
		prm, eff, bnd, groups, nnp string
	}{
		{nil, standard, standard, standard, "0", "0"},
		{[]string{"--cap-drop", "ALL"}, none, none, none, "0", "0"},
		{[]string{"--cap-drop", "ALL", "--cap-add", "CHOWN"}, "0000000000000001", "0000000000000001", "0000000000000001", "0", "0"},
		{[]string{"-u", "1000"}, none, none, standard, "0", "0"},
		{[]string{"-u", "1000:1000"}, none, none, standard, "1000", "0"},
		{[]string{"-u", "1000:1000", "--cap-add", "NET_ADMIN"}, none, none, "00000000a80435fb", "1000", "0"},
		{[]string{"-u", "1000:1000", "--group-add", "77"}, none, none, standard, "77 1000", "0"},
		{[]string{"--security-opt", "no-new-privileges"}, standard, standard, standard, "0", "1"},
	} {
		got := d.OK(t, append(append([]string{"run", "--rm"}, tc.args...), "busybox", "cat", "/proc/self/status")...)
		field := func(name string) string {
			m := regexp.MustCompile(`(?m)^` + name + `:\s*(.*?)\s*$`).FindStringSubmatch(got)
			if m == nil {
				return ""
			}
			return m[1]
		}
		for name, want := range map[string]string{"CapInh": none, "CapAmb": none, "CapPrm": tc.prm, "CapEff": tc.eff, "CapBnd": tc.bnd, "NoNewPrivs": tc.nnp, "Seccomp": "2"} {
			if v := field(name); v != want {
				t.Errorf("%v: %s = %s, want %s", tc.args, name, v, want)
			}
		}
		if v := strings.Fields(field("Groups")); !sameSet(v, strings.Fields(tc.groups)) {
			t.Errorf("%v: groups %v, want %s", tc.args, v, tc.groups)
		}
	}
	for _, user := range []string{"4294967296:0", "4294967295", "-1", "0:4294967296"} {
		if msg := refused(t, d, "run", "--rm", "-u", user, "busybox", "true"); !strings.Contains(msg, "range") && !strings.Contains(msg, "unable to find") && !strings.Contains(msg, "no matching") {
			t.Errorf("-u %s: %s", user, msg)
		}
	}
}

func sameSet(a, b []string) bool {
	seen := map[string]int{}
	for _, x := range a {
		seen[x] |= 1
	}
	for _, x := range b {
		seen[x] |= 2
	}
	for _, n := range seen {
		if n != 3 {
			return false
		}
	}
	return true
}

// CVE-2021-41091: other users of the host read the state.
func TestStateIsPrivate(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "box", "-v", "secret:/v", "busybox", "sh", "-c", "echo secret >/v/f; sleep 300")
	for _, root := range []string{d.Root, d.Run} {
		cmd := exec.Command("find", root, "-mindepth", "1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, _ := cmd.Output()
		if len(out) > 0 {
			t.Errorf("user 65534 sees in %s:\n%s", root, out)
		}
	}
}

// CVE-2023-25809, GO-2022-0396: control groups and devices.
func TestCgroupsAndDevices(t *testing.T) {
	d := testkit.StartBusybox(t)
	out, err := d.Gantry("run", "--rm", "busybox", "sh", "-c", `find /sys/fs/cgroup -type f | while read f; do (echo 0 >"$f") 2>/dev/null && echo "$f"; done; true`)
	if err != nil || out != "" {
		t.Errorf("control groups can be written (%v):\n%s", err, out)
	}
	for _, dev := range []string{"b 8 0", "b 254 0", "b 7 0", "c 10 237", "c 1 1", "c 10 229"} {
		refused(t, d, "run", "--rm", "busybox", "sh", "-c", "mknod /tmp/d "+dev+" && dd if=/tmp/d of=/dev/null bs=1 count=1")
		refused(t, d, "run", "--rm", "--cap-add", "ALL", "busybox", "sh", "-c", "mknod /tmp/d "+dev+" && dd if=/tmp/d of=/dev/null bs=1 count=1")
	}
	d.OK(t, "run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=1")
}

// CVE-2020-15257: an API on an abstract socket, which every container that
// shares the host's network reaches.
func TestNoAbstractSockets(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "box", "busybox", "sleep", "300")
	before := d.OK(t, "run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/unix")
	for line := range strings.Lines(before) {
		if f := strings.Fields(line); len(f) >= 8 && strings.HasPrefix(f[7], "@") && strings.Contains(f[7], "gantry") {
			t.Errorf("an abstract socket: %s", line)
		}
	}
}

// Open TCP ports without authentication.
func TestNoOpenTCP(t *testing.T) {
	d := testkit.StartBusybox(t)
	dir := t.TempDir()
	out, err := exec.Command(d.Program("gantryd"), "--data-root", filepath.Join(dir, "lib"), "--exec-root", filepath.Join(dir, "run"),
		"--pidfile", filepath.Join(dir, "pid"), "--config-file", "", "-H", "tcp://127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(strings.ToLower(string(out)), "tls") {
		t.Errorf("TCP without TLS: %v: %s", err, out)
	}
}

// GO-2024-3311: input that ends the daemon.
func TestDaemonSurvivesInput(t *testing.T) {
	d := testkit.StartBusybox(t)
	pid := d.Pid()
	c := d.Client()
	for _, body := range []string{"", "{", "null", "[]", `{"HostConfig":null}`, `{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":null}}}`, `{"Image":"busybox","Healthcheck":{"Test":[]}}`,
		`{"Image":"busybox","HostConfig":{"Mounts":[{}]}}`, `{"Image":"busybox","NetworkingConfig":{"EndpointsConfig":{"x":null}}}`, `{"Image":"` + strings.Repeat("a", 1<<20) + `"}`} {
		for _, path := range []string{"/containers/create", "/containers/x/update", "/containers/x/exec", "/exec/x/start", "/volumes/create", "/networks/create", "/images/load", "/commit", "/auth", "/build"} {
			if resp, err := c.Post("http://gantry"+path, "application/json", strings.NewReader(body)); err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode == http.StatusInternalServerError && strings.Contains(path, "create") && len(body) < 100 {
					t.Logf("%s %q: 500", path, body)
				}
			}
		}
	}
	for _, q := range []string{"/containers/json?filters={", "/containers/json?filters=[]", "/containers/json?limit=x", "/events?since=x", "/images/json?filters=%00", "/containers/%2e%2e%2f/json", "/containers/" + strings.Repeat("a", 9000) + "/json"} {
		if resp, err := c.Get("http://gantry" + q); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	if resp, err := c.Get("http://gantry/_ping"); err != nil || resp.StatusCode != 200 {
		t.Fatalf("the daemon does not answer any more: %v", err)
	}
	if d.Pid() != pid || strings.Contains(d.Log(), "panic") {
		t.Errorf("a handler panicked:\n%s", d.Log())
	}
}
