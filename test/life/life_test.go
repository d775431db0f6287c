// Package life drives a whole daemon through its life: reload, metrics, the
// sockets beside the API, upgrade, and an end that takes containers with it.
package life

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// over returns an HTTP client that connects to a unix socket.
func over(socket string) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

// get returns the status and the body of an answer.
func get(t *testing.T, c *http.Client, path string) (int, string) {
	t.Helper()
	resp, err := c.Get("http://gantry" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	write(t, file, `{"labels":["a=1"]}`)
	d := testkit.StartDaemon(t, "--config-file", file)
	resp, err := d.Client().Get(`http://gantry/events?filters={"type":["daemon"]}`)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)

	write(t, file, `{"labels":["a=2"],"debug":true,"default-shm-size":"8m","shutdown-timeout":3,"default-ipc-mode":"shareable","data-root":"/elsewhere"}`)
	// data-root is a flag too, which is an error: nothing may change.
	syscall.Kill(d.Pid(), syscall.SIGHUP)
	testkit.Eventually(t, "refused reload", func() bool { return strings.Contains(d.Log(), "was not reloaded") })
	if got := d.OK(t, "info", "-f", "{{.Labels}} {{.Debug}}"); got != "[a=1] false" {
		t.Errorf("after a reload that failed: %s", got)
	}
	if code, _ := get(t, d.Client(), "/debug/vars"); code != 404 {
		t.Errorf("/debug/vars without -D: %d", code)
	}
	write(t, file, `{"labels":["a=2"],"debug":true,"default-shm-size":"8m","shutdown-timeout":3,"default-ipc-mode":"shareable"}`)
	syscall.Kill(d.Pid(), syscall.SIGHUP)
	if !events.Scan() {
		t.Fatal("no event")
	}
	var e struct {
		Action string
		Actor  struct {
			ID         string
			Attributes map[string]string
		}
	}
	if err := json.Unmarshal(events.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	a := e.Actor.Attributes
	if e.Action != "reload" || e.Actor.ID != d.OK(t, "info", "-f", "{{.ID}}") || a["debug"] != "true" || a["labels"] != `["a=2"]` || a["default-shm-size"] != "8388608" || a["shutdown-timeout"] != "3" || a["default-ipc-mode"] != "shareable" || a["live-restore"] != "true" {
		t.Errorf("%+v", e)
	}
	if got := d.OK(t, "info", "-f", "{{.Labels}} {{.Debug}}"); got != "[a=2] true" {
		t.Errorf("after the reload: %s", got)
	}
	if code, body := get(t, d.Client(), "/v1.50/debug/vars"); code != 200 || !strings.Contains(body, "memstats") {
		t.Errorf("/debug/vars with -D: %d %.100s", code, body)
	}
	if code, body := get(t, d.Client(), "/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("/debug/pprof: %d %.100s", code, body)
	}
}

func TestMetricsAndDebugSocket(t *testing.T) {
	dir := t.TempDir()
	sock := filepath.Join(dir, "debug.sock")
	d := testkit.StartBusybox(t, "--debug-socket", sock, "--metrics-addr", "127.0.0.1:0")
	if st, err := os.Stat(sock); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("debug socket: %v %v", st, err)
	}
	_, rest, _ := strings.Cut(d.Log(), "tcp://127.0.0.1:")
	port, _, _ := strings.Cut(rest, " ")
	d.OK(t, "run", "-d", "--name", "up", "busybox", "sleep", "100")
	d.OK(t, "run", "-d", "--health-cmd", "exit 1", "--health-interval", "100ms", "--health-retries", "2", "--name", "ill", "busybox", "sleep", "100")
	testkit.Eventually(t, "unhealthy", func() bool { return d.OK(t, "inspect", "-f", "{{.State.Health.Status}}", "ill") == "unhealthy" })
	d.OK(t, "rm", "-f", "ill")
	d.OK(t, "run", "--rm", "busybox", "true")
	resp, err := http.Get("http://127.0.0.1:" + port + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	_, same := get(t, over(sock), "/metrics")
	for _, text := range []string{string(body), same} {
		for _, want := range []string{
			`engine_daemon_container_states_containers{state="running"} 1`, `engine_daemon_container_actions_seconds_count{action="start"} 3`,
			`engine_daemon_container_actions_seconds_bucket{action="create",le="+Inf"} 3`, "engine_daemon_events_total ",
			`gantry_launch_step_seconds_count{step="rootfs"} 3`, `gantry_events_total{type="container",action="start"} 3`, "engine_daemon_engine_info{architecture=",
			"go_goroutines ", "process_resident_memory_bytes ", "engine_daemon_engine_cpus_cpus ",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s in\n%s", want, text)
			}
		}
		// One more may have begun before the container was removed.
		if !regexp.MustCompile(`(?s)engine_daemon_health_checks_failed_total [23]\n.*gantry_health_check_seconds_count [23]\n`).MatchString(text) {
			t.Errorf("not two or three health checks in\n%s", text)
		}
	}
	if _, body := get(t, over(sock), "/traces"); strings.Count(body, `"rootfs"`) != 3 {
		t.Errorf("traces: %s", body)
	}
	if _, body := get(t, over(sock), "/debug/pprof/heap?debug=1"); !strings.Contains(body, "heap profile") {
		t.Errorf("heap: %.200s", body)
	}
	if code, _ := get(t, over(sock), "/containers/json"); code != 404 {
		t.Errorf("the debug socket serves the API: %d", code)
	}
}

// TestEndWithContainers: containers outlive the daemon unless live-restore says
// otherwise, and then the last started ends first.
func TestEndWithContainers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	write(t, file, `{"shutdown-timeout":3}`)
	d := testkit.StartBusybox(t, "--config-file", file)
	run := func(name, script string) {
		d.OK(t, "run", "-d", "--name", name, "busybox", "sh", "-c", "trap 'exit 3' TERM; "+script)
	}
	run("first", "while :; do sleep 0.1; done")
	run("last", "while :; do sleep 0.1; done")
	d.OK(t, "run", "-d", "--name", "deaf", "--stop-timeout", "60", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
	d.Stop(t)
	d.Start(t)
	if got := d.OK(t, "ps", "--format", "{{.Names}}"); got != "deaf\nlast\nfirst" {
		t.Errorf("after a restart run: %q", got)
	}
	write(t, file, `{"shutdown-timeout":3,"live-restore":false}`)
	syscall.Kill(d.Pid(), syscall.SIGHUP)
	testkit.Eventually(t, "reload", func() bool { return strings.Contains(d.Log(), "configuration reloaded") })
	began := time.Now()
	d.Stop(t)
	if took := time.Since(began); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("the end took %v, of which the deaf one may take three seconds", took)
	}
	d.Start(t)
	if got := d.OK(t, "ps", "-a", "--format", "{{.Names}} {{.State}}"); got != "deaf exited\nlast exited\nfirst exited" {
		t.Errorf("after the end run: %q", got)
	}
	if got := d.OK(t, "inspect", "-f", "{{.State.ExitCode}}", "deaf"); got != "137" {
		t.Errorf("the deaf one ended with %s", got)
	}
}

// TestHTTP2WithoutTLS: builders speak it on the API's own socket.
func TestHTTP2WithoutTLS(t *testing.T) {
	d := testkit.StartDaemon(t)
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	c := &http.Client{Transport: &http.Transport{Protocols: &p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.Socket)
	}}}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://gantry/_ping")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.ProtoMajor != 2 || string(body) != "OK" {
		t.Errorf("%s %q", resp.Proto, body)
	}
}
