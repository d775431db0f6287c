package network

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/id"
	"gantry/internal/network/nat"
	"gantry/internal/wire"
)

// ports makes a port map: "80/tcp=18080", "81/tcp=".
func portMap(t *testing.T, list ...string) wire.PortMap {
	t.Helper()
	m := wire.PortMap{}
	for _, s := range list {
		p, host, _ := strings.Cut(s, "=")
		m[tcp(t, p)] = append(m[tcp(t, p)], wire.PortBinding{HostPort: host})
	}
	return m
}

// rules are the published ports in the kernel.
func (b *bench) rules(t *testing.T) string {
	t.Helper()
	ps, err := b.stage.bridge.Published()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(ps, func(a, b nat.Port) int { return strings.Compare(a.String(), b.String()) })
	var out []string
	for _, p := range ps {
		out = append(out, fmt.Sprintf("%d/%s>%d", p.HostPort, p.Proto, p.Container.Port()))
	}
	return strings.Join(out, " ")
}

func TestRepublish(t *testing.T) {
	b := open(t, nil)
	ctx := context.Background()
	one, two := id.New(), id.New()
	b.attach(t, AttachRequest{ID: one, Name: "one", Mode: "bridge", Ports: portMap(t, "80/tcp=18080", "81/tcp=")})
	b.attach(t, AttachRequest{ID: two, Name: "two", Mode: "bridge", Ports: portMap(t, "80/tcp=18090")})
	s, err := b.Sandbox(ctx, one)
	if err != nil {
		t.Fatal(err)
	}
	chosen := s.Endpoints[0].Ports[tcp(t, "81/tcp")][0].HostPort
	republish := func(list ...string) error {
		t.Helper()
		r := AttachRequest{ID: one, Name: "one", Mode: "bridge", Ports: portMap(t, list...), Exposed: wire.PortSet{tcp(t, "99/udp"): {}}}
		got, err := b.Republish(ctx, r)
		if err == nil {
			now, _ := b.Sandbox(ctx, one)
			if fmt.Sprint(got.Endpoints[0].Ports) != fmt.Sprint(now.Endpoints[0].Ports) {
				t.Errorf("returned %v, there is %v", got.Endpoints[0].Ports, now.Endpoints[0].Ports)
			}
			if bs, ok := got.Endpoints[0].Ports[tcp(t, "99/udp")]; !ok || bs != nil {
				t.Error("the exposed port is missing")
			}
		}
		return err
	}
	for _, c := range []struct {
		ports []string
		want  string
		err   string
	}{
		{[]string{"80/tcp=18080", "81/tcp="}, "18080/tcp>80 18090/tcp>80 CHOSEN/tcp>81", ""},                                // nothing changes
		{[]string{"80/tcp=18080", "81/tcp=", "53/udp=18053"}, "18053/udp>53 18080/tcp>80 18090/tcp>80 CHOSEN/tcp>81", ""},   // one more
		{[]string{"80/tcp=18090", "81/tcp="}, "18053/udp>53 18080/tcp>80 18090/tcp>80 CHOSEN/tcp>81", "is already allocat"}, // another's
		{[]string{"81/tcp=18080", "80/tcp=18070-18072"}, "18070/tcp>80 18080/tcp>81 18090/tcp>80", ""},                      // handed on
		{[]string{"80/tcp=18070", "80/tcp=18071"}, "18070/tcp>80 18071/tcp>80 18090/tcp>80", ""},                            // two for one
		{nil, "18090/tcp>80", ""},
		{[]string{"80/tcp=18080"}, "18080/tcp>80 18090/tcp>80", ""},
	} {
		err := republish(c.ports...)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v: %v", c.ports, err)
		}
		if got, want := b.rules(t), strings.ReplaceAll(c.want, "CHOSEN", chosen); got != want {
			t.Errorf("%v: %s, want %s", c.ports, got, want)
		}
		if strays, err := b.Strays(ctx); err != nil || len(strays) > 0 {
			t.Errorf("%v: strays %v %v", c.ports, strays, err)
		}
		// What a daemon that comes now would find.
		b.reopen(t)
		if got, want := b.rules(t), strings.ReplaceAll(c.want, "CHOSEN", chosen); got != want {
			t.Errorf("%v: %s after a restart, want %s", c.ports, got, want)
		}
	}
	// Every other host port is free again.
	b.attach(t, AttachRequest{Name: "three", Mode: "bridge", Ports: portMap(t, "1/tcp=18070", "2/tcp=18071", "3/udp=18053", "4/tcp="+chosen)})
	if _, err := b.Republish(ctx, AttachRequest{ID: id.New()}); !errs.Is(err, errs.NotFound) {
		t.Errorf("no sandbox: %v", err)
	}
	for _, e := range b.book.Entries() {
		b.detach(t, e.ID)
	}
}

// TestRepublishWithoutTable: somebody has flushed the packet rules.
func TestRepublishWithoutTable(t *testing.T) {
	b := open(t, nil)
	s := b.attach(t, AttachRequest{Name: "one", Mode: "bridge", Ports: portMap(t, "80/tcp=18080", "81/tcp=18081")})
	rules, err := nat.Open(b.opts.table())
	if err != nil {
		t.Fatal(err)
	}
	defer rules.Close()
	if err := rules.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Republish(context.Background(), AttachRequest{ID: s.ID, Name: "one", Mode: "bridge", Ports: portMap(t, "80/tcp=18080", "82/tcp=18082")}); err != nil {
		t.Fatal(err)
	}
	if got := b.rules(t); got != "18080/tcp>80 18082/tcp>82" {
		t.Error(got)
	}
	b.detach(t, s.ID)
}
