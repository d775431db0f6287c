package network

import (
	"net/netip"
	"os/exec"
	"testing"

	"gantry/internal/network/kernel"
	"gantry/internal/wire"
)

// TestDirectRouting is who reaches the containers' own addresses: published ports
// of all networks with DirectRouting, of one network from its trusted interfaces,
// every port with a mark, and nothing else.
func TestDirectRouting(t *testing.T) {
	b := open(t, func(o *Options) { o.DirectRouting = true })
	lan := machine6(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	other := machine(t, "other", "198.51.100.2/24", "198.51.100.9/24")
	yes := true
	for _, c := range []wire.NetworkCreate{
		{Name: "dual", EnableIPv6: &yes, Options: map[string]string{"com.docker.network.bridge.trusted_host_interfaces": "wg9:up-lan"}},
		{Name: "inner", Internal: true},
	} {
		if _, err := b.Create(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	s := b.attach(t, AttachRequest{Name: "served", Mode: "dual", Ports: published(t, "127.0.0.1:8080>80/tcp", "127.0.0.1:8090>80/tcp", "127.0.0.1:8081>81/udp", "8085>80/tcp")})
	beside := b.attach(t, AttachRequest{Name: "near", Mode: "bridge"})
	inner := b.attach(t, AttachRequest{Name: "inner", Mode: "inner", Ports: published(t, "8083>80/tcp")})
	for _, p := range []int{80, 81, 83} {
		serve(t, namespace(t, s), p, "s")
		serve(t, namespace(t, inner), p, "inner")
	}
	four, six := s.Endpoints[0].IPv4.Addr().String(), "["+s.Endpoints[0].IPv6.Addr().String()+"]"
	at := inner.Endpoints[0].IPv4.Addr().String()
	type row struct {
		from        string
		ns          *kernel.Namespace
		network, to string
		want        string
	}
	rows := func(when string, list ...row) {
		t.Helper()
		for _, r := range list {
			if got := knock(r.ns, r.network, r.to, r.want); got != r.want {
				t.Errorf("%s: %s → %s %s: %q, want %q\n%s", when, r.from, r.network, r.to, got, r.want, dump())
			}
		}
	}
	always := []row{
		{"lan", lan, "tcp4", four + ":80", "s"},
		{"lan", lan, "udp4", four + ":81", "s"},
		{"lan", lan, "tcp6", six + ":80", "s"},
		{"lan", lan, "tcp4", four + ":81", "-"}, // published for datagrams
		{"lan", lan, "tcp4", four + ":83", "-"},
		{"lan", lan, "tcp6", six + ":83", "-"},
		{"lan", lan, "tcp4", at + ":80", "-"}, // internal
		{"lan", lan, "tcp4", "192.0.2.2:8080", "refused"},
		{"another network", namespace(t, beside), "tcp4", four + ":80", "-"},
	}
	rows("direct", append(always, row{"other", other, "tcp4", four + ":80", "s"})...)
	if a, err := Why(b.Networks, s.ID, "80/tcp", netip.MustParseAddr("198.51.100.9")); err != nil || !a.Reachable {
		t.Errorf("why: %+v %v", a, err)
	}
	// What is taken back is closed, and what comes is open.
	r := AttachRequest{ID: s.ID, Name: "served", Mode: "dual", Ports: published(t, "127.0.0.1:8083>83/tcp")}
	if _, err := b.Republish(ctx, r); err != nil {
		t.Fatal(err)
	}
	rows("republished", row{"other", other, "tcp4", four + ":80", "-"}, row{"other", other, "tcp4", four + ":83", "s"})
	r.Ports = published(t, "127.0.0.1:8080>80/tcp", "127.0.0.1:8090>80/tcp", "127.0.0.1:8081>81/udp", "8085>80/tcp")
	if _, err := b.Republish(ctx, r); err != nil {
		t.Fatal(err)
	}
	// The next daemon does not allow it: who is trusted still gets through.
	b.opts.DirectRouting, b.opts.AcceptMark = false, Mark{Value: 1, Mask: 1}
	b.reopen(t)
	rows("trusted", append(always, row{"other", other, "tcp4", four + ":80", "-"})...)
	if out, err := exec.Command("nft", "add table ip user; add chain ip user tag { type filter hook prerouting priority -200; }; "+
		"add rule ip user tag iifname up-other meta mark set 3").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("nft", "delete", "table", "ip", "user").Run() })
	rows("marked", row{"other", other, "tcp4", four + ":80", "s"}, row{"other", other, "tcp4", four + ":83", "s"}, row{"lan", lan, "tcp4", four + ":83", "-"},
		row{"other", other, "tcp4", at + ":80", "-"})
	if strays, err := b.Strays(ctx); err != nil || len(strays) > 0 {
		t.Errorf("strays: %v %v", strays, err)
	}
	for _, s := range []*Sandbox{s, beside, inner} {
		b.detach(t, s.ID)
	}
	b.Settle()
	for _, n := range []string{"dual", "inner"} {
		if err := b.Remove(ctx, n); err != nil {
			t.Error(err)
		}
	}
	b.clean(t)
}
