package clients_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestExecsOutliveTheDaemon: one that runs can be inspected, and its end is seen,
// by a daemon that did not start it.
func TestExecsOutliveTheDaemon(t *testing.T) {
	d := testkit.StartBusybox(t)
	s := story{T: t}
	defer d.OK(t, "rm", "-f", "host")
	d.OK(t, "run", "-d", "--name", "host", "busybox", "sleep", "1000")
	d.OK(t, "exec", "-d", "host", "sleep", "777")
	d.OK(t, "exec", "-d", "host", "sh", "-c", "while ! test -e /go; do sleep 0.05; done")
	d.OK(t, "exec", "host", "true")
	ids := func() []string {
		return strings.Fields(strings.Trim(d.OK(t, "inspect", "-f", "{{.ExecIDs}}", "host"), "[]\n"))
	}
	before := ids()
	if len(before) != 2 {
		t.Fatalf("execs %v", before)
	}
	d.Kill()
	d.Start(t)
	if after := ids(); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("execs %v, and after the daemon's death %v", before, after)
	}
	type seen struct {
		Running       bool
		ExitCode      *int
		Pid           int
		ContainerID   string
		ProcessConfig struct {
			Entrypoint string
			Arguments  []string
		}
	}
	inspect := func(id string) (x seen) {
		res, err := d.Client().Get("http://gantry/exec/" + id + "/json")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&x); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("inspect exec: %d, %v", res.StatusCode, err)
		}
		return x
	}
	var waits string
	for _, id := range before {
		x := inspect(id)
		if !x.Running || x.ExitCode != nil || x.Pid == 0 || x.ContainerID == "" || len(x.ProcessConfig.Arguments) == 0 {
			t.Errorf("%+v", x)
		}
		if x.ProcessConfig.Entrypoint == "sh" {
			waits = id
		}
	}
	d.OK(t, "exec", "host", "touch", "/go")
	s.eventually("its end is seen", func() bool {
		x := inspect(waits)
		return !x.Running && x.ExitCode != nil && *x.ExitCode == 0
	})
	// Those that end while nobody looks are known by their exit codes, whether their
	// container goes on or ends too.
	known := ids()
	run := func(cont string, cmd ...string) string {
		d.OK(t, append([]string{"exec", "-d", cont}, cmd...)...)
		for id := range strings.FieldsSeq(strings.Trim(d.OK(t, "inspect", "-f", "{{.ExecIDs}}", cont), "[]\n")) {
			if !slices.Contains(known, id) {
				known = append(known, id)
				return id
			}
		}
		t.Fatal("no exec is seen")
		return ""
	}
	d.OK(t, "run", "-d", "--name", "brief", "busybox", "sh", "-c", "while ! test -e /end; do sleep 0.05; done; sleep 0.5")
	seven := []string{"sh", "-c", "while ! test -e /end; do sleep 0.05; done; exit 7"}
	one, two, three := run("host", seven...), run("brief", seven...), run("brief", "sleep", "888")
	roots := map[string]string{}
	for _, name := range []string{"host", "brief"} {
		roots[name] = "/proc/" + strings.TrimSpace(d.OK(t, "inspect", "-f", "{{.State.Pid}}", name)) + "/root/end"
	}
	d.Kill()
	for _, path := range roots {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	d.Start(t)
	for id, code := range map[string]int{one: 7, two: 7, three: 137} {
		x := inspect(id)
		if x.Running || x.ExitCode == nil || *x.ExitCode != code {
			t.Errorf("exec %s: %+v, exit code %v, want %d", id, x, x.ExitCode, code)
		}
	}
	if got := ids(); len(got) != 1 {
		t.Errorf("execs %v", got)
	}
	if left, err := filepath.Glob(filepath.Join(d.Run, "c", "*", "ex*.*")); err != nil || len(left) != 1 {
		t.Errorf("notes of execs: %v, %v", left, err)
	}
	d.OK(t, "rm", "-f", "brief")
}
