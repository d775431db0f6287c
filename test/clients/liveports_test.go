package clients

import (
	"testing"

	"gantry/internal/testkit"
)

// TestUnpublished: a port that an update has taken back is exposed still, and
// published no more, wherever it is shown.
func TestUnpublished(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "-d", "--name", "one", "-p", "127.0.0.1::80", "-p", "127.0.0.1::90", "busybox", "sleep", "1000")
	shown := func(what string) string { t.Helper(); return d.OK(t, "inspect", "-f", "{{json "+what+"}}", "one") }
	check := func(when string) {
		t.Helper()
		ninety := d.OK(t, "port", "one", "90")
		port := ninety[len("127.0.0.1:"):]
		for what, want := range map[string]string{
			".NetworkSettings.Ports":   `{"80/tcp":null,"90/tcp":[{"HostIp":"127.0.0.1","HostPort":"` + port + `"}]}`,
			".Config.ExposedPorts":     `{"80/tcp":{},"90/tcp":{}}`,
			".HostConfig.PortBindings": `{"90/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}`,
		} {
			if got := shown(what); got != want {
				t.Errorf("%s: %s is %s, want %s", when, what, got, want)
			}
		}
		if got := d.OK(t, "ps", "--format", "{{.Ports}}"); got != "80/tcp, "+ninety+"->90/tcp" {
			t.Errorf("%s: ps: %s", when, got)
		}
		if got := d.OK(t, "ps", "-q", "--filter", "publish=80"); got != "" {
			t.Errorf("%s: the filter finds it published: %s", when, got)
		}
		if got := d.OK(t, "ps", "-q", "--filter", "expose=80"); got == "" {
			t.Errorf("%s: the filter does not find it exposed", when)
		}
		if got := d.OK(t, "port", "one"); got != "90/tcp -> "+ninety {
			t.Errorf("%s: port: %s", when, got)
		}
	}
	d.OK(t, "update", "--publish-rm", "80", "one")
	check("after the update")
	d.Kill()
	d.Start(t)
	check("after the daemon's return")
	d.OK(t, "restart", "-t", "0", "one")
	check("after a restart")
}
