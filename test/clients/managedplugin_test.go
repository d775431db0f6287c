package clients

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// samplePlugin makes the directory of a plugin that keeps volumes. config is what
// its config.json says besides.
func samplePlugin(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "rootfs", "plugin"), "./testdata/volumeplugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text := `{"description":"sample","entrypoint":["/plugin","/data/volumes"],"interface":{"types":["docker.volumedriver/1.0"],"socket":"sample.sock"},
"propagatedMount":"/data","env":[{"name":"DEBUG","settable":["value"],"value":"0"}]` + config + `}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pluginPid is the process of a daemon's plugin, 0 if there is none.
func pluginPid(t *testing.T, d *testkit.Daemon, id string) int {
	t.Helper()
	procs, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, p := range procs {
		cmd, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
		table, _ := os.ReadFile(p)
		if bytes.HasPrefix(cmd, []byte("/plugin\x00")) && bytes.Contains(table, []byte("/plugins/"+id+"/rootfs / ")) {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			return n
		}
	}
	return 0
}

// TestManagedPlugin: a plugin is created, pushed, installed on another daemon with
// what it asks for, used, killed, found again by the next daemon, and removed.
func TestManagedPlugin(t *testing.T) {
	host := serveRegistry(t)
	maker, d := testkit.StartDaemon(t), testkit.StartBusybox(t)
	name := host + "/sample:1"
	t.Cleanup(func() { // whatever has failed, no process stays
		_, _ = d.Gantry("rm", "-f", "user")
		_, _ = d.Gantry("plugin", "rm", "-f", name)
	})
	no := func(text string, args ...string) {
		t.Helper()
		if out, err := d.Gantry(args...); err == nil || !strings.Contains(out+err.Error(), text) {
			t.Errorf("%v: %v, %q; want %q", args, err, out, text)
		}
	}
	dir := samplePlugin(t, `,"linux":{"capabilities":["CAP_SYS_ADMIN"]}`)
	maker.OK(t, "plugin", "create", name, dir)
	if out, err := maker.Gantry("plugin", "create", name, dir); err == nil || !strings.Contains(out+err.Error(), "plugin "+name+" already exists") {
		t.Errorf("again: %q, %v", out, err)
	}
	maker.OK(t, "plugin", "push", name)
	maker.OK(t, "plugin", "rm", name)

	no("installation has been canceled", "plugin", "install", name)
	no(`plugin "`+name+`" not found`, "plugin", "upgrade", "--skip-remote-check", name)
	if out := d.OK(t, "plugin", "install", "--grant-all-permissions", name, "DEBUG=2"); !strings.Contains(out, "Installed plugin "+name) {
		t.Error(out)
	}
	if out := d.OK(t, "plugin", "ls", "--format", "{{.Name}} {{.Enabled}}"); out != name+" true" {
		t.Error(out)
	}
	id := d.OK(t, "plugin", "ls", "-q", "--no-trunc")
	if out := d.OK(t, "ps", "-aq"); out != "" {
		t.Errorf("ps shows %q", out)
	}
	if out := d.OK(t, "info", "-f", "{{.Plugins.Volume}}"); !strings.Contains(out, name) {
		t.Error(out)
	}
	d.OK(t, "volume", "create", "-d", name, "data")
	d.OK(t, "run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/f")
	d.OK(t, "run", "-d", "--name", "user", "-v", "data:/d", "busybox", "sleep", "1000")
	no("plugin "+name+" is in use", "plugin", "disable", name)
	no("plugin "+name+" is in use", "plugin", "rm", name)
	no("is enabled", "plugin", "set", name, "DEBUG=1")

	// Killed, it comes again.
	first := pluginPid(t, d, id)
	if first == 0 {
		t.Fatal("the plugin does not run")
	}
	endProcess(t, first)
	d.OK(t, "volume", "create", "-d", name, "more")
	second := pluginPid(t, d, id)
	if second == 0 || second == first {
		t.Errorf("process %d, then %d", first, second)
	}
	// The next daemon finds it, after an orderly end and after none.
	for _, end := range []func(){func() { d.Stop(t) }, d.Kill} {
		end()
		d.Start(t)
		if now := pluginPid(t, d, id); now != second {
			t.Errorf("process %d, then %d", second, now)
		}
		if out := d.OK(t, "run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/f"); out != "kept" {
			t.Error(out)
		}
	}
	// One that died with the daemon is started anew.
	d.Kill()
	endProcess(t, second)
	d.Start(t)
	d.OK(t, "volume", "rm", "more")
	if now := pluginPid(t, d, id); now == 0 || now == second {
		t.Errorf("process %d, then %d", second, now)
	}
	if out := d.OK(t, "doctor"); !strings.Contains(out, "Nothing is left over") {
		t.Error(out)
	}
	d.OK(t, "rm", "-f", "user")
	d.OK(t, "volume", "rm", "data")
	d.OK(t, "plugin", "disable", name)
	no("plugin is already disabled", "plugin", "disable", name)
	no("found but disabled", "volume", "create", "-d", name, "data")
	d.OK(t, "plugin", "set", name, "DEBUG=fail")
	no("told to fail", "plugin", "enable", "--timeout", "3", name)
	no("canceled", "plugin", "upgrade", "--skip-remote-check", name)
	d.OK(t, "plugin", "upgrade", "--skip-remote-check", "--grant-all-permissions", name)
	if out := d.OK(t, "plugin", "inspect", "-f", "{{.ID}} {{.Settings.Env}}", name); out != id+" [DEBUG=fail]" {
		t.Error(out)
	}
	d.OK(t, "plugin", "rm", name)
	no(`plugin "`+name+`" not found`, "plugin", "inspect", name)
	for _, left := range []string{"plugins", "containers"} {
		if es, _ := os.ReadDir(filepath.Join(d.Root, left)); len(es) > 0 {
			t.Errorf("%s: %v stay", left, es)
		}
	}
	out := d.OK(t, "events", "--since", "10m", "--until", "0s", "-f", "type=plugin", "--format", "{{.Action}}")
	if want := "pull enable disable upgrade remove"; strings.Join(strings.Fields(out), " ") != want {
		t.Errorf("events %q, want %q", out, want)
	}
}

// endProcess ends a process the hard way, and waits until it has gone.
func endProcess(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		cmd, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if len(cmd) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it lives")
		}
	}
}

// What a plugin asks for and nobody granted it does not get, and the daemon pulls
// nothing of it.
func TestManagedPluginPrivileges(t *testing.T) {
	host := serveRegistry(t)
	d := testkit.StartDaemon(t)
	name := host + "/wants:1"
	d.OK(t, "plugin", "create", name, samplePlugin(t, `,"network":{"type":"host"}`))
	d.OK(t, "plugin", "push", name)
	d.OK(t, "plugin", "rm", name)
	for _, body := range []string{`[]`, `[{"Name":"network","Value":["none"]}]`, `[{"Name":"mount","Value":["host"]}]`} {
		res, err := d.Client().Post("http://gantry/plugins/pull?"+url.Values{"remote": {name}}.Encode(), "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden || !strings.Contains(string(text), "incorrect privileges") {
			t.Errorf("%s: %d %s", body, res.StatusCode, text)
		}
	}
	if out := d.OK(t, "plugin", "ls", "-q"); out != "" {
		t.Error(out)
	}
}

// A plugin that keeps putting a link to the host in the place of its volumes gets
// no container, and no copy, to show what is there.
func TestManagedPluginSwapsLinks(t *testing.T) {
	d := testkit.StartBusybox(t)
	t.Cleanup(func() { _, _ = d.Gantry("plugin", "rm", "-f", "swapper") })
	host := t.TempDir()
	dir := samplePlugin(t, "")
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`"env":[`), []byte(`"env":[{"name":"SWAP","settable":["value"],"value":""},`), 1)
	if err := os.WriteFile(config, text, 0o644); err != nil {
		t.Fatal(err)
	}
	d.OK(t, "plugin", "create", "swapper", dir)
	d.OK(t, "plugin", "enable", "swapper")
	d.OK(t, "volume", "create", "-d", "swapper", "data")
	d.OK(t, "run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo volume > /d/f")
	d.OK(t, "plugin", "disable", "-f", "swapper")
	d.OK(t, "plugin", "set", "swapper", "SWAP="+host)
	d.OK(t, "plugin", "enable", "swapper")
	seen := map[string]int{}
	for range 12 {
		seen[d.OK(t, "run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/f")]++
	}
	for range 4 {
		out := d.OK(t, "volume", "export", "data")
		seen[fmt.Sprint("export has host: ", strings.Contains(out, "host"))]++
	}
	t.Log(seen)
	if seen["host"]+seen["export has host: true"] > 0 || seen["volume"]+seen["plugin"] != 12 {
		t.Errorf("seen %v", seen)
	}
	d.OK(t, "volume", "rm", "-f", "data") // the plugin's own removal may meet its links
}
