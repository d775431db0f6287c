package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
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

// TestEveryOperationAnswers asks for every operation of the API: each is there,
// or says which one is missing.
func TestEveryOperationAnswers(t *testing.T) {
	d := testkit.StartDaemon(t)
	data, err := os.ReadFile("../../internal/server/testdata/operations.tsv")
	if err != nil {
		t.Fatal(err)
	}
	wild := regexp.MustCompile(`\{[^}]*\}`)
	asked := 0
	for line := range strings.Lines(string(data)) {
		method, path, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok || method == "method" {
			continue
		}
		path, _, _ = strings.Cut(path, "\t")
		path = wild.ReplaceAllString(path, "nosuch")
		asked++
		status, body := request(t, d.Client(), method, "http://gantry/v1.56"+path)
		debug := strings.HasPrefix(path, "/debug/")
		switch {
		case debug && status != http.StatusNotFound:
			t.Errorf("%s %s: %d: it shows the daemon's inside to everyone", method, path, status)
		case debug:
		case strings.Contains(body, "page not found"), status == http.StatusInternalServerError && strings.Contains(body, "internal error"), status < 200:
			t.Errorf("%s %s: %d %s", method, path, status, body)
		case method == "HEAD", strings.HasSuffix(path, "/attach"): // no body; text, as of a stream
		case status == http.StatusNotImplemented && len(message(body)) < len("not supported by this version of Gantry"):
			t.Errorf("%s %s: %s", method, path, body)
		case status >= 400 && message(body) == "":
			t.Errorf("%s %s: %d without a message: %q", method, path, status, body)
		}
	}
	if asked < 100 {
		t.Errorf("only %d operations were asked for", asked)
	}
}

func message(body string) string {
	var e struct{ Message string }
	_ = json.Unmarshal([]byte(body), &e)
	return e.Message
}

// request asks for one thing and reads the answer, of a stream its beginning.
func request(t *testing.T, c *http.Client, method, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
		return 200, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil && ctx.Err() == nil {
		t.Errorf("%s %s: %v", method, url, err)
	}
	return resp.StatusCode, string(body)
}

// TestTwoDaemons: daemons with roots of their own share a host; daemons that
// would share roots, or a pid file, do not start.
func TestTwoDaemons(t *testing.T) {
	a, b := testkit.StartDaemon(t), testkit.StartDaemon(t)
	ids := map[string]bool{}
	for i, d := range []*testkit.Daemon{a, b} {
		d.LoadBusybox(t)
		port := fmt.Sprint(freePort(t))
		d.OK(t, "run", "-d", "--name", "web", "-p", "127.0.0.1:"+port+":80", "busybox", "sh", "-c", fmt.Sprintf("echo from %d >/i; httpd -f -p 80 -h / || nc -lk -p 80 -e cat /i", i))
		ids[d.OK(t, "info", "-f", "{{.ID}}")] = true
		bridge := d.OK(t, "network", "inspect", "-f", `{{index .Options "com.docker.network.bridge.name"}}`, "bridge")
		if _, err := net.InterfaceByName(bridge); err != nil || ids[bridge] {
			t.Errorf("bridge %s: %v", bridge, err)
		}
		ids[bridge] = true
		group := d.OK(t, "exec", "web", "sh", "-c", "grep -m1 -o '/gantry[^/]*' /proc/self/cgroup || true")
		if ids[group] && group != "" {
			t.Errorf("both have the control group %s", group)
		}
		ids[group] = true
		var conn net.Conn
		testkit.Eventually(t, "the published port answers", func() (ok bool) {
			var err error
			conn, err = net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
			return err == nil
		})
		conn.Close()
	}
	if got := a.OK(t, "ps", "-q"); strings.Contains(got, "\n") {
		t.Errorf("one sees the other's: %s", got)
	}
	for _, c := range []struct{ root, runDir, pid, want string }{
		{a.Root, a.Run + "2", "", "another daemon uses " + a.Root},
		{a.Root + "2", a.Run, "", "another daemon uses " + a.Run},
		{a.Root + "2", a.Run + "2", filepath.Join(filepath.Dir(a.Socket), "pid"), fmt.Sprintf("process with PID %d is still running", a.Pid())},
	} {
		out, err := exec.Command(a.Program("gantryd"), "--data-root", c.root, "--exec-root", c.runDir, "--pidfile", c.pid, "--config-file", "", "-H", "unix://"+a.Socket+"2").CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%v: %v\n%s", c, err, out)
		}
	}
	if got := a.OK(t, "exec", "web", "echo", "alive"); got != "alive" {
		t.Errorf("the first daemon has suffered: %q", got)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestSignals: a reload takes what may change, an end leaves containers running.
func TestSignals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"labels":["a=1"],"log-level":"warn"}`)
	d := testkit.StartDaemon(t, "--config-file", file)
	d.LoadBusybox(t)
	if strings.Contains(d.Log(), "level=INFO") {
		t.Errorf("it says more than warnings:\n%s", d.Log())
	}
	d.OK(t, "run", "-d", "--name", "box", "busybox", "sleep", "1000")
	pid := d.OK(t, "inspect", "-f", "{{.State.Pid}}", "box")
	hup := func() {
		if err := syscall.Kill(d.Pid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"labels":["b=2"],"log-level":"debug","debug":true}`)
	hup()
	testkit.Eventually(t, "the new labels hold", func() bool { return d.OK(t, "info", "-f", "{{.Labels}} {{.Debug}}") == "[b=2] true" })
	testkit.Eventually(t, "the new log level holds", func() bool { d.OK(t, "ps"); return strings.Contains(d.Log(), "level=DEBUG") })
	write(`{"bogus":1}`)
	hup()
	testkit.Eventually(t, "the error is logged", func() bool { return strings.Contains(d.Log(), "bogus") })
	if got := d.OK(t, "info", "-f", "{{.Labels}}"); got != "[b=2]" {
		t.Errorf("a bad configuration changed something: %s", got)
	}
	write(`{}`)
	d.Stop(t)
	if _, err := os.Stat("/proc/" + pid); err != nil {
		t.Error("the container has not outlived the daemon")
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(d.Socket), "pid")); err == nil {
		t.Error("the pid file stays")
	}
	d.Start(t)
	if got := d.OK(t, "inspect", "-f", "{{.State.Pid}} {{.State.Running}} {{.RestartCount}}", "box"); got != pid+" true 0" {
		t.Errorf("found again: %s, want %s", got, pid)
	}
}

// TestReboot: after all processes and the run directory have gone, containers
// have ended, and those that shall run do so again.
func TestReboot(t *testing.T) {
	d := testkit.StartDaemon(t)
	d.LoadBusybox(t)
	port := fmt.Sprint(freePort(t))
	const loop = "echo up; sleep 1000"
	for name, args := range map[string][]string{
		"plain": nil, "always": {"--restart", "always", "-p", "127.0.0.1:" + port + ":80", "-v", "kept:/data"}, "stopped": {"--restart", "unless-stopped"}, "gone": {"--rm"},
	} {
		d.OK(t, append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sh", "-c", loop)...)
	}
	d.OK(t, "exec", "always", "sh", "-c", "echo mine >/own; echo more >/data/f")
	d.OK(t, "stop", "-t", "0", "stopped")
	bridge := d.OK(t, "network", "inspect", "-f", `{{index .Options "com.docker.network.bridge.name"}}`, "bridge")
	pids := strings.Fields(d.OK(t, "inspect", "-f", "{{.State.Pid}}", "plain", "always", "gone"))
	d.Kill()
	reboot(t, d, pids, bridge)
	d.Start(t)
	testkit.Eventually(t, "the container that shall always run does", func() bool {
		return d.OK(t, "inspect", "-f", "{{.State.Status}}", "always") == "running"
	})
	for name, want := range map[string]string{"plain": "exited", "stopped": "exited"} {
		if got := d.OK(t, "inspect", "-f", "{{.State.Status}}", name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	testkit.Eventually(t, "--rm holds", func() bool { return d.OK(t, "ps", "-aq", "--filter", "name=gone") == "" })
	if got := d.OK(t, "exec", "always", "cat", "/own", "/data/f"); got != "mine\nmore" {
		t.Errorf("files: %q", got)
	}
	if got := d.OK(t, "logs", "always"); got != "up\nup" {
		t.Errorf("logs: %q", got)
	}
	if got := d.OK(t, "port", "always"); got != "80/tcp -> 127.0.0.1:"+port {
		t.Errorf("port: %q", got)
	}
	d.OK(t, "start", "plain")
	if got := d.OK(t, "exec", "plain", "echo", "again"); got != "again" {
		t.Errorf("%q", got)
	}
}

// reboot takes from a host what does not live through a reboot.
func reboot(t *testing.T, d *testkit.Daemon, pids []string, bridge string) {
	t.Helper()
	for _, p := range pids {
		status, err := os.ReadFile("/proc/" + p + "/status")
		if err != nil {
			t.Fatal(err)
		}
		_, parent, _ := strings.Cut(string(status), "\nPPid:\t")
		parent, _, _ = strings.Cut(parent, "\n")
		for _, victim := range []string{parent, p} { // the shim first: it must not write what happens
			var n int
			if _, err := fmt.Sscan(victim, &n); err != nil || n < 2 {
				t.Fatalf("process %q: %v", victim, err)
			}
			if err := syscall.Kill(n, syscall.SIGKILL); err != nil && victim == parent {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(d.Run, "netns"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := syscall.Unmount(filepath.Join(d.Run, "netns", e.Name()), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
	if out, err := exec.Command("ip", "link", "del", bridge).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	tables, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	instance := strings.TrimPrefix(bridge, "gantry-")
	for line := range bytes.Lines(tables) {
		if f := strings.Fields(string(line)); len(f) == 3 && strings.Contains(f[2], instance) {
			if out, err := exec.Command("nft", "delete", "table", f[1], f[2]).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	}
	if err := os.RemoveAll(d.Run); err != nil {
		t.Fatal(err)
	}
}

// TestCgroupParent: the driver that this host can't have is refused with the
// reason, and the parent is where the daemon and a container's user say.
func TestCgroupParent(t *testing.T) {
	name := fmt.Sprintf("gantry-test-%d", os.Getpid())
	d := testkit.StartDaemon(t, "--cgroup-parent", "/"+name)
	d.LoadBusybox(t)
	if got := d.OK(t, "info", "-f", "{{.CgroupDriver}}"); got != "cgroupfs" {
		t.Error(got)
	}
	for parent, args := range map[string][]string{name: nil, name + "/own": {"--cgroup-parent", name + "/own"}} {
		id := d.OK(t, append(append([]string{"run", "-d"}, args...), "busybox", "sleep", "1000")...)
		groups, err := os.ReadFile("/proc/" + d.OK(t, "inspect", "-f", "{{.State.Pid}}", id) + "/cgroup")
		if err != nil || !strings.Contains(string(groups), ":/"+parent+"/"+id+"\n") {
			t.Errorf("%s: %v\n%s", parent, err, groups)
		}
		d.OK(t, "rm", "-f", id)
	}
	// What the user named is his; the daemon takes its own parent away at its end.
	own, err := filepath.Glob("/sys/fs/cgroup/*/" + name + "/own")
	if err != nil || len(own) == 0 {
		t.Errorf("%v, %v", own, err)
	}
	for _, dir := range own {
		if err := os.Remove(dir); err != nil {
			t.Errorf("control groups of containers stay: %v", err)
		}
	}
	d.Stop(t)
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + name); len(left) > 0 {
		t.Errorf("the daemon's parent stays: %v", left)
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return
	}
	dir := t.TempDir()
	out, err := exec.Command(d.Program("gantryd"), "--data-root", dir+"/lib", "--exec-root", dir+"/run", "--pidfile", "", "--config-file", "",
		"-H", "unix://"+dir+"/s", "--exec-opt", "native.cgroupdriver=systemd").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "systemd does not run on this host") {
		t.Errorf("%v: %s", err, out)
	}
}
