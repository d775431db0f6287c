package clients

import (
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestNamesOnNetworks: containers of a network find each other by name, alias,
// short ID and link; names follow renames, connections and the daemon's death.
func TestNamesOnNetworks(t *testing.T) {
	d := testkit.StartBusybox(t)
	has := func(text, want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	d.OK(t, "network", "create", "n1")
	d.OK(t, "network", "create", "n2")
	d.OK(t, "network", "create", "--internal", "shut")
	db := strings.TrimSpace(d.OK(t, "run", "-d", "--name", "db", "--network", "n1", "--network-alias", "store", "busybox", "sleep", "600"))
	ip := strings.TrimSpace(d.OK(t, "inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}}", "db"))
	d.OK(t, "run", "-d", "--name", "web", "--network", "n1", "--link", "db:mydb", "--dns-search", "n1", "busybox", "sleep", "600")
	conf := d.OK(t, "exec", "web", "cat", "/etc/resolv.conf")
	for _, want := range []string{"nameserver 127.0.0.11\n", "search n1\n", "options ndots:0\n", "(internal resolver)", "# Overrides: [search]"} {
		has(conf, want)
	}
	for _, name := range []string{"db", "db.n1", "store", db[:12], "mydb"} {
		has(d.OK(t, "exec", "web", "nslookup", "-type=a", name), ip)
	}
	has(d.OK(t, "exec", "web", "nslookup", ip), "db.n1")
	if out, err := d.Gantry("exec", "web", "ping", "-c1", "-W2", "db"); err != nil {
		t.Error("ping by name:", out)
	}

	d.OK(t, "rename", "db", "base")
	has(d.OK(t, "exec", "web", "nslookup", "-type=a", "base"), ip)
	d.OK(t, "run", "-d", "--name", "far", "busybox", "sleep", "600")
	d.OK(t, "network", "connect", "--alias", "there", "n2", "far")
	d.OK(t, "network", "connect", "n2", "web")
	has(d.OK(t, "exec", "far", "cat", "/etc/resolv.conf"), "nameserver 127.0.0.11\n")
	has(d.OK(t, "exec", "far", "nslookup", "-type=a", "web"), "Name:")
	has(d.OK(t, "exec", "web", "nslookup", "-type=a", "there.n2"), "Name:")
	d.OK(t, "network", "disconnect", "n2", "far")
	if out, err := d.Gantry("exec", "web", "nslookup", "-type=a", "there.n2"); err == nil {
		t.Error("a name stays after its container has left:", out)
	}
	if out, err := d.Gantry("run", "--rm", "--network", "shut", "busybox", "nslookup", "-type=a", "example.org"); err == nil {
		t.Error("an internal network asks others:", out)
	}

	// A question that is asked while there is no daemon waits for the next one.
	d.OK(t, "exec", "-d", "web", "sh", "-c", "sleep 1; nslookup -type=a base > /answer 2>&1")
	time.Sleep(200 * time.Millisecond)
	d.Kill()
	time.Sleep(2 * time.Second)
	d.Start(t)
	deadline := time.Now().Add(10 * time.Second)
	for {
		out, _ := d.Gantry("exec", "web", "cat", "/answer")
		if strings.Contains(out, ip) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("asked without a daemon: %q", out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	has(d.OK(t, "exec", "far", "cat", "/etc/hosts"), "localhost")
	d.OK(t, "rm", "-f", "base", "web", "far")
	d.OK(t, "network", "rm", "n1", "n2", "shut")
}
