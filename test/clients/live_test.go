package clients

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestLiveMounts adds and removes mounts of every kind of a running container.
func TestLiveMounts(t *testing.T) {
	d := testkit.StartBusybox(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"file": "one", "sub/inner": "two"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	id := d.OK(t, "run", "-d", "--name", "c1", "-v", "first:/first", "--tmpfs", "/scratch", "busybox", "sleep", "1000")
	pid := d.OK(t, "inspect", "-f", "{{.State.Pid}}", "c1")
	sh := func(script string) string { t.Helper(); return d.OK(t, "exec", "c1", "sh", "-c", script) }
	fails := func(text string, args ...string) {
		t.Helper()
		if _, err := d.Gantry(args...); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v, want %q", args, err, text)
		}
	}

	d.OK(t, "update", "--mount-add", "type=bind,src="+dir+",dst=/a/b", "-v", dir+"/file:/one:ro", "-v", "data:/data",
		"--mount-add", "type=volume,dst=/etc/opt", "--mount-add", "type=tmpfs,dst=/t,tmpfs-size=65536", "c1")
	if got := sh("cat /a/b/file /a/b/sub/inner /one; echo x >/data/f; cat /data/f; df -k /t | tail -1 | awk '{print $2}'"); got != "onetwoonex\n64" {
		t.Errorf("in the container: %q", got)
	}
	fails("Read-only file system", "exec", "c1", "sh", "-c", "echo >/one")
	if got := d.OK(t, "inspect", "-f", "{{range .Mounts}}{{.Type}}:{{.Destination}}:{{.RW}} {{end}}", "c1"); got != "volume:/first:true tmpfs:/t:true bind:/one:false volume:/data:true bind:/a/b:true volume:/etc/opt:true" {
		t.Errorf("inspect: %s", got)
	}
	if got := sh("echo kept >/data/g") + d.OK(t, "run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/g"); got != "kept" {
		t.Errorf("the volume has %q", got)
	}
	fails("volume is in use", "volume", "rm", "data")

	fails("Duplicate mount point: /data", "update", "-v", "other:/data", "c1")
	fails("container has no mount at /nothing", "update", "--mount-rm", "/nothing", "c1")
	fails("bind source path does not exist", "update", "--mount-add", "type=bind,src=/no/such/path,dst=/x", "c1")
	fails("/proc", "update", "-v", dir+":/proc/sys", "c1")
	fails("lies below it", "update", "-v", dir+":/a", "c1")

	// One that fails takes the others of its request with it.
	fails("mount /proc/self", "update", "-v", dir+":/good", "-v", "left:/proc/self", "-p", "127.0.0.1::81", "c1")
	if got := sh("ls -d /good; mount | grep -c -e /good -e /left; true") + d.OK(t, "port", "c1"); strings.Contains(got, "127.0.0.1") || !strings.Contains(got, "0") {
		t.Errorf("after a failure: %q", got)
	}
	if got := d.OK(t, "inspect", "-f", "{{range .Mounts}}{{.Destination}} {{end}}{{.HostConfig.PortBindings}}", "c1"); strings.Contains(got, "good") || !strings.HasSuffix(got, "map[]") {
		t.Errorf("inspect after a failure: %s", got)
	}
	d.OK(t, "volume", "rm", "left")

	// One for another, and what was there from the start.
	d.OK(t, "update", "--mount-rm", "/data", "-v", "other:/data", "--mount-rm", "/first", "--mount-rm", "/scratch", "--mount-rm", "/a/b", "--mount-rm", "/one", "c1")
	if got := sh("ls /data /a/b; cat /proc/mounts | grep -c -e /first -e /scratch -e /a/b -e /one; true"); got != "/a/b:\n\n/data:\n0" {
		t.Errorf("after removal: %q", got)
	}
	d.OK(t, "volume", "rm", "data", "first")

	// It is the same container, and after a restart it is the same again.
	if got := d.OK(t, "inspect", "-f", "{{.Id}} {{.State.Pid}} {{.RestartCount}}", "c1"); got != id+" "+pid+" 0" {
		t.Errorf("the container has become %s", got)
	}
	sh("echo there >/data/x")
	d.OK(t, "restart", "-t", "0", "c1")
	if got := sh("cat /data/x; mount | grep -c -e ' /t ' -e /etc/opt -e ' /data '"); got != "there\n3" {
		t.Errorf("after a restart: %q", got)
	}
	d.OK(t, "update", "--mount-rm", "/data", "-v", "more:/more", "c1")
	d.Kill()
	d.Start(t)
	// The shim knows what the daemon has forgotten.
	d.OK(t, "update", "--mount-rm", "/more", "--mount-rm", "/t", "c1")
	if got := sh("mount | grep -c -e ' /t ' -e /more; true"); got != "0" {
		t.Errorf("after the daemon's return: %q", got)
	}
}

// TestLivePorts changes the published ports while a connection is open.
func TestLivePorts(t *testing.T) {
	d := testkit.StartBusybox(t)
	serve := "echo hello >/index.html; httpd -p 80 -h / ; httpd -p 81 -h /; nc -ll -p 90 -e cat"
	d.OK(t, "run", "-d", "--name", "c1", "-p", "127.0.0.1:0:90", "busybox", "sh", "-c", serve)
	port := func(p string) string { t.Helper(); return d.OK(t, "port", "c1", p) }
	echo, err := net.Dial("tcp", port("90"))
	for deadline := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		echo, err = net.Dial("tcp", port("90"))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	alive := func() {
		t.Helper()
		echo.SetDeadline(time.Now().Add(5 * time.Second))
		b := make([]byte, 5)
		if _, err := fmt.Fprint(echo, "ping\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := echo.Read(b); err != nil || string(b) != "ping\n" {
			t.Fatalf("the open connection: %v %q", err, b)
		}
	}
	get := func(addr string) (string, error) {
		c, err := net.DialTimeout("tcp", addr, 2*time.Second)
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second))
		fmt.Fprint(c, "GET /index.html HTTP/1.0\r\n\r\n")
		b := make([]byte, 4096)
		n := 0
		for {
			k, err := c.Read(b[n:])
			if n += k; err != nil || k == 0 {
				break
			}
		}
		return string(b[:n]), nil
	}
	was := port("90")
	alive()
	d.OK(t, "update", "--publish-add", "127.0.0.1::80", "c1")
	web := port("80")
	if got, err := get(web); err != nil || !strings.HasSuffix(got, "hello\n") {
		t.Errorf("the new port: %v %q", err, got)
	}
	alive()
	if now := port("90"); now != was {
		t.Errorf("the old port has moved from %s to %s", was, now)
	}
	if got := d.OK(t, "ps", "--format", "{{.Ports}}"); got != web+"->80/tcp, "+was+"->90/tcp" {
		t.Errorf("ps: %s", got)
	}
	// Another container wants it.
	if _, err := d.Gantry("run", "-d", "--name", "other", "-p", web+":80", "busybox", "sleep", "100"); err == nil || !strings.Contains(err.Error(), "Bind for "+web+" failed: port is already allocated") {
		t.Errorf("a taken port: %v", err)
	}
	d.OK(t, "rm", "other")
	d.OK(t, "run", "-d", "--name", "other", "-p", "127.0.0.1::80", "busybox", "sleep", "100")
	taken := d.OK(t, "port", "other", "80")
	if _, err := d.Gantry("update", "--publish-add", taken+":81", "c1"); err == nil || !strings.Contains(err.Error(), "Bind for "+taken+" failed: port is already allocated") {
		t.Errorf("a port that another has: %v", err)
	}
	// From one container port to another, in one go.
	host := web[strings.LastIndexByte(web, ':')+1:]
	d.OK(t, "update", "--publish-rm", "80", "--publish-add", "127.0.0.1:"+host+":81", "c1")
	if got, err := get(web); err != nil || !strings.HasSuffix(got, "hello\n") {
		t.Errorf("the moved port: %v %q", err, got)
	}
	if got := port("81"); got != web {
		t.Errorf("port 81 is at %s", got)
	}
	alive()
	d.Kill()
	d.Start(t)
	alive()
	if got, err := get(web); err != nil || !strings.HasSuffix(got, "hello\n") {
		t.Errorf("after the daemon's return: %v %q", err, got)
	}
	d.OK(t, "update", "-p", "none", "c1")
	if got, err := get(web); err == nil {
		t.Errorf("a port that is published no more says %q", got)
	}
	alive() // what is open stays
	if got := d.OK(t, "port", "c1"); got != "" {
		t.Errorf("port: %q", got)
	}
	// The host's port is free.
	l, err := net.Listen("tcp", web)
	if err != nil {
		t.Errorf("the host port is still held: %v", err)
	} else {
		l.Close()
	}
	d.OK(t, "update", "-p", web+":80", "c1")
	d.OK(t, "restart", "-t", "0", "c1")
	if got := port("80"); got != web {
		t.Errorf("after a restart port 80 is at %s", got)
	}
}

// TestLiveWords changes environment and labels, and refuses what it does not
// know.
func TestLiveWords(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "c1", "-e", "A=1", "-e", "B=2", "-l", "x=1", "-l", "y=2", "busybox", "sleep", "1000")
	d.OK(t, "update", "-e", "A=3", "-e", "C=4", "--env-rm", "B", "-l", "x=5", "--label-rm", "y", "-l", "z", "c1")
	if got := d.OK(t, "inspect", "-f", "{{json .Config.Labels}}", "c1"); got != `{"x":"5","z":""}` {
		t.Errorf("labels: %s", got)
	}
	if got := d.OK(t, "ps", "-q", "--filter", "label=x=5"); got == "" {
		t.Error("the filter does not see the label")
	}
	if got := d.OK(t, "exec", "c1", "sh", "-c", "tr '\\0' '\\n' </proc/1/environ | sort | grep -e ^A= -e ^B= -e ^C= | tr '\\n' ' '"); got != "A=1 B=2" {
		t.Errorf("environment of the running process: %q", got)
	}
	d.OK(t, "restart", "-t", "0", "c1")
	if got := d.OK(t, "exec", "c1", "sh", "-c", "tr '\\0' '\\n' </proc/1/environ | sort | grep -e ^A= -e ^B= -e ^C= | tr '\\n' ' '"); got != "A=3 C=4" {
		t.Errorf("environment after a restart: %q", got)
	}
	for body, want := range map[string]string{
		`{"Gantry":{"Prots":{}}}`:              `invalid JSON: json: unknown field \"Prots\"`,
		`{"Gantry":{"AddMounts":[{"Typ":1}]}}`: `unknown field`,
		`{"Gantry":{"Env":["=x"]}}`:            `invalid environment variable: =x`,
		`{"Gantry":{"RemovePorts":["1"]}}`:     `port 1 is not published`,
	} {
		resp, err := d.Client().Post("http://gantry/containers/c1/update", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1000)
		n, _ := resp.Body.Read(b)
		resp.Body.Close()
		if resp.StatusCode != 400 || !strings.Contains(string(b[:n]), want) {
			t.Errorf("%s: %d %s", body, resp.StatusCode, b[:n])
		}
	}
}
