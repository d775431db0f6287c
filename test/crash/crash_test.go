// Package crash ends the programs of Gantry at the worst moments and looks at
// what is left: nothing that was written may be lost, and nothing that belongs
// to nobody may stay.
package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestOutputSurvivesTheDaemon kills the daemon again and again while a
// container counts: no line may be missing or doubled, and afterwards logs,
// exec and stop work.
func TestOutputSurvivesTheDaemon(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "counter", "busybox", "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done")
	for range 5 {
		time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond)
		d.Kill()
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		d.Start(t)
	}
	time.Sleep(100 * time.Millisecond)
	if got := d.OK(t, "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "counter"); got != "running 0" {
		t.Fatalf("state after five crashes: %s", got)
	}
	if got := d.OK(t, "exec", "counter", "echo", "alive"); got != "alive" {
		t.Errorf("exec: %q", got)
	}
	d.OK(t, "stop", "-t", "1", "counter")
	lines := strings.Split(d.OK(t, "logs", "counter"), "\n")
	for i, l := range lines {
		if l != strconv.Itoa(i) {
			t.Fatalf("line %d of %d is %q", i, len(lines), l)
		}
	}
	if len(lines) < 50 {
		t.Errorf("only %d lines", len(lines))
	}
}

// TestKilledDuringStarts kills the daemon at random moments while containers
// are started and removed; after its return all that is left has an owner, and
// everything works.
func TestKilledDuringStarts(t *testing.T) {
	d := testkit.StartBusybox(t)
	rounds := 8
	if n, err := strconv.Atoi(os.Getenv("GANTRY_CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	for round := range rounds {
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				for i := range 3 {
					name := fmt.Sprintf("r%dw%di%d", round, w, i)
					d.Gantry("run", "-d", "--name", name, "-p", "127.0.0.1::80", "-v", "/data", "busybox", "sleep", "300")
					if i == 1 {
						d.Gantry("rm", "-fv", name)
					}
				}
			})
		}
		time.Sleep(time.Duration(5+rand.IntN(150)) * time.Millisecond)
		d.Kill()
		wg.Wait()
		d.Start(t)
		if out, err := d.Gantry("doctor"); err != nil {
			t.Fatalf("round %d: doctor after the return: %v\n%s", round, err, out)
		}
	}
	for _, id := range strings.Fields(d.OK(t, "ps", "-q")) {
		if got := d.OK(t, "exec", id, "echo", "alive"); got != "alive" {
			t.Errorf("%s: exec says %q", id, got)
		}
	}
	d.OK(t, "run", "--rm", "busybox", "true")
}

// TestKilledShim ends a container's supervisor: the container is lost, says so,
// leaves nothing, and starts again.
func TestKilledShim(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "box", "busybox", "sleep", "300")
	pid, err := strconv.Atoi(d.OK(t, "inspect", "-f", "{{.State.Pid}}", "box"))
	if err != nil {
		t.Fatal(err)
	}
	shim := parent(t, pid)
	if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", shim)); strings.TrimSpace(string(comm)) != "gantry-shim" {
		t.Fatalf("the parent of the container is %q", comm)
	}
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := d.OK(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box")
		if got == "exited 137" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("state after the shim was killed: %s", got)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the container's process outlives its supervisor")
		}
	}
	d.OK(t, "start", "box")
	if got := d.OK(t, "exec", "box", "echo", "again"); got != "again" {
		t.Errorf("exec after the restart: %q", got)
	}
}

// TestPolicyAcrossRestart lets containers end while no daemon runs: their exit
// codes are known afterwards, and restart policies go on.
func TestPolicyAcrossRestart(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.5; exit 9")
	d.OK(t, "run", "-d", "--name", "always", "--restart", "always", "busybox", "sh", "-c", "echo up; sleep 0.5")
	d.OK(t, "run", "-d", "--name", "auto", "--rm", "busybox", "sleep", "0.5")
	d.Kill()
	time.Sleep(time.Second)
	d.Start(t)
	if got := d.OK(t, "wait", "ends"); got != "9" {
		t.Errorf("exit code: %s", got)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if n := strings.Count(d.OK(t, "logs", "always"), "up"); n >= 2 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("started %d times", n)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); d.OK(t, "ps", "-aq", "--filter", "name=auto") != ""; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("--rm did not remove it after the restart")
		}
	}
	d.OK(t, "rm", "-f", "always")
}

// alive reports whether a process runs: one that only waits to be reaped, by
// whoever is the first process here, does not.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// parent returns the parent's pid of a process (proc(5), status).
func parent(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no parent")
	return 0
}
