package testkit

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Daemon is a real gantryd on throw-away directories.
type Daemon struct {
	Socket string // path of its API socket
	Root   string // data root
	Run    string // exec root
	bin    string
	args   []string
	log    *lockedBuffer
	cmd    *exec.Cmd
	done   chan error
}

// lockedBuffer collects the daemon's log while tests read it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// NoProxy is the address of a proxy that nobody runs.
const NoProxy = "http://127.0.0.1:1"

// StartDaemon starts a daemon with further arguments args and waits until it
// answers. When the test ends, its containers are removed, its doctor must find
// nothing, and it must end by itself when asked to.
//
// It needs root: without it the test is skipped, or fails where CI is set.
func StartDaemon(t *testing.T, args ...string) *Daemon {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("a daemon needs root")
		}
		t.Skip("a daemon needs root")
	}
	bin := filepath.Dir(Bin(t, "gantryd"))
	// Not t.TempDir: its names grow with the test's, and socket paths are
	// limited.
	dir, err := os.MkdirTemp("", "gantry-test-")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Socket: filepath.Join(dir, "gantry.sock"), Root: filepath.Join(dir, "lib"), Run: filepath.Join(dir, "run"), bin: bin, args: args, log: &lockedBuffer{}}
	t.Cleanup(func() {
		d.tearDown(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the daemon's directories: %v", err)
		}
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", tail(d.log.String(), 60))
		}
	})
	d.Start(t)
	return d
}

// StartBusybox is StartDaemon with the image busybox:latest loaded.
func StartBusybox(t *testing.T, args ...string) *Daemon {
	t.Helper()
	d := StartDaemon(t, args...)
	d.LoadBusybox(t)
	return d
}

// Bin returns the path of a built program: in the directory GANTRY_BIN, or in
// bin/ of the checkout.
func Bin(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("GANTRY_BIN")
	if dir == "" {
		dir = filepath.Join(checkout(t), "bin")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make build`", err)
	}
	return path
}

// checkout returns the root of the source tree.
func checkout(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above the working directory")
	return ""
}

// Reconfigure gives the daemon further arguments from its next Start on.
func (d *Daemon) Reconfigure(args ...string) { d.args = append(d.args, args...) }

// Program returns the path of gantry, gantryd or gantry-shim.
func (d *Daemon) Program(name string) string { return filepath.Join(d.bin, name) }

// Pid returns the daemon's process ID.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Log returns what the daemon has logged.
func (d *Daemon) Log() string { return d.log.String() }

// Start starts the daemon on its directories, after Kill or Stop.
func (d *Daemon) Start(t testing.TB) {
	t.Helper()
	args := append([]string{"--data-root", d.Root, "--exec-root", d.Run, "--pidfile", filepath.Join(filepath.Dir(d.Socket), "pid"),
		"--config-file", "", "-H", "unix://" + d.Socket}, d.args...)
	d.cmd = exec.Command(d.Program("gantryd"), args...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	// Whatever a test pulls, nothing leaves the machine: only loopback is
	// reached without a proxy.
	d.cmd.Env = append(os.Environ(), "HTTP_PROXY="+NoProxy, "HTTPS_PROXY="+NoProxy, "NO_PROXY=", "http_proxy=", "https_proxy=", "no_proxy=")
	d.cmd.WaitDelay = time.Second
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, done := d.cmd, make(chan error, 1)
	d.done = done
	go func() { done <- cmd.Wait() }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if resp, err := d.Client().Get("http://gantry/_ping"); err == nil {
			resp.Body.Close()
			return
		}
		select {
		case err := <-d.done:
			d.done = nil
			t.Fatalf("the daemon ended: %v\n%s", err, d.log)
		default:
		}
		if time.Now().After(deadline) {
			d.Kill()
			t.Fatalf("the daemon does not answer:\n%s", d.log)
		}
	}
}

// Kill ends the daemon with SIGKILL, as a crash would.
func (d *Daemon) Kill() {
	if d.done != nil {
		d.cmd.Process.Kill()
		<-d.done
		d.done = nil
	}
}

// Stop asks the daemon to end and waits for it.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	if d.done == nil {
		return
	}
	d.cmd.Process.Signal(os.Interrupt)
	select {
	case err := <-d.done:
		if err != nil {
			t.Errorf("the daemon ended with %v", err)
		}
		d.done = nil
	case <-time.After(20 * time.Second):
		t.Error("the daemon does not end when asked to")
		d.Kill()
	}
}

// Client returns an HTTP client of the daemon's socket; the host in its URLs
// does not matter. It keeps no connection open.
func (d *Daemon) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.Socket)
		},
	}}
}

// Gantry runs the command line against the daemon and returns its standard
// output. A failure carries what it said.
func (d *Daemon) Gantry(args ...string) (string, error) {
	cmd := exec.Command(d.Program("gantry"), args...)
	cmd.Env = append(os.Environ(), "GANTRY_HOST=unix://"+d.Socket, "DOCKER_HOST=", "DOCKER_CONTEXT=", "DOCKER_CONFIG="+filepath.Dir(d.Socket))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("gantry %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// OK is Gantry for a command that must succeed; white space around what it
// prints is cut off.
func (d *Daemon) OK(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.Gantry(args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// Eventually waits until f says yes, and fails the test when it does not within
// 30 seconds: more than a loaded machine needs.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}

// LoadBusybox gives the daemon the image busybox:latest.
func (d *Daemon) LoadBusybox(t testing.TB) {
	t.Helper()
	var image bytes.Buffer
	if err := Busybox(&image, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	resp, err := d.Client().Post("http://gantry/images/load", "application/x-tar", &image)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	text.ReadFrom(resp.Body)
	if resp.StatusCode != http.StatusOK || strings.Contains(text.String(), "error") {
		t.Fatalf("load busybox: %s: %s", resp.Status, text.String())
	}
}

// tearDown removes the containers, consults the doctor and stops the daemon.
func (d *Daemon) tearDown(t *testing.T) {
	if d.done == nil {
		d.Start(t)
	}
	if ids, err := d.Gantry("ps", "-aq", "--no-trunc"); err != nil {
		t.Error(err)
	} else if all := strings.Fields(ids); len(all) > 0 {
		if _, err := d.Gantry(append([]string{"rm", "-fv"}, all...)...); err != nil {
			t.Error(err)
		}
	}
	if out, err := d.Gantry("doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	bridge, _ := d.Gantry("network", "inspect", "-f", `{{index .Options "com.docker.network.bridge.name"}}`, "bridge")
	d.Stop(t)
	if bridge = strings.TrimSpace(bridge); !strings.HasPrefix(bridge, "gantry") {
		return // the test's own, or none
	}
	if _, err := net.InterfaceByName(bridge); err == nil {
		t.Errorf("the daemon has left its bridge %s", bridge)
		exec.Command("ip", "link", "del", bridge).Run()
	}
	if exec.Command("nft", "list", "table", "inet", bridge).Run() == nil {
		t.Errorf("the daemon has left its table %s", bridge)
		exec.Command("nft", "delete", "table", "inet", bridge).Run()
	}
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// Args replaces the further arguments, from the next Start on.
func (d *Daemon) Args(args ...string) { d.args = args }
