package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestKilledDuringMixedWork kills the daemon, or has it replaced, at random
// moments while clients do everything to containers and volumes.
// After each return the doctor finds nothing, and containers that were up and
// that nobody touched are up, with the same process.
func TestKilledDuringMixedWork(t *testing.T) {
	d := testkit.StartBusybox(t)
	rounds := 6
	if n, err := strconv.Atoi(os.Getenv("GANTRY_CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	var pids []string
	for i := range 2 {
		d.OK(t, "run", "-d", "--restart", "always", "--name", fmt.Sprintf("still%d", i), "busybox", "sleep", "1000")
		pids = append(pids, d.OK(t, "inspect", "-f", "{{.State.Pid}}", fmt.Sprintf("still%d", i)))
	}
	for round := range rounds {
		var over atomic.Bool
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() { mixed(d, fmt.Sprintf("r%dw%d", round, w), &over) })
		}
		time.Sleep(time.Duration(20+rand.IntN(400)) * time.Millisecond)
		switch round % 3 {
		case 1: // killed in the middle of an upgrade
			syscall.Kill(d.Pid(), syscall.SIGUSR2)
			time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		case 2: // killed soon after a start
			d.Kill()
			d.Start(t)
			time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		}
		d.Kill()
		over.Store(true)
		wg.Wait()
		d.Start(t)
		if out, err := d.Gantry("doctor"); err != nil {
			t.Fatalf("round %d: doctor after the return: %v\n%s", round, err, out)
		}
		for i, pid := range pids {
			if got := d.OK(t, "inspect", "-f", "{{.State.Pid}} {{.State.Status}} {{.RestartCount}}", fmt.Sprintf("still%d", i)); got != pid+" running 0" {
				t.Errorf("round %d: container %d had pid %s and is %s", round, i, pid, got)
			}
		}
	}
	d.OK(t, "run", "--rm", "busybox", "true")
	d.OK(t, "volume", "prune", "-af")
}

// mixed does things to containers of its own; most fail once the daemon is gone.
func mixed(d *testkit.Daemon, name string, over *atomic.Bool) {
	for i := 0; !over.Load(); i++ {
		c := fmt.Sprintf("%si%d", name, i)
		work := [][]string{
			{"run", "-d", "--name", c, "-v", "vol-" + name + ":/data", "-p", "127.0.0.1::80", "--restart", "on-failure:2", "busybox", "sh", "-c", "sleep 0." + strconv.Itoa(rand.IntN(5)) + "; exit " + strconv.Itoa(rand.IntN(2))},
			{"exec", c, "true"}, {"pause", c}, {"unpause", c}, {"rename", c, c + "x"}, {"restart", "-t", "0", c + "x"}, {"update", "--memory", "64m", "--memory-swap", "64m", c + "x"},
			{"stop", "-t", "0", c + "x"}, {"start", c + "x"}, {"kill", c + "x"}, {"logs", c + "x"}, {"rm", "-fv", c + "x"},
		}
		for _, args := range work {
			if over.Load() {
				return
			}
			if rand.IntN(4) > 0 || args[0] == "run" {
				_, _ = d.Gantry(args...)
			}
		}
	}
}

// TestKilledWhilePausing: a container that the daemon was about to pause when it
// was killed goes on afterwards, and can be removed.
func TestKilledWhilePausing(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "box", "busybox", "sleep", "1000")
	for range 4 {
		done := make(chan struct{})
		go func() { defer close(done); _, _ = d.Gantry("pause", "box") }()
		time.Sleep(time.Duration(2000+rand.IntN(6000)) * time.Microsecond)
		d.Kill()
		<-done
		d.Start(t)
		if d.OK(t, "inspect", "-f", "{{.State.Status}}", "box") == "paused" {
			d.OK(t, "unpause", "box")
		}
		if got := d.OK(t, "exec", "box", "echo", "alive"); got != "alive" {
			t.Errorf("exec says %q", got)
		}
	}
	d.OK(t, "rm", "-f", "box")
}
