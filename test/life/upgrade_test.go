package life

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
)

type upgradeState struct {
	Attempt int
	Error   string
	Program string
}

func state(t *testing.T, d *testkit.Daemon) upgradeState {
	t.Helper()
	code, body := get(t, d.Client(), "/gantry/upgrade")
	var s upgradeState
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != 200 {
		t.Fatalf("%d %s %v", code, body, err)
	}
	return s
}

// TestUpgradeUnderLoad replaces the daemon ten times while four clients list
// and run containers: none of their requests fails, the pid stays, and a
// container that counts misses nothing.
func TestUpgradeUnderLoad(t *testing.T) {
	d := testkit.StartBusybox(t)
	pid := d.Pid()
	d.OK(t, "run", "-d", "--name", "counter", "busybox", "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done")
	container := d.OK(t, "inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "counter")
	var over atomic.Bool
	var done atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; !over.Load(); i++ {
				name := fmt.Sprintf("w%di%d", w, i)
				for _, args := range [][]string{{"ps", "-a"}, {"run", "-d", "--name", name, "busybox", "true"}, {"inspect", name}, {"rm", "-f", name}} {
					if out, err := d.Gantry(args...); err != nil {
						t.Errorf("%v %s", err, out)
						over.Store(true)
					}
					done.Add(1)
				}
			}
		})
	}
	var worst time.Duration
	for i := range 10 {
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		if i%2 == 0 {
			syscall.Kill(pid, syscall.SIGUSR2)
		} else if out, err := d.Gantry("system", "upgrade"); err != nil {
			t.Errorf("upgrade: %v %s", err, out)
		}
		testkit.Eventually(t, fmt.Sprint("upgrade ", i), func() bool { return state(t, d).Attempt == i+1 })
		worst = max(worst, time.Since(began))
	}
	over.Store(true)
	wg.Wait()
	t.Logf("%d commands, an upgrade took at most %v", done.Load(), worst)
	if s := state(t, d); s.Error != "" {
		t.Errorf("%+v", s)
	}
	if got := d.OK(t, "inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", "counter"); got != container {
		t.Errorf("the container was %s and is %s", container, got)
	}
	d.OK(t, "stop", "-t", "1", "counter")
	for i, l := range strings.Split(d.OK(t, "logs", "counter"), "\n") {
		if l != fmt.Sprint(i) {
			t.Fatalf("line %d is %q", i, l)
		}
	}
	if n := zombies(pid); n > 0 {
		t.Errorf("%d children of the daemon were not waited for", n)
	}
}

// zombies counts the dead children of a process that nobody has waited for.
func zombies(pid int) (n int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		data, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(data)) {
			if stat, err := os.ReadFile("/proc/" + child + "/stat"); err == nil && strings.Contains(string(stat), ") Z ") {
				n++
			}
		}
	}
	return n
}

// TestFailedUpgrade: whatever the new program is, the old one serves on.
func TestFailedUpgrade(t *testing.T) {
	d := testkit.StartBusybox(t)
	dir := t.TempDir()
	d.OK(t, "run", "-d", "--name", "up", "busybox", "sleep", "100")
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(t, dir+"/data", "no program")
	for path, want := range map[string]string{
		"/bin/true": "no gantryd of this kind", "/bin/false": "can't take over", dir + "/nothing": "can't take over", dir + "/data": "can't take over",
		"relative": "must be absolute", script("old", "echo gantryd takes over 0"): "no gantryd of this kind", script("complains", "echo bad flag >&2; exit 2"): "bad flag",
	} {
		out, err := d.Gantry("system", "upgrade", path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v %s", path, err, out)
		}
	}
	// Programs that say they could and then can't: they are executed, and give
	// back or are given no chance.
	good := d.Program("gantryd")
	broken := script("broken", `case "$*" in *--upgrade-check*) exec `+good+` "$@";; esac
exec `+good+` "$@" --bogus-flag`)
	out, err := d.Gantry("system", "upgrade", broken)
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --bogus-flag") {
		t.Errorf("a program that fails when it is up to it: %v %s", err, out)
	}
	if s := state(t, d); s.Attempt != 1 || !strings.Contains(s.Error, "bogus-flag") {
		t.Errorf("%+v", s)
	}
	if got := d.OK(t, "exec", "up", "echo", "alive"); got != "alive" {
		t.Error(got)
	}
	resp, err := d.Client().Post("http://gantry/gantry/upgrade?path="+url.QueryEscape(good), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Error(resp.Status)
	}
	testkit.Eventually(t, "upgrade", func() bool { return state(t, d).Attempt == 2 })
	if s := state(t, d); s.Error != "" {
		t.Errorf("%+v", s)
	}
}
