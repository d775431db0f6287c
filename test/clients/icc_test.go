package clients

import (
	"strings"
	"sync"
	"testing"

	"gantry/internal/testkit"
)

// TestLinksWithoutICC: where containers of the default network do not reach each
// other, a link lets one reach the exposed ports of the other, and nothing else.
func TestLinksWithoutICC(t *testing.T) {
	d := testkit.StartBusybox(t, "--icc=false")
	serve := "for p in 80 81; do nc -ll -p $p -e echo page & done; exec sleep 1000"
	d.OK(t, "run", "-d", "--name", "source", "--expose", "80", "busybox", "sh", "-c", serve)
	d.OK(t, "run", "-d", "--name", "user", "--link", "source:src", "busybox", "sh", "-c", serve)
	d.OK(t, "run", "-d", "--name", "other", "busybox", "sleep", "1000")
	ip := func(name string) string {
		return d.OK(t, "inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name)
	}
	reaches := func(from, to, port string) bool {
		out, err := d.Gantry("exec", from, "nc", "-w", "1", to, port)
		return err == nil && strings.TrimSpace(out) == "page"
	}
	linked := func(when string) {
		t.Helper()
		testkit.Eventually(t, when+": the linked port answers", func() bool { return reaches("user", "src", "80") })
		var all sync.WaitGroup
		for _, x := range []struct{ from, to, port string }{{"user", "src", "81"}, {"source", ip("user"), "80"}, {"other", ip("source"), "80"}} {
			all.Go(func() {
				if reaches(x.from, x.to, x.port) {
					t.Errorf("%s: %s reaches port %s of %s", when, x.from, x.port, x.to)
				}
			})
		}
		all.Go(func() {
			if _, err := d.Gantry("exec", "user", "ping", "-c1", "-W1", "src"); err == nil {
				t.Errorf("%s: ping is answered", when)
			}
		})
		all.Wait()
	}
	linked("at first")
	// The address that the source has after a start may be another.
	d.OK(t, "stop", "-t", "0", "source")
	d.OK(t, "run", "-d", "--name", "between", "busybox", "sleep", "1000")
	d.OK(t, "start", "source")
	linked("after a start of the source")
	d.Kill()
	d.Start(t)
	linked("after the daemon's return")
	d.OK(t, "rm", "-f", "user")
	d.OK(t, "run", "-d", "--name", "later", "busybox", "sleep", "1000") // has the address of user
	if reaches("later", ip("source"), "80") {
		t.Error("the link outlives the container")
	}
	d.OK(t, "run", "-d", "--name", "second", "--link", "source:src", "busybox", "sleep", "1000")
	testkit.Eventually(t, "the second's link answers", func() bool { return reaches("second", "src", "80") })
	d.OK(t, "rm", "--link", "second/src")
	if reaches("second", ip("source"), "80") {
		t.Error("the way stays when the link has been removed")
	}
}
