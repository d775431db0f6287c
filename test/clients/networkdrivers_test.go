package clients

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestNetworkDrivers walks through the drivers besides the bridge with the stock
// command line, a crash of the daemon in between: macvlan, a plugin, and networks
// that share a configuration.
func TestNetworkDrivers(t *testing.T) {
	d := testkit.StartBusybox(t)
	p := testkit.StartNetworkPlugin(t, filepath.Join(d.Run, "plugins", "sample.sock"))
	do := func(args ...string) string { t.Helper(); return docker(t, d, args...) }
	web := func(name, net string) {
		t.Helper()
		do("run", "-d", "--name", name, "--network", net, "busybox", "sh", "-c", "echo "+name+" > index.html; exec httpd -f -p 80")
	}
	// From within the namespace of a neighbour, as pipework and others enter it.
	get := func(net string) {
		t.Helper()
		addr := do("inspect", "-f", `{{with index .NetworkSettings.Networks "`+net+`"}}{{.IPAddress}}{{end}}`, "on-"+net)
		pid := do("inspect", "-f", "{{.State.Pid}}", "by-"+net)
		out, err := exec.Command("nsenter", "-t", pid, "-n", "curl", "-sS", "--noproxy", "*", "--retry", "20", "--retry-connrefused", "--max-time", "20", "http://"+addr+"/").CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != "on-"+net {
			t.Errorf("on %s, %s answers %q, %v", net, addr, got, err)
		}
	}

	do("network", "create", "-d", "macvlan", "--subnet", "10.88.1.0/24", "mac")
	do("network", "create", "--config-only", "--subnet", "10.88.2.0/24", "-o", "color=red", "conf")
	do("network", "create", "-d", "sample", "--config-from", "conf", "plug")
	do("network", "create", "--ipam-driver", "sample", "--subnet", "10.88.3.0/24", "addressed")
	for _, n := range []string{"mac", "plug", "addressed"} {
		web("on-"+n, n)
		web("by-"+n, n)
		get(n)
	}
	if got := do("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.MacAddress}} {{.IPAddress}} {{.Gateway}}{{end}}", "on-plug"); !strings.HasPrefix(got, "02:77:") || !strings.HasSuffix(got, " 10.88.2.2 10.88.2.1") {
		t.Errorf("on the plugin's network: %s", got)
	}
	if got := do("info", "-f", "{{json .Plugins.Network}}"); got != `["bridge","host","ipvlan","macvlan","null","sample"]` {
		t.Errorf("info: %s", got)
	}
	do("network", "connect", "plug", "on-mac")
	if got := do("exec", "on-mac", "ip", "-o", "-4", "addr", "show"); !strings.Contains(got, "10.88.2.4/24") {
		t.Errorf("after connect: %s", got)
	}

	d.Kill()
	d.Start(t)
	for _, n := range []string{"mac", "plug", "addressed"} {
		get(n)
	}
	do("network", "disconnect", "plug", "on-mac")
	do("rm", "-f", "on-mac", "on-plug", "on-addressed", "by-mac", "by-plug", "by-addressed")
	if _, err := d.Gantry("network", "rm", "conf"); err == nil || !strings.Contains(err.Error(), `configuration network "conf" is in use`) {
		t.Errorf("a configuration in use: %v", err)
	}
	do("network", "rm", "mac", "plug", "addressed", "conf")
	if calls := strings.Join(p.Calls(), " "); strings.Count(calls, "NetworkDriver.CreateEndpoint") != strings.Count(calls, "NetworkDriver.DeleteEndpoint") {
		t.Errorf("the plugin was told: %s", calls)
	}
}
