package network

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/network/kernel"
	"gantry/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files")

// in runs fn in a namespace, nil being the host.
func in(ns *kernel.Namespace, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return ns.Do(fn)
}

// serveAll answers TCP and UDP of both versions of IP with a name.
func serveAll(t *testing.T, ns *kernel.Namespace, port int, text string) {
	t.Helper()
	serve(t, ns, port, text)
	err := in(ns, func() error {
		l, err := net.Listen("tcp6", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp6", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			l.Close()
			return err
		}
		t.Cleanup(func() { l.Close(); u.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, text+" ")
				c.Close()
			}
		}()
		go func() {
			buf := make([]byte, 10)
			for {
				_, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				u.WriteTo([]byte(text+" "), from)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// knock is ask without the client's address, and fit for UDP of both versions.
func knock(ns *kernel.Namespace, network, addr string) string {
	answer := "-"
	_ = in(ns, func() error {
		c, err := net.DialTimeout(network, addr, 250*time.Millisecond)
		if err != nil {
			if errors.Is(err, unix.ECONNREFUSED) {
				answer = "refused"
			}
			return nil
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(250 * time.Millisecond))
		if network[:3] == "udp" {
			io.WriteString(c, "?")
		}
		buf := make([]byte, 100)
		if n, err := c.Read(buf); n > 0 {
			answer, _, _ = strings.Cut(string(buf[:n]), " ")
		} else if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) {
			answer = "refused"
		}
		return nil
	})
	return answer
}

// TestMatrix is who reaches what, written down: host, LAN, a container of the
// same network, one of another, over both versions of IP and both protocols.
// The golden table has been held against Docker's behaviour by thought; where it
// differs from what one would expect a comment of it says why.
func TestMatrix(t *testing.T) {
	b := open(t, nil)
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	if err := kernel.SetSysctl("net/ipv6/conf/up-lan/disable_ipv6", "0"); err != nil {
		t.Fatal(err)
	}
	ip(t, "addr", "add", "fd99::2/64", "dev", "up-lan", "nodad")
	for _, args := range [][]string{{"addr", "add", "fd99::9/64", "dev", "eth0", "nodad"}, {"route", "add", "fd00::/8", "via", "fd99::2"}} {
		if err := lan.Do(func() error {
			os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte("0"), 0o644)
			out, err := exec.Command("ip", append([]string{"-6"}, args...)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%v: %s", args, out)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for name, opts := range map[string]map[string]string{"other": {}} {
		c := wire.NetworkCreate{Name: name, Options: opts}
		if _, err := b.Create(context.Background(), c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	ports := func(base int) wire.PortMap {
		return published(t, fmt.Sprintf("%d>80/tcp", base), fmt.Sprintf("%d>80/udp", base), fmt.Sprintf("127.0.0.1:%d>80/tcp", base+1))
	}
	v4 := b.attach(t, AttachRequest{Name: "v4", Mode: "bridge", Ports: ports(8080)})
	near := b.attach(t, AttachRequest{Name: "near", Mode: "bridge"})
	far := b.attach(t, AttachRequest{Name: "far", Mode: "other"})
	spaces := map[string]*kernel.Namespace{"host": nil, "lan": lan, "same": namespace(t, near), "other": namespace(t, far)}
	for _, s := range []struct {
		name string
		s    *Sandbox
	}{{"v4", v4}} {
		ns := namespace(t, s.s)
		serveAll(t, ns, 80, s.name)
		serveAll(t, ns, 83, s.name)
	}
	addr := func(s *Sandbox) string { return s.Endpoints[0].IPv4.Addr().String() }
	var out strings.Builder
	row := func(what, network, to string) {
		fmt.Fprintf(&out, "%-34s %-5s", what, network)
		for _, from := range []string{"host", "lan", "same", "other"} {
			fmt.Fprintf(&out, " %-8s", knock(spaces[from], network, to))
		}
		out.WriteByte('\n')
	}
	fmt.Fprintf(&out, "%-34s %-5s %-8s %-8s %-8s %-8s\n", "what", "over", "host", "lan", "same", "other")
	for _, c := range []struct {
		name string
		port int
		s    *Sandbox
	}{{"v4", 8080, v4}} {
		for _, proto := range []string{"tcp", "udp"} {
			row(c.name+" published, 192.0.2.2", proto+"4", fmt.Sprintf("192.0.2.2:%d", c.port))
			row(c.name+" published, fd99::2", proto+"6", fmt.Sprintf("[fd99::2]:%d", c.port))
			row(c.name+" published, 127.0.0.1", proto+"4", fmt.Sprintf("127.0.0.1:%d", c.port))
			row(c.name+" published, ::1", proto+"6", fmt.Sprintf("[::1]:%d", c.port))
		}
		row(c.name+" on 127.0.0.1 only, 127.0.0.1", "tcp4", fmt.Sprintf("127.0.0.1:%d", c.port+1))
		row(c.name+" on 127.0.0.1 only, 192.0.2.2", "tcp4", fmt.Sprintf("192.0.2.2:%d", c.port+1))
		row(c.name+" own address, published", "tcp4", addr(c.s)+":80")
		row(c.name+" own address, not published", "tcp4", addr(c.s)+":83")
		row(c.name+" own address, not published", "udp4", addr(c.s)+":83")
	}
	golden := "testdata/matrix.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("now\n%swas\n%s\n%s", out.String(), want, dump())
	}
	for _, s := range []*Sandbox{v4, near, far} {
		b.detach(t, s.ID)
	}
	b.Settle()
	for _, n := range []string{"other"} {
		if err := b.Remove(context.Background(), n); err != nil {
			t.Error(err)
		}
	}
}

// TestFiltered: with published-ports=filtered the host's own input filter
// decides, without it a forward filter that drops is found, explained and
// mended.
func TestFiltered(t *testing.T) {
	b := open(t, func(o *Options) { o.FilterPorts = true })
	ctx := context.Background()
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "open", Options: map[string]string{"gantry.published-ports": "open"}}); err != nil {
		t.Fatal(err)
	}
	f := b.attach(t, AttachRequest{Name: "f", Mode: "bridge", Ports: published(t, "8080>80/tcp", "8080>80/udp")})
	o := b.attach(t, AttachRequest{Name: "o", Mode: "open", Ports: published(t, "8081>80/tcp")})
	serve(t, namespace(t, f), 80, "f")
	serve(t, namespace(t, o), 80, "o")
	check := func(when, addr, network, want string) {
		t.Helper()
		if got := knock(lan, network, addr); got != want {
			t.Errorf("%s: %s %s: %q, want %q\n%s", when, network, addr, got, want, dump())
		}
	}
	check("free", "192.0.2.2:8080", "tcp4", "f")
	check("free", "192.0.2.2:8080", "udp4", "f")
	check("free", "192.0.2.2:8081", "tcp4", "o")
	nft := func(cmd string) {
		t.Helper()
		if out, err := exec.Command("nft", cmd).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", cmd, out)
		}
	}
	nft("add table ip user; add chain ip user in { type filter hook input priority 0; policy drop; }; add rule ip user in ct state established,related accept")
	defer exec.Command("nft", "delete", "table", "ip", "user").Run()
	check("input drops", "192.0.2.2:8080", "tcp4", "-")
	check("input drops", "192.0.2.2:8080", "udp4", "-")
	check("input drops", "192.0.2.2:8081", "tcp4", "o")
	if a, err := Why(b.Networks, f.ID, "80", netip.Addr{}); err != nil || !a.Doubt || !strings.Contains(fmt.Sprint(a.Steps), "ip user/in") {
		t.Errorf("why: %+v %v", a, err)
	}
	nft("add rule ip user in tcp dport 8080 accept")
	check("the user has opened it", "192.0.2.2:8080", "tcp4", "f")

	nft("add chain ip user fw { type filter hook forward priority 0; policy drop; }; add rule ip user fw ip saddr 198.51.100.0/24 drop")
	check("forward drops", "192.0.2.2:8081", "tcp4", "-")
	if l, err := Blocked(b.Networks); err != nil || len(l) != 1 || !strings.Contains(l[0], "ip user/fw") {
		t.Errorf("%q %v", l, err)
	}
	if a, err := Why(b.Networks, o.ID, "80/tcp", netip.Addr{}); err != nil || !a.Doubt {
		t.Errorf("why: %+v %v", a, err)
	}
	if err := Unblock(b.Networks); err != nil {
		t.Fatal(err)
	}
	check("mended", "192.0.2.2:8081", "tcp4", "o")
	if l, err := Blocked(b.Networks); err != nil || len(l) != 0 {
		t.Errorf("after mending %q %v", l, err)
	}
	if a, err := Why(b.Networks, o.ID, "80/tcp", netip.MustParseAddr("192.0.2.9")); err != nil || !a.Reachable || a.Doubt {
		t.Errorf("why: %+v %v", a, err)
	}
	b.detach(t, f.ID)
	b.detach(t, o.ID)
	b.Settle()
	if err := b.Remove(ctx, "open"); err != nil {
		t.Error(err)
	}
}
