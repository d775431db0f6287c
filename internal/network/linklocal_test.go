package network

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/network/kernel"
	"gantry/internal/wire"
)

// TestLinkLocalAddresses: an endpoint has the addresses of the link that its user
// gives it, neighbours reach it there, and they are no default for its own.
func TestLinkLocalAddresses(t *testing.T) {
	b := open(t, nil)
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "n1", IPAM: subnet("10.60.0.0/24")}); err != nil {
		t.Fatal(err)
	}
	with := func(list ...string) map[string]*wire.EndpointSettings {
		ipam := &wire.EndpointIPAM{}
		for _, a := range list {
			ipam.LinkLocalIPs = append(ipam.LinkLocalIPs, netip.MustParseAddr(a))
		}
		return map[string]*wire.EndpointSettings{"n1": {IPAMConfig: ipam}}
	}
	one := b.attach(t, AttachRequest{Name: "one", Mode: "n1", Endpoints: with("169.254.7.7", "fe80::77")})
	two := b.attach(t, AttachRequest{Name: "two", Mode: "n1", Endpoints: with("169.254.7.8")})
	serve(t, namespace(t, one), 80, "one")
	if got := ask(namespace(t, two), "tcp4", "169.254.7.7:80", "one 169.254.7.8"); got != "one 169.254.7.8" {
		t.Errorf("at its address of the link it answers %q", got)
	}
	e := one.Endpoints[0]
	if got := ask(namespace(t, two), "tcp4", e.IPv4.Addr().String()+":80", "one "+two.Endpoints[0].IPv4.Addr().String()); !strings.HasSuffix(got, two.Endpoints[0].IPv4.Addr().String()) {
		t.Errorf("at its own address it answers %q", got)
	}
	if got := addresses(t, namespace(t, one)); !strings.Contains(got, "inet 169.254.7.7/16 ") || !strings.Contains(got, "inet6 fe80::77/64 ") {
		t.Errorf("addresses: %s", got)
	}
	for _, a := range []string{"0.0.0.0", "ff02::1", "127.0.0.1"} {
		_, err := b.Attach(ctx, AttachRequest{ID: strings.Repeat("e", 64), Mode: "n1", Endpoints: with(a)})
		if !errs.Is(err, errs.Invalid) || !strings.Contains(fmt.Sprint(err), "invalid link-local IP address: "+a) {
			t.Errorf("%s: %v", a, err)
		}
	}
	b.detach(t, one.ID)
	b.detach(t, two.ID)
	b.Settle()
	if err := b.Remove(ctx, "n1"); err != nil {
		t.Error(err)
	}
}

func addresses(t *testing.T, ns *kernel.Namespace) string {
	t.Helper()
	var out []byte
	if err := ns.Do(func() (err error) {
		out, err = exec.Command("ip", "addr").CombinedOutput()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestReversePathFilters: hosts that check where packets come from (rp_filter=1,
// what many distributions have) serve published ports to all who use them.
func TestReversePathFilters(t *testing.T) {
	b := open(t, nil)
	for _, which := range []string{"default", "all"} {
		key := "net/ipv4/conf/" + which + "/rp_filter"
		old, err := kernel.Sysctl(key)
		if err == nil {
			err = kernel.SetSysctl(key, "1")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer kernel.SetSysctl(key, old)
	}
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	s := b.attach(t, AttachRequest{Name: "served", Mode: "bridge", Ports: published(t, "8080>80/tcp", "127.0.0.1:8081>80/tcp")})
	ns := namespace(t, s)
	serve(t, ns, 80, "served")
	for what, c := range map[string]struct {
		from *kernel.Namespace
		to   string
	}{"LAN": {lan, "192.0.2.2:8080"}, "host": {nil, "192.0.2.2:8080"}, "loopback": {nil, "127.0.0.1:8081"}, "hairpin": {ns, "192.0.2.2:8080"}} {
		if got := knock(c.from, "tcp4", c.to, "served"); got != "served" {
			t.Errorf("%s: %q", what, got)
		}
	}
	b.detach(t, s.ID)
}

// TestBareBridge: with inhibit_ipv4 the gateway's address is left to another
// machine on the bridge, and containers go by it.
func TestBareBridge(t *testing.T) {
	b := open(t, nil)
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "n1", IPAM: subnet("10.60.0.0/24"), Options: map[string]string{
		"com.docker.network.bridge.inhibit_ipv4": "true", "com.docker.network.bridge.name": "bare0"}}); err != nil {
		t.Fatal(err)
	}
	s := b.attach(t, AttachRequest{Name: "one", Mode: "n1"})
	if got, err := b.stage.host.Addresses("bare0"); err != nil || len(got) != 0 {
		t.Errorf("the bridge has %v, %v", got, err)
	}
	if got := routes(t, namespace(t, s)); !strings.Contains(got, "default via 10.60.0.1") {
		t.Errorf("the container's routes are %s", got)
	}
	b.detach(t, s.ID)
	b.Settle()
	if err := b.Remove(ctx, "n1"); err != nil {
		t.Error(err)
	}
}
