package network

import (
	"context"
	"net/netip"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

func TestConfigurationNetworks(t *testing.T) {
	b := open(t, nil)
	ctx := context.Background()
	if _, err := b.Create(ctx, wire.NetworkCreate{
		Name: "conf", ConfigOnly: true, Labels: map[string]string{"a": "b"}, Options: map[string]string{"com.docker.network.driver.mtu": "1400"},
		IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix("10.90.0.0/24")}}},
	}); err != nil {
		t.Fatal(err)
	}
	from := &wire.ConfigReference{Network: "conf"}
	for _, c := range []struct {
		wire.NetworkCreate
		want string
		kind errs.Kind
	}{
		{wire.NetworkCreate{Name: "x", ConfigFrom: &wire.ConfigReference{Network: "nosuch"}}, `configuration network "nosuch" does not exist`, errs.NotFound},
		{wire.NetworkCreate{Name: "x", ConfigFrom: &wire.ConfigReference{Network: "bridge"}}, `configuration network "bridge" does not exist`, errs.NotFound},
		{wire.NetworkCreate{Name: "x", ConfigFrom: from, ConfigOnly: true}, "a configuration network cannot depend on another configuration network", errs.Denied},
		{wire.NetworkCreate{Name: "x", ConfigFrom: from, Labels: map[string]string{"c": "d"}}, "user specified configurations are not supported if the network depends on a configuration network", errs.Denied},
		{wire.NetworkCreate{Name: "x", ConfigFrom: from, Options: map[string]string{"c": "d"}}, "network driver options are not supported if the network depends on a configuration network", errs.Denied},
		{wire.NetworkCreate{Name: "x", ConfigOnly: true, Internal: true}, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.", errs.Denied},
	} {
		if _, err := b.Create(ctx, c.NetworkCreate); err == nil || err.Error() != c.want || !errs.Is(err, c.kind) {
			t.Errorf("%+v: %v", c.NetworkCreate, err)
		}
	}
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "real", ConfigFrom: from}); err != nil {
		t.Fatal(err)
	}
	w, err := b.Inspect(ctx, "real")
	if err != nil || w.Labels["a"] != "b" || w.Options["com.docker.network.driver.mtu"] != "1400" || w.ConfigFrom.Network != "conf" || w.ConfigOnly || w.Driver != "bridge" {
		t.Errorf("%+v, %v", w, err)
	}
	if c, err := b.Inspect(ctx, "conf"); err != nil || !c.ConfigOnly || c.Driver != "null" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := b.Attach(ctx, AttachRequest{ID: "f", Mode: "conf"}); !errs.Is(err, errs.Denied) {
		t.Errorf("a container on a configuration: %v", err)
	}
	s := b.attach(t, AttachRequest{Mode: "real"})
	if got := s.Endpoints[0].IPv4.String(); got != "10.90.0.2/24" {
		t.Errorf("address %s", got)
	}
	b.detach(t, s.ID)
	if err := b.Remove(ctx, "conf"); !errs.Is(err, errs.Denied) {
		t.Errorf("a configuration in use: %v", err)
	}
	b.Settle()
	for _, n := range []string{"real", "conf"} {
		if err := b.Remove(ctx, n); err != nil {
			t.Error(err)
		}
	}
}

func TestSeveralSubnetsOnABridge(t *testing.T) {
	b := open(t, nil)
	_, err := b.Create(context.Background(), wire.NetworkCreate{Name: "x", IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix("10.90.0.0/24")}, {Subnet: netip.MustParsePrefix("10.91.0.0/24")}}}})
	if !errs.Is(err, errs.Denied) || err.Error() != "bridge driver doesn't support multiple subnets" {
		t.Error(err)
	}
}
