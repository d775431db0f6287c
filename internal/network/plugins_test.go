package network

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/plugin"
	"gantry/internal/testkit"
	"gantry/internal/wire"
)

// withPlugin is a bench with the sample plugin under the name "sample".
func withPlugin(t *testing.T) (*bench, *testkit.NetworkPlugin) {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	p := testkit.StartNetworkPlugin(t, filepath.Join(dir, "sample.sock"))
	return open(t, func(o *Options) { o.Plugins = plugin.New(plugin.Options{Sockets: []string{dir}}) }), p
}

func TestNetworkOfAPlugin(t *testing.T) {
	b, p := withPlugin(t)
	ctx := context.Background()
	made, err := b.Create(ctx, wire.NetworkCreate{Name: "far", Driver: "sample", Options: map[string]string{"color": "red"}, IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix("10.66.0.0/24")}}}})
	if err != nil {
		t.Fatal(err)
	}
	if in := p.Body("NetworkDriver.CreateNetwork"); in["NetworkID"] != made.ID || in["Options"].(map[string]any)["com.docker.network.generic"].(map[string]any)["color"] != "red" {
		t.Errorf("CreateNetwork: %v", in)
	}
	one := b.attach(t, AttachRequest{Name: "one", Mode: "far", Ports: published(t, "8080>80/tcp")})
	e := one.Endpoints[0]
	if !strings.HasPrefix(e.MAC, "02:77:"+e.ID[:2]) || e.Interface != "plug0" || e.IPv4.String() != "10.66.0.2/24" || e.Gateway4.String() != "10.66.0.1" {
		t.Errorf("endpoint %+v", e)
	}
	ns := within(t, one)
	serve(t, ns, 80, "hello")
	if mac, err := linkMAC(ns, "plug0"); mac != e.MAC {
		t.Errorf("plug0 has %s, %v", mac, err)
	}
	for _, r := range []string{"default via 10.66.0.1", "198.51.100.0/24 dev plug0", "203.0.113.0/24 via 10.66.0.1"} {
		if got := routes(t, ns); !strings.Contains(got, r) {
			t.Errorf("no route %q in %s", r, got)
		}
	}
	two := b.attach(t, AttachRequest{Name: "two", Mode: "far", Endpoints: map[string]*wire.EndpointSettings{"far": {MacAddress: []byte{2, 0, 0, 0, 0, 9}}}})
	if !reached(nil, e.IPv4) || !reached(within(t, two), e.IPv4) {
		t.Error("the container is not reached")
	}
	if mac, _ := linkMAC(within(t, two), "plug0"); mac != "02:00:00:00:00:09" {
		t.Errorf("a wished hardware address: %s", mac)
	}
	bound, _ := p.Body("NetworkDriver.ProgramExternalConnectivity")["Options"].(map[string]any)["com.docker.network.portmap"].([]any)
	if len(bound) != 1 || bound[0].(map[string]any)["HostPort"] != 8080.0 || bound[0].(map[string]any)["Port"] != 80.0 {
		t.Errorf("ProgramExternalConnectivity: %v", bound)
	}
	b.reopen(t) // the plugin has lived on, and so has the network
	if !reached(nil, e.IPv4) {
		t.Error("the container is not reached after a restart")
	}
	b.detach(t, one.ID)
	b.detach(t, two.ID)
	b.Settle()
	if err := b.Remove(ctx, "far"); err != nil {
		t.Error(err)
	}
	if n := len(slices.DeleteFunc(p.Calls(), func(s string) bool { return s != "NetworkDriver.CreateNetwork" })); n != 1 {
		t.Errorf("the network was made %d times", n)
	}
}

// A container of a bridge joins a plugin's network and leaves it.
func TestNetworkOfAPluginLive(t *testing.T) {
	b, p := withPlugin(t)
	ctx := context.Background()
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "far", Driver: "sample", IPAM: &wire.IPAM{Driver: "sample"}}); err != nil {
		t.Fatal(err)
	}
	r := AttachRequest{ID: strings.Repeat("c", 64), Name: "c"}
	s := b.attach(t, r)
	ns := within(t, s)
	serve(t, ns, 80, "hello")
	s, err := Members{b.Networks}.Connect(ctx, r, "far", nil)
	if err != nil {
		t.Fatal(err)
	}
	if e := s.Endpoints[1]; e.IPv4.String() != "10.77.0.2/24" || !reached(nil, e.IPv4) {
		t.Errorf("endpoint %+v", e)
	}
	if _, err := (Members{b.Networks}).Disconnect(ctx, r, "far"); err != nil {
		t.Fatal(err)
	}
	p.Refuse("NetworkDriver.Join", "no more")
	if _, err := (Members{b.Networks}).Connect(ctx, r, "far", nil); err == nil || !strings.Contains(err.Error(), "no more") {
		t.Errorf("a join that is refused: %v", err)
	}
	b.detach(t, r.ID)
	if _, err := b.Attach(ctx, AttachRequest{ID: strings.Repeat("d", 64), Mode: "far"}); err == nil || !strings.Contains(err.Error(), "no more") {
		t.Errorf("an attach that is refused: %v", err)
	}
	b.Settle()
	if err := b.Remove(ctx, "far"); err != nil {
		t.Error(err)
	}
}

// Addresses of a plugin on a bridge of ours.
func TestAddressesOfAPlugin(t *testing.T) {
	b, p := withPlugin(t)
	ctx := context.Background()
	made, err := b.Create(ctx, wire.NetworkCreate{Name: "n", IPAM: &wire.IPAM{Driver: "sample", Options: map[string]string{"zone": "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	if in := p.Body("IpamDriver.RequestPool"); in["AddressSpace"] != "here" || in["Options"].(map[string]any)["zone"] != "a" {
		t.Errorf("RequestPool: %v", in)
	}
	w, err := b.Inspect(ctx, made.ID)
	if err != nil || w.IPAM.Config[0].Subnet.String() != "10.77.0.0/24" || w.IPAM.Config[0].Gateway.String() != "10.77.0.1" || w.IPAM.Driver != "sample" {
		t.Errorf("%+v, %v", w.IPAM, err)
	}
	one := b.attach(t, AttachRequest{Mode: "n"})
	two := b.attach(t, AttachRequest{Mode: "n", Endpoints: map[string]*wire.EndpointSettings{"n": {IPAMConfig: &wire.EndpointIPAM{IPv4Address: netip.MustParseAddr("10.77.0.9")}}}})
	if a, c := one.Endpoints[0], two.Endpoints[0]; a.IPv4.String() != "10.77.0.2/24" || c.IPv4.String() != "10.77.0.9/24" {
		t.Errorf("addresses %s and %s", a.IPv4, c.IPv4)
	}
	if o := p.Body("IpamDriver.RequestAddress")["Options"].(map[string]any); o["com.docker.network.endpoint.macaddress"] != two.Endpoints[0].MAC {
		t.Errorf("it was told %v, the container has %s", o, two.Endpoints[0].MAC)
	}
	if _, err := b.Attach(ctx, AttachRequest{ID: strings.Repeat("e", 64), Mode: "n", Endpoints: map[string]*wire.EndpointSettings{"n": {IPAMConfig: &wire.EndpointIPAM{IPv4Address: netip.MustParseAddr("10.77.0.9")}}}}); err == nil || !strings.Contains(err.Error(), "address 10.77.0.9 is taken") {
		t.Errorf("an address twice: %v", err)
	}
	serve(t, within(t, one), 80, "hello")
	if !reached(within(t, two), one.Endpoints[0].IPv4) {
		t.Error("containers do not reach each other")
	}
	b.reopen(t)
	b.detach(t, one.ID)
	b.detach(t, two.ID)
	b.Settle()
	if err := b.Remove(ctx, "n"); err != nil {
		t.Error(err)
	}
}

func TestPluginsThatAreNotThere(t *testing.T) {
	b, p := withPlugin(t)
	ctx := context.Background()
	for _, c := range []wire.NetworkCreate{{Name: "x", Driver: "nosuch"}, {Name: "x", IPAM: &wire.IPAM{Driver: "nosuch"}}} {
		if _, err := b.Create(ctx, c); !errs.Is(err, errs.NotFound) || err.Error() != `plugin "nosuch" not found` {
			t.Errorf("%+v: %v", c, err)
		}
	}
	p.Refuse("NetworkDriver.CreateNetwork", "not today")
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "x", Driver: "sample", IPAM: &wire.IPAM{Driver: "sample"}}); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("a network that is refused: %v", err)
	}
	if _, err := b.Inspect(ctx, "x"); !errs.Is(err, errs.NotFound) {
		t.Errorf("it is on the books: %v", err)
	}
}
