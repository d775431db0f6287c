package clients

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// docker runs the stock command line; where there is none, our own.
func docker(t *testing.T, d *testkit.Daemon, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("docker")
	if err != nil {
		return d.OK(t, args...)
	}
	out, err := exec.Command(path, append([]string{"-H", "unix://" + d.Socket}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// fetch returns what a web server answers.
func fetch(url string) (string, error) {
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// TestConnectAndDisconnect moves containers between networks while they run,
// rest, and have not run yet.
func TestConnectAndDisconnect(t *testing.T) {
	d := testkit.StartBusybox(t)
	ok := func(args ...string) string { t.Helper(); return d.OK(t, args...) }
	docker := func(args ...string) string { t.Helper(); return docker(t, d, args...) }
	fails := func(text string, args ...string) {
		t.Helper()
		if _, err := d.Gantry(args...); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v, want %q", args, err, text)
		}
	}
	nets := func(c string) string {
		t.Helper()
		return ok("inspect", "-f", "{{range $n, $e := .NetworkSettings.Networks}}{{$n}}={{$e.IPAddress}} {{end}}", c)
	}
	route := func(c string) string {
		t.Helper()
		return ok("exec", c, "sh", "-c", "ip route | grep default | cut -d' ' -f3")
	}
	ok("network", "create", "--subnet", "10.77.1.0/24", "a1")
	docker("network", "create", "--subnet", "10.77.2.0/24", "z1")
	ok("network", "create", "--subnet", "10.77.3.0/24", "--internal", "in")
	ok("run", "-d", "--name", "c1", "--network", "z1", "--ip", "10.77.2.9", "-p", "127.0.0.1:0:80", "-h", "host1", "busybox", "httpd", "-f", "-h", "/etc")
	port := ok("port", "c1", "80")
	reach := func() {
		t.Helper()
		if got, err := fetch("http://" + port + "/hostname"); err != nil || got != "host1\n" {
			t.Errorf("through the published port: %q, %v", got, err)
		}
	}
	reach()

	// The default route, and what is published, goes with the first name.
	docker("network", "connect", "--ip", "10.77.1.9", "--alias", "al", "a1", "c1")
	if got := nets("c1"); got != "a1=10.77.1.9 z1=10.77.2.9" {
		t.Errorf("connected: %s", got)
	}
	if got := route("c1"); got != "10.77.1.1" {
		t.Errorf("default route by %s", got)
	}
	if got := ok("exec", "c1", "grep", "host1", "/etc/hosts"); got != "10.77.2.9\thost1\n10.77.1.9\thost1" {
		t.Errorf("hosts: %q", got)
	}
	if got := ok("port", "c1", "80"); got != port {
		t.Errorf("port %s, then %s", port, got)
	}
	reach()
	if got := ok("inspect", "-f", "{{json .NetworkSettings.Networks.a1.DNSNames}}", "c1"); !strings.HasPrefix(got, `["c1","al","`) || !strings.HasSuffix(got, `,"host1"]`) {
		t.Errorf("names: %s", got)
	}
	if got := ok("network", "inspect", "-f", "{{range .Containers}}{{.Name}}={{.IPv4Address}}{{end}}", "a1"); got != "c1=10.77.1.9/24" {
		t.Errorf("network inspect: %s", got)
	}
	fails("network a1 has active endpoints", "network", "rm", "a1")
	fails("endpoint with name c1 already exists in network a1", "network", "connect", "a1", "c1")
	ok("network", "connect", "--gw-priority", "5", "in", "c1") // internal: never
	if got := route("c1"); got != "10.77.1.1" {
		t.Errorf("default route by %s", got)
	}

	d.Kill()
	d.Start(t)
	if got := nets("c1"); got != "a1=10.77.1.9 in=10.77.3.2 z1=10.77.2.9" {
		t.Errorf("after a restart: %s", got)
	}
	reach()
	docker("network", "disconnect", "a1", "c1")
	if got := route("c1") + " " + nets("c1"); got != "10.77.2.1 in=10.77.3.2 z1=10.77.2.9" {
		t.Errorf("disconnected: %s", got)
	}
	if got := ok("exec", "c1", "grep", "host1", "/etc/hosts"); got != "10.77.2.9\thost1\n10.77.3.2\thost1" {
		t.Errorf("hosts: %q", got)
	}
	reach()
	fails("is not connected to network a1", "network", "disconnect", "a1", "c1")
	ok("network", "disconnect", "z1", "c1") // its ports rest until it has a way out again
	if _, err := fetch("http://" + port + "/hostname"); err == nil {
		t.Error("a port is published without a network")
	}
	ok("network", "connect", "--gw-priority", "1", "z1", "c1")
	ok("network", "connect", "a1", "c1")
	if got := route("c1"); got != "10.77.2.1" {
		t.Errorf("default route by %s, not by priority", got)
	}
	if got, err := fetch("http://" + ok("port", "c1", "80") + "/hostname"); err != nil || got != "host1\n" {
		t.Errorf("published again: %q, %v", got, err)
	}

	// Those that do not run: from the next start on.
	ok("create", "--name", "c2", "busybox", "sleep", "1000")
	docker("network", "connect", "--ip", "10.77.1.20", "a1", "c2")
	ok("network", "disconnect", "bridge", "c2")
	if got := nets("c2"); got != "a1=invalid IP" {
		t.Errorf("created: %s", got)
	}
	ok("start", "c2")
	if got := nets("c2"); got != "a1=10.77.1.20" {
		t.Errorf("started: %s", got)
	}
	ok("network", "connect", "bridge", "c2")
	ok("restart", "-t", "0", "c2")
	if got := nets("c2"); !strings.HasPrefix(got, "a1=10.77.1.20 bridge=") {
		t.Errorf("restarted: %s", got)
	}
	ok("stop", "-t", "0", "c2")
	ok("network", "disconnect", "a1", "c2")
	fails("is not connected to the network a1", "network", "disconnect", "a1", "c2")

	// Without a network of its own, or with another's.
	ok("run", "-d", "--name", "no", "--network", "none", "busybox", "sleep", "1000")
	fails("in private (none) mode", "network", "connect", "a1", "no")
	ok("network", "disconnect", "none", "no")
	ok("network", "connect", "a1", "no")
	ok("exec", "no", "ping", "-c1", "-W2", "10.77.1.1")
	ok("run", "-d", "--name", "xx", "--network", "container:no", "busybox", "sleep", "1000")
	fails("sharing network namespace", "network", "connect", "z1", "xx")
	fails("No such container: nosuch", "network", "disconnect", "a1", "nosuch")
	fails("endpoint nosuch not found", "network", "disconnect", "-f", "a1", "nosuch")
}

// TestManyJoinOneNetwork: containers that run join a network at the same time.
func TestManyJoinOneNetwork(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "network", "create", "--subnet", "10.78.0.0/16", "n1")
	d.OK(t, "network", "create", "--subnet", "10.79.0.0/16", "n2")
	const many = 40
	errs := make(chan error, many)
	for i := range many {
		go func() {
			name := fmt.Sprint("c", i)
			_, err := d.Gantry("run", "-d", "--name", name, "--network", "n1", "busybox", "sleep", "1000")
			if err == nil {
				_, err = d.Gantry("network", "connect", "n2", name)
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := d.OK(t, "network", "inspect", "-f", "{{len .Containers}}", "n2"); got != fmt.Sprint(many) {
		t.Errorf("%s containers are on the network", got)
	}
}

// TestIPv6 has networks with both versions of IP, and with IPv6 alone.
func TestIPv6(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "network", "create", "--ipv6", "dual")
	subnet := d.OK(t, "network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "dual")
	if f := strings.Fields(subnet); len(f) != 2 || !strings.HasPrefix(f[1], "fd") || !strings.HasSuffix(f[1], "::/64") {
		t.Fatalf("subnets: %s", subnet)
	}
	docker(t, d, "network", "create", "--ipv6", "--ipv4=false", "--subnet", "fd77:1::/64", "--gateway", "fd77:1::9", "six")
	if got := d.OK(t, "network", "inspect", "-f", "{{.EnableIPv4}} {{.EnableIPv6}} {{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}", "six"); got != "false true fd77:1::/64 fd77:1::9" {
		t.Errorf("six: %s", got)
	}
	d.OK(t, "run", "-d", "--name", "c1", "--network", "dual", "busybox", "httpd", "-f", "-p", "[::]:80", "-h", "/etc")
	d.OK(t, "run", "-d", "--name", "c2", "--network", "six", "--ip6", "fd77:1::77", "busybox", "sleep", "1000")
	v6 := d.OK(t, "inspect", "-f", "{{(index .NetworkSettings.Networks \"dual\").GlobalIPv6Address}}", "c1")
	if got, err := fetch("http://[" + v6 + "]/hostname"); err != nil || got == "" {
		t.Errorf("from the host by IPv6: %q, %v", got, err)
	}
	if got := d.OK(t, "exec", "c2", "sh", "-c", "ip -o addr show dev eth0 scope global | awk '{print $4}'; ip -6 route | grep default | cut -d' ' -f3"); got != "fd77:1::77/64\nfd77:1::9" {
		t.Errorf("with IPv6 alone: %q", got)
	}
	d.OK(t, "exec", "c2", "ping", "-6", "-c1", "-W2", "fd77:1::9")
	d.OK(t, "network", "connect", "--ip6", "fd77:1::78", "six", "c1")
	d.OK(t, "exec", "c1", "ping", "-6", "-c1", "-W2", "fd77:1::77")
	if got := d.OK(t, "exec", "c1", "sh", "-c", "grep -c ^fd /etc/hosts"); got != "2" {
		t.Errorf("%s lines of IPv6 in the hosts file", got)
	}
	d.OK(t, "run", "--rm", "busybox", "sh", "-c", "test \"$(cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6)\" = 1")
}

// TestNetworkOptions tries what the drivers can be told.
func TestNetworkOptions(t *testing.T) {
	d := testkit.StartBusybox(t)
	ok := func(args ...string) string { t.Helper(); return d.OK(t, args...) }
	fails := func(text string, args ...string) {
		t.Helper()
		if _, err := d.Gantry(args...); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v, want %q", args, err, text)
		}
	}
	ok("network", "create", "-o", "com.docker.network.container_iface_prefix=net", "-o", "com.docker.network.driver.mtu=1400", "--subnet", "10.81.0.0/24", "opts")
	if got := ok("run", "--rm", "--network", "opts", "busybox", "cat", "/sys/class/net/net0/mtu"); got != "1400" {
		t.Errorf("mtu %s", got)
	}
	if got := ok("run", "--rm", "--network", "name=opts,driver-opt=com.docker.network.endpoint.ifname=lan7,\"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0\"",
		"busybox", "cat", "/proc/sys/net/ipv4/conf/lan7/log_martians", "/proc/sys/net/ipv4/conf/lan7/forwarding"); got != "1\n0" {
		t.Errorf("sysctls of the interface: %q", got)
	}
	ok("network", "create", "--internal", "-o", "com.docker.network.bridge.gateway_mode_ipv4=isolated", "--subnet", "10.82.0.0/24", "iso")
	if got := ok("run", "--rm", "--network", "iso", "busybox", "sh", "-c", "ip -4 -o addr show dev eth0 | awk '{print $4}'; ip route | grep -c default; ping -c1 -W1 10.82.0.1 >/dev/null || echo unreachable"); got != "10.82.0.2/24\n0\nunreachable" {
		t.Errorf("isolated: %q", got)
	}
	fails("gateway mode 'isolated' can only be used for an internal network", "network", "create", "-o", "com.docker.network.bridge.gateway_mode_ipv4=isolated", "x1")
	fails("unknown gateway mode", "network", "create", "-o", "com.docker.network.bridge.gateway_mode_ipv6=x", "x2")
	ok("network", "create", "auto")
	fails("supported only when connecting to networks with user configured subnets", "run", "--rm", "--network", "auto", "--ip", "172.20.0.9", "busybox", "true")

	// A bridge that the administrator has made is used, and stays.
	link := fmt.Sprintf("ad%08x", time.Now().UnixNano()&0xffffffff)
	for _, args := range [][]string{{"link", "add", link, "type", "bridge"}, {"addr", "add", "10.83.0.7/24", "dev", link}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	defer exec.Command("ip", "link", "del", link).Run()
	ok("network", "create", "-o", "com.docker.network.bridge.name="+link, "admin")
	if got := ok("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}", "admin"); got != "10.83.0.0/24 10.83.0.7" {
		t.Errorf("of the administrator: %s", got)
	}
	ok("run", "--rm", "--network", "admin", "busybox", "ping", "-c1", "-W2", "10.83.0.7")
	ok("network", "rm", "admin")
	if out, err := exec.Command("ip", "-o", "addr", "show", "dev", link).CombinedOutput(); err != nil || !strings.Contains(string(out), "10.83.0.7/24") {
		t.Errorf("the bridge after the network: %v %s", err, out)
	}
}
