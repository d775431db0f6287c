package crash

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestKilledDuringEdits kills the daemon at random moments while the ports,
// mounts and limits of a container are changed. Afterwards the container is as
// its record says, which is one of the two that it was on the way between, and
// no volume, port or rule belongs to nobody.
func TestKilledDuringEdits(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "box", "-m", "64m", "-v", "even:/even", "-p", "127.0.0.1::80", "busybox", "sleep", "1000")
	pid := d.OK(t, "inspect", "-f", "{{.State.Pid}}", "box")
	to := []string{"even", "odd"}
	for round := range 12 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 4 {
				a, b := to[(round+i)%2], to[(round+i+1)%2]
				d.Gantry("update", "--mount-rm", "/"+a, "-v", b+":/"+b, "--mount-add", "type=tmpfs,dst=/"+b+"mem", "box")
				d.Gantry("update", "--mount-rm", "/"+b+"mem", "-p", fmt.Sprintf("127.0.0.1::%d", 80+i), "-m", fmt.Sprintf("%dm", 64+i), "--memory-swap", "-1", "box")
			}
		}()
		time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		d.Kill()
		<-done
		d.Start(t)
		if got := d.OK(t, "inspect", "-f", "{{.State.Pid}} {{.RestartCount}}", "box"); got != pid+" 0" {
			t.Fatalf("round %d: the container has become %s", round, got)
		}
		onRecord := strings.Fields(d.OK(t, "inspect", "-f", "{{range .Mounts}}{{.Destination}} {{end}}", "box"))
		mounted := strings.Fields(d.OK(t, "exec", "box", "sh", "-c", "awk '{print $2}' /proc/mounts | grep -e ^/even -e ^/odd; true"))
		slices.Sort(onRecord)
		slices.Sort(mounted)
		if !slices.Equal(onRecord, mounted) {
			t.Errorf("round %d: mounts %v, on record %v", round, mounted, onRecord)
		}
		for _, v := range to {
			used := d.OK(t, "ps", "-aq", "--filter", "volume="+v) != ""
			if want := slices.Contains(onRecord, "/"+v); used != want {
				t.Errorf("round %d: volume %s in use: %v", round, v, used)
			}
		}
		limit := d.OK(t, "inspect", "-f", "{{.HostConfig.Memory}}", "box")
		if got := d.OK(t, "exec", "box", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"); got != limit {
			t.Errorf("round %d: the limit is %s, on record %s", round, got, limit)
		}
		asked := d.OK(t, "inspect", "-f", "{{range $p, $b := .HostConfig.PortBindings}}{{$p}} {{end}}", "box")
		has := d.OK(t, "inspect", "-f", "{{range $p, $b := .NetworkSettings.Ports}}{{if $b}}{{$p}} {{end}}{{end}}", "box")
		if asked != has {
			t.Errorf("round %d: published %s, on record %s", round, has, asked)
		}
		if out, err := d.Gantry("doctor"); err != nil {
			t.Fatalf("round %d: doctor: %v\n%s", round, err, out)
		}
	}
}
