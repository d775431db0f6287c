package clients

import (
	"os"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestResolver asks for names as programs do: by the C library of this machine
// (getent), by busybox, over both versions of IP, forwards and backwards, where a
// name has several addresses, where the container has port 53 for itself, and in
// a namespace that is another container's.
func TestResolver(t *testing.T) {
	if _, err := os.Stat("/usr/bin/getent"); err != nil {
		t.Skip("no getent on this machine")
	}
	d := testkit.StartBusybox(t)
	docker(t, d, "network", "create", "--ipv6", "--subnet", "10.84.0.0/24", "--subnet", "fd84::/64", "net")
	libc := []string{"-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro"}
	docker(t, d, append(append([]string{"run", "-d", "--name", "asker", "--network", "net", "--dns-search", "net"}, libc...), "busybox", "sleep", "600")...)
	addr := map[string][2]string{}
	for _, name := range []string{"web1", "web2", "web3"} {
		docker(t, d, "run", "-d", "--name", name, "--network", "net", "--network-alias", "web", "busybox", "sleep", "600")
		f := strings.Fields(docker(t, d, "inspect", "-f", "{{with .NetworkSettings.Networks.net}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}", name))
		if len(f) != 2 {
			t.Fatalf("%s has the addresses %v", name, f)
		}
		addr[name] = [2]string{f[0], f[1]}
	}
	in := func(container string, args ...string) string {
		t.Helper()
		return docker(t, d, append([]string{"exec", container}, args...)...)
	}
	first := func(s string) string { return strings.Fields(s + " -")[0] }
	if got := first(in("asker", "/usr/bin/getent", "ahostsv4", "web1")); got != addr["web1"][0] {
		t.Errorf("IPv4 of web1: %s", got)
	}
	if got := first(in("asker", "/usr/bin/getent", "ahostsv6", "web1")); got != addr["web1"][1] {
		t.Errorf("IPv6 of web1: %s, want %s", got, addr["web1"][1])
	}
	for _, a := range addr["web2"] {
		if got := strings.Fields(in("asker", "/usr/bin/getent", "hosts", a)); len(got) != 2 || got[1] != "web2.net" {
			t.Errorf("the name of %s: %v", a, got)
		}
	}
	if got := in("asker", "nslookup", "-type=aaaa", "web1.net"); !strings.Contains(got, addr["web1"][1]) || strings.Contains(got, addr["web1"][0]) {
		t.Errorf("IPv6 alone: %s", got)
	}
	seen := map[string]bool{}
	for range 60 { // all three come first in time; the C library would sort them
		got := in("asker", "nslookup", "-type=a", "web")
		_, got, _ = strings.Cut(got, "Name:")
		_, got, _ = strings.Cut(got, "Address: ")
		seen[first(got)] = true
		if len(seen) == 3 {
			break
		}
	}
	if len(seen) != 3 {
		t.Errorf("of three addresses only %v come first", seen)
	}
	// web3 serves on port 53 of all its addresses, and asks for names as before.
	docker(t, d, "exec", "-d", "web3", "nc", "-ll", "-p", "53", "-e", "echo", "mine")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got := in("web3", "netstat", "-ltn")
		if strings.Contains(got, ":53 ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens on port 53 of web3:\n%s", got)
		}
	}
	for _, when := range []string{"at first", "after a restart of the daemon"} {
		if got := in("asker", "nc", "-w", "5", addr["web3"][0], "53"); got != "mine" {
			t.Errorf("%s: port 53 of web3 answers %q", when, got)
		}
		if got := in("web3", "nslookup", "-type=a", "web1"); !strings.Contains(got, addr["web1"][0]) {
			t.Errorf("%s: web3 is told %s", when, got)
		}
		if got := docker(t, d, "run", "--rm", "--network", "container:web3", "busybox", "nslookup", "-type=a", "web2"); !strings.Contains(got, addr["web2"][0]) {
			t.Errorf("%s: one in web3's namespace is told %s", when, got)
		}
		d.Kill()
		time.Sleep(100 * time.Millisecond)
		d.Start(t)
	}
	d.OK(t, "rm", "-f", "asker", "web1", "web2", "web3")
	d.OK(t, "network", "rm", "net")
}

// TestPortWhy: what `gantry port why` says of ports that are published, that the
// host's own filters decide about, and that nobody published, over IPv6 too.
func TestPortWhy(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "network", "create", "--ipv6", "--subnet", "10.85.0.0/24", "--subnet", "fd85::/64", "free")
	d.OK(t, "network", "create", "--ipv6", "--subnet", "10.86.0.0/24", "--subnet", "fd86::/64", "-o", "gantry.published-ports=filtered", "kept")
	d.OK(t, "run", "-d", "--name", "pa", "--network", "free", "-p", "127.0.0.1:0:80", "-p", "82", "busybox", "sleep", "600")
	d.OK(t, "run", "-d", "--name", "pb", "--network", "kept", "-p", "82", "busybox", "sleep", "600")
	for _, c := range []struct{ container, port, from, want string }{
		{"pa", "82", "", "map published:"},
		{"pa", "82", "2001:db8::7", "map published6:"},
		{"pa", "80", "", "for this host only"},
		{"pa", "83", "2001:db8::7", "not published"},
		{"pb", "82", "", "a socket of the daemon"},
		{"pb", "82", "2001:db8::7", "a socket of the daemon"},
		{"pa", "83", "fd85::99", "every port is open inside a network"},
	} {
		args := []string{"port", "why", c.container, c.port}
		if c.from != "" {
			args = append(args, "--from", c.from)
		}
		out, _ := d.Gantry(args...) // fails where the packet is stopped
		if !strings.Contains(out, c.want) {
			t.Errorf("%v: %q does not say %q", args, out, c.want)
		}
	}
	d.OK(t, "rm", "-f", "pa", "pb")
	d.OK(t, "network", "rm", "free", "kept")
}
