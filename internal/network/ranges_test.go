package network

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"gantry/internal/wire"
)

// TestRangeIsOneElement: a whole range of published ports is one element of the
// packet rules for each version of IP, also beside others, after a part of it
// has been taken away, and after a restart.
func TestRangeIsOneElement(t *testing.T) {
	b := open(t, nil)
	lan := machine6(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	yes := true
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "dual", EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	ports := func(from, to int, except ...int) wire.PortMap {
		m := wire.PortMap{}
		for p := from; p <= to; p++ {
			if len(except) == 0 || p != except[0] {
				m[tcp(t, fmt.Sprintf("%d/tcp", p))] = []wire.PortBinding{{HostPort: fmt.Sprint(p)}}
			}
		}
		return m
	}
	elements := func(want ...string) {
		t.Helper()
		for _, m := range []string{"ranges", "ranges6"} {
			out, err := exec.Command("nft", "--numeric-protocol", "list", "map", "inet", "gantry", m).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, w := range want {
				if !strings.Contains(string(out), "6 . "+w+" ") {
					t.Errorf("%s lacks %s:\n%s", m, w, out)
				}
			}
			if got := strings.Count(string(out), "comment"); got != len(want) {
				t.Errorf("%s has %d elements, want %d:\n%s", m, got, len(want), out)
			}
		}
	}
	r := AttachRequest{Name: "a", Mode: "dual", Ports: ports(8000, 8199)}
	s := b.attach(t, r)
	r.ID = s.ID
	other := b.attach(t, AttachRequest{Name: "b", Mode: "dual", Ports: ports(8200, 8299)})
	elements("8000-8199", "8200-8299")
	if n := len(s.Endpoints[0].Ports); n != 200 {
		t.Errorf("%d ports are shown", n)
	}
	for _, p := range []int{8000, 8100, 8199} {
		serve(t, namespace(t, s), p, fmt.Sprint("a", p))
	}
	serve(t, namespace(t, other), 8200, "b8200")
	reach := func(p int, want string) {
		t.Helper()
		for _, at := range []string{"192.0.2.2", "[fd99::2]"} {
			if got := knock(lan, "tcp", fmt.Sprintf("%s:%d", at, p), want); got != want {
				t.Errorf("%s port %d: %q, want %q", at, p, got, want)
			}
		}
	}
	reach(8000, "a8000")
	reach(8100, "a8100")
	reach(8199, "a8199")
	reach(8200, "b8200")
	r.Ports = ports(8000, 8199, 8100)
	if _, err := b.Republish(ctx, r); err != nil {
		t.Fatal(err)
	}
	elements("8000-8099", "8101-8199", "8200-8299")
	reach(8100, "refused")
	reach(8199, "a8199")
	b.reopen(t)
	elements("8000-8099", "8101-8199", "8200-8299")
	if strays, err := b.Strays(ctx); err != nil || len(strays) > 0 {
		t.Errorf("strays: %v %v", strays, err)
	}
	b.detach(t, s.ID)
	elements("8200-8299")
	reach(8200, "b8200")
	b.detach(t, other.ID)
	b.Settle()
	if err := b.Remove(ctx, "dual"); err != nil {
		t.Error(err)
	}
}

// TestRangeAtAddress: a range at one address of the host is one element, too, and
// so are the ports of a range that are opened in a routed network.
func TestRangeAtAddress(t *testing.T) {
	b := open(t, nil)
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	routed := map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "routed"}
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "routed", Options: routed}); err != nil {
		t.Fatal(err)
	}
	ports := func(at string, n int) wire.PortMap {
		var specs []string
		for p := 8000; p < 8000+n; p++ {
			specs = append(specs, fmt.Sprintf("%s%d>%d/tcp", at, p, p))
		}
		return published(t, specs...)
	}
	r := AttachRequest{Name: "served", Mode: "bridge", Ports: ports("192.0.2.2:", 100)}
	s := b.attach(t, r)
	r.ID = s.ID
	open := b.attach(t, AttachRequest{Name: "opened", Mode: "routed", Ports: ports("", 100)})
	element := func(kind, name, want string) {
		t.Helper()
		out, err := exec.Command("nft", "--numeric-protocol", "list", kind, "inet", "gantry", name).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || strings.Count(string(out), "comment") != 1 {
			t.Errorf("%v: want %s:\n%s", err, want, out)
		}
	}
	own := open.Endpoints[0].IPv4.Addr().String()
	for _, p := range []int{8000, 8099} {
		serve(t, namespace(t, s), p, fmt.Sprint("s", p))
		serve(t, namespace(t, open), p, fmt.Sprint("o", p))
	}
	reach := func(when string, last int) {
		t.Helper()
		element("map", "ranges_at", fmt.Sprintf("192.0.2.2 . 6 . 8000-%d ", last))
		element("set", "opened_ranges", own+" . 6 . 8000-8099 ")
		for _, x := range [][2]string{{"192.0.2.2:8000", "s8000"}, {own + ":8099", "o8099"}} {
			if got := knock(lan, "tcp", x[0], x[1]); got != x[1] {
				t.Errorf("%s: %s: %q, want %q\n%s", when, x[0], got, x[1], dump())
			}
		}
	}
	reach("at first", 8099)
	if got := knock(nil, "tcp", "127.0.0.1:8000", "refused"); got != "refused" {
		t.Errorf("at another address: %q", got)
	}
	r.Ports = ports("192.0.2.2:", 50)
	if _, err := b.Republish(ctx, r); err != nil {
		t.Fatal(err)
	}
	reach("shortened", 8049)
	if got := knock(lan, "tcp", "192.0.2.2:8099", "refused"); got != "refused" {
		t.Errorf("taken back: %q", got)
	}
	b.reopen(t)
	reach("after a restart", 8049)
	if strays, err := b.Strays(ctx); err != nil || len(strays) > 0 {
		t.Errorf("strays: %v %v", strays, err)
	}
	b.detach(t, s.ID)
	b.detach(t, open.ID)
	b.Settle()
	if err := b.Remove(ctx, "routed"); err != nil {
		t.Error(err)
	}
}
