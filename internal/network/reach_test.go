package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/id"
	"gantry/internal/network/kernel"
	"gantry/internal/wire"
)

// TestReach is the probe matrix of S18: who reaches what, and under whose
// address, before and after other programs have flushed the packet filter and
// the daemon has died.
func TestReach(t *testing.T) {
	b := open(t, nil)
	w := world{lan: machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24"), other: machine(t, "other", "198.51.100.2/24", "198.51.100.9/24")}
	serve(t, w.lan, 7000, "lan")
	serve(t, w.other, 7000, "other")
	serve(t, nil, 6000, "host")
	if err := kernel.SetSysctl("net/ipv4/ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	c1 := b.attach(t, AttachRequest{Name: "c1", Mode: "bridge", Ports: published(t, "8080>80/tcp", "8080>80/udp", "127.0.0.1:8081>81/tcp", "127.0.0.1:8081>81/udp", "192.0.2.2:8082>82/tcp")})
	c2 := b.attach(t, AttachRequest{Name: "c2", Mode: "bridge"})
	if _, err := b.Create(context.Background(), wire.NetworkCreate{Name: "n2"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(context.Background(), wire.NetworkCreate{Name: "in", Internal: true}); err != nil {
		t.Fatal(err)
	}
	c3 := b.attach(t, AttachRequest{Name: "c3", Mode: "n2"})
	c4 := b.attach(t, AttachRequest{Name: "c4", Mode: "in"})
	defer func() {
		for _, s := range []*Sandbox{c3, c4} {
			b.detach(t, s.ID)
		}
		for _, n := range []string{"n2", "in"} {
			if err := b.Remove(context.Background(), n); err != nil {
				t.Error(err)
			}
		}
	}()
	spaces := map[string]*kernel.Namespace{"lan": w.lan, "other": w.other, "host": nil}
	for name, s := range map[string]*Sandbox{"c1": c1, "c2": c2, "c3": c3, "c4": c4} {
		ns, err := kernel.OpenNamespace(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		spaces[name] = ns
		for _, p := range []int{80, 81, 82, 83} {
			serve(t, ns, p, name)
		}
	}
	// A machine on the LAN that forges: it sends packets for 127.0.0.1 and for
	// the bridge's subnet to the host.
	if err := w.lan.Do(func() error {
		for k, v := range map[string]string{"net/ipv4/conf/eth0/route_localnet": "1", "net/ipv4/conf/all/route_localnet": "1"} {
			if err := kernel.SetSysctl(k, v); err != nil {
				return err
			}
		}
		out, err := exec.Command("sh", "-ec", "ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 table local 2>/dev/null || true; ip route del local 127.0.0.1 table local 2>/dev/null || true; ip route add 127.0.0.0/8 via 192.0.2.2 dev eth0 src 192.0.2.9").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	addr := func(s *Sandbox) string { return s.Endpoints[0].IPv4.Addr().String() }
	a1, a2 := addr(c1), addr(c2)
	gw := c1.Endpoints[0].Gateway4.String()
	table := []struct{ from, net, to, want string }{
		// published everywhere
		{"lan", "tcp4", "192.0.2.2:8080", "c1 192.0.2.9"},
		{"lan", "udp4", "192.0.2.2:8080", "c1 192.0.2.9"},
		{"lan", "tcp4", "198.51.100.2:8080", "c1 192.0.2.9"},
		{"other", "tcp4", "198.51.100.2:8080", "c1 198.51.100.9"},
		{"host", "tcp4", "127.0.0.1:8080", "c1 " + gw},
		{"host", "udp4", "127.0.0.1:8080", "c1 " + gw},
		{"host", "tcp4", "192.0.2.2:8080", "c1 192.0.2.2"},
		{"host", "udp4", "192.0.2.2:8080", "c1 192.0.2.2"},
		{"host", "tcp4", gw + ":8080", "c1 " + gw},
		{"c2", "tcp4", "192.0.2.2:8080", "c1 " + gw},
		{"c2", "udp4", "192.0.2.2:8080", "c1 " + gw},
		{"c2", "tcp4", gw + ":8080", "c1 " + gw},
		{"c1", "tcp4", "192.0.2.2:8080", "c1 " + gw}, // its own published port
		{"c3", "tcp4", "192.0.2.2:8080", "c1 " + gw},
		// published on one address
		{"lan", "tcp4", "192.0.2.2:8082", "c1 192.0.2.9"},
		{"lan", "tcp4", "198.51.100.2:8082", "refused"},
		{"host", "tcp4", "127.0.0.1:8082", "refused"},
		{"host", "tcp4", "192.0.2.2:8082", "c1 192.0.2.2"},
		// published for the host only
		{"host", "tcp4", "127.0.0.1:8081", "c1 " + gw},
		{"host", "udp4", "127.0.0.1:8081", "c1 " + gw},
		{"host", "tcp4", "192.0.2.2:8081", "refused"},
		{"lan", "tcp4", "192.0.2.2:8081", "refused"},
		{"lan", "tcp4", "127.0.0.1:8081", "-"}, // forged
		{"lan", "udp4", "127.0.0.1:8081", "-"},
		{"lan", "tcp4", "127.0.0.1:8080", "-"},
		{"c2", "tcp4", "192.0.2.2:8081", "refused"},
		// not published: containers' own addresses
		{"lan", "tcp4", a1 + ":80", "-"},
		{"lan", "tcp4", a1 + ":83", "-"},
		{"lan", "udp4", a1 + ":83", "-"},
		{"host", "tcp4", a1 + ":83", "c1 " + gw},
		{"c2", "tcp4", a1 + ":83", "c1 " + a2},
		{"c3", "tcp4", a1 + ":83", "-"},
		{"c3", "tcp4", a1 + ":80", "-"},
		// outward
		{"c1", "tcp4", "192.0.2.9:7000", "lan 192.0.2.2"},
		{"c1", "udp4", "198.51.100.9:7000", "other 198.51.100.2"},
		{"c1", "tcp4", gw + ":6000", "host " + a1},
		// an internal network
		{"c4", "tcp4", "192.0.2.9:7000", "-"},
		{"c4", "tcp4", a1 + ":80", "-"},
		{"lan", "tcp4", addr(c4) + ":83", "-"},
		{"host", "tcp4", addr(c4) + ":83", "c4 " + c4Gateway(t, b)},
		// the host did not route between its interfaces before
		{"lan", "tcp4", "198.51.100.9:7000", "-"},
	}
	probe := func(when string) {
		t.Helper()
		for _, p := range table {
			if got := ask(spaces[p.from], p.net, p.to, p.want); got != p.want {
				t.Errorf("%s: %s → %s %s: %q, want %q", when, p.from, p.net, p.to, got, p.want)
			}
		}
	}
	probe("at first")
	if t.Failed() {
		t.Log("\n" + dump())
		return
	}
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err == nil {
		b.asserted(t)
		probe("after a flush")
	} else if !errors.Is(err, exec.ErrNotFound) {
		t.Error(string(out))
	}
	b.reopen(t) // the old daemon has died without a word
	probe("after a restart")
	// What is released is closed.
	b.detach(t, c1.ID)
	for _, to := range []string{"192.0.2.2:8080", "192.0.2.2:8082"} {
		if got := ask(w.lan, "tcp4", to, "refused"); got != "refused" {
			t.Errorf("after detach: %s: %q", to, got)
		}
	}
	b.detach(t, c2.ID)
}

// c4Gateway is the host's address on the internal network.
func c4Gateway(t *testing.T, b *bench) string {
	n, err := b.Inspect(context.Background(), "in")
	if err != nil {
		t.Fatal(err)
	}
	return n.IPAM.Config[0].Gateway.String()
}

func dump() string {
	out, err := exec.Command("sh", "-c", "ip addr; ip route; nft list ruleset").CombinedOutput()
	return string(out) + fmt.Sprint(err)
}

// TestCrash plays a daemon that dies between any two steps: whatever is there
// when the next one opens is adopted or swept.
func TestCrash(t *testing.T) {
	b := open(t, nil)
	ctx := context.Background()
	alive := b.attach(t, AttachRequest{Name: "alive", Mode: "bridge", Ports: published(t, "8080>80/tcp")})
	dead := b.attach(t, AttachRequest{Name: "dead", Mode: "bridge", Ports: published(t, "8081>80/tcp")})
	none := b.attach(t, AttachRequest{Name: "none", Mode: "none"})
	// Record written, nothing made.
	planned, err := b.book.Decide(AttachRequest{ID: id.New(), Name: "planned", Mode: "bridge", Ports: published(t, "8082>80/tcp")})
	if err != nil {
		t.Fatal(err)
	}
	// Made, and the record lost.
	lost := b.attach(t, AttachRequest{Name: "lost", Mode: "bridge", Ports: published(t, "8083>80/tcp")})
	if err := os.Remove(b.opts.RunDir + "/sandbox/" + lost.ID + ".json"); err != nil {
		t.Fatal(err)
	}
	// A record cut short.
	if err := os.WriteFile(b.opts.RunDir+"/sandbox/"+id.New()+".json", []byte(`{"ID":`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.reopen(t)
	strays, err := b.Strays(ctx)
	if err != nil || len(strays) == 0 {
		t.Errorf("strays before the sweep: %v, %v", strays, err)
	}
	if err := b.Reconcile(ctx, []string{alive.ID}); err != nil {
		t.Fatal(err)
	}
	if strays, err := b.Strays(ctx); err != nil || len(strays) != 0 {
		t.Errorf("strays after the sweep: %v, %v", strays, err)
	}
	s, err := b.Sandbox(ctx, alive.ID)
	if err != nil || s.Endpoints[0].IPv4 != alive.Endpoints[0].IPv4 || !kernel.IsNamespace(s.Path) {
		t.Errorf("alive: %+v, %v", s, err)
	}
	for _, gone := range []string{dead.ID, none.ID, planned.ID, lost.ID} {
		if _, err := b.Sandbox(ctx, gone); err == nil {
			t.Errorf("%s still has a sandbox", gone)
		}
	}
	// The address of the living one is not given away, the others' are.
	next := b.attach(t, AttachRequest{Name: "next", Mode: "bridge"})
	if next.Endpoints[0].IPv4.Addr().String() != "172.20.0.3" {
		t.Errorf("next is %v", next.Endpoints[0].IPv4)
	}
	if _, err := b.Attach(ctx, AttachRequest{ID: id.New(), Name: "x", Mode: "bridge", Ports: published(t, "8080>80/tcp")}); err == nil {
		t.Error("the living one's port was given away")
	}
	b.detach(t, alive.ID)
	b.detach(t, next.ID)
	b.clean(t)
}

// TestDatagramsFollow: a flow of datagrams that goes on while a port is
// published, taken away and published by another container reaches whoever has
// the port, over both versions of IP.
func TestDatagramsFollow(t *testing.T) {
	b := open(t, nil)
	lan := machine6(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	yes := true
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "dual", EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	hosts := map[string]string{"192.0.2.2:9000": "192.0.2.9", "[fd99::2]:9000": "fd99::9"}
	flows := map[string]net.Conn{}
	for to := range hosts {
		if err := lan.Do(func() (err error) { flows[to], err = net.Dial("udp", to); return err }); err != nil {
			t.Fatal(err)
		}
		defer flows[to].Close()
	}
	once := func(to string) string {
		c := flows[to]
		c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		io.WriteString(c, "?")
		buf := make([]byte, 50)
		n, err := c.Read(buf)
		if errors.Is(err, unix.ECONNREFUSED) {
			return "refused"
		}
		return string(buf[:n])
	}
	talk := func(to, want string) string { // with patience for a busy machine
		got := once(to)
		for deadline := time.Now().Add(10 * time.Second); got != want && time.Now().Before(deadline); {
			got = once(to)
		}
		return got
	}
	free := func(when string) {
		t.Helper()
		for to := range hosts {
			if got := talk(to, "refused"); got != "refused" {
				t.Errorf("%s: %s %q", when, to, got)
			}
		}
	}
	free("before")
	for _, name := range []string{"c1", "c2"} {
		s := b.attach(t, AttachRequest{Name: name, Mode: "dual", Ports: published(t, "9000>53/udp")})
		serve(t, namespace(t, s), 53, name)
		for to, from := range hosts {
			if got := talk(to, name+" "+from); got != name+" "+from {
				t.Errorf("%s by %s: %q", name, to, got)
			}
		}
		b.detach(t, s.ID)
	}
	free("after")
	b.Settle()
	if err := b.Remove(ctx, "dual"); err != nil {
		t.Error(err)
	}
}

// TestManyPorts: what one more port costs does not depend on how many there are.
func TestManyPorts(t *testing.T) {
	b := open(t, nil)
	m := wire.PortMap{}
	for i := range 1000 {
		m[tcp(t, fmt.Sprintf("%d/tcp", 1000+i))] = []wire.PortBinding{{HostPort: fmt.Sprint(20000 + i)}}
	}
	many := b.attach(t, AttachRequest{Name: "many", Mode: "bridge", Ports: m})
	one := b.attach(t, AttachRequest{Name: "one", Mode: "bridge", Ports: published(t, "8080>80/tcp")})
	serve(t, namespace(t, one), 80, "one")
	if got := ask(nil, "tcp4", "127.0.0.1:8080", "one 172.20.0.1"); got != "one 172.20.0.1" {
		t.Errorf("got %q", got)
	}
	serve(t, namespace(t, many), 1999, "many")
	b.reopen(t)
	if got := ask(nil, "tcp4", "127.0.0.1:20999", "many 172.20.0.1"); got != "many 172.20.0.1" {
		t.Errorf("after a restart: %q", got)
	}
	b.detach(t, many.ID)
	b.detach(t, one.ID)
	b.clean(t)
}
