package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/id"
	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
	"gantry/internal/wire"
)

var ctx = context.Background()

func subnet(s string) *wire.IPAM {
	return &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix(s)}}}
}

func TestCreateErrors(t *testing.T) { // texts of spec/wire/61 and 63
	b := open(t, nil)
	no := false
	n1, err := b.Create(ctx, wire.NetworkCreate{Name: "n1", IPAM: subnet("10.50.0.0/24"), Options: map[string]string{"com.docker.network.bridge.name": "br-rec"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		req  wire.NetworkCreate
		kind errs.Kind
		want string
	}{
		{wire.NetworkCreate{Name: "n1"}, errs.Conflict, "network with name n1 already exists"},
		{wire.NetworkCreate{}, errs.Invalid, "invalid name: name is empty"},
		{wire.NetworkCreate{Name: "bridge"}, errs.Denied, "operation is not permitted on predefined bridge network "},
		{wire.NetworkCreate{Name: "default"}, errs.Denied, "operation is not permitted on predefined default network "},
		{wire.NetworkCreate{Name: "e", Driver: "host"}, errs.Denied, `only one instance of "host" network is allowed`},
		{wire.NetworkCreate{Name: "e", Driver: "nosuch"}, errs.NotFound, `plugin "nosuch" not found`},
		{wire.NetworkCreate{Name: "e", IPAM: &wire.IPAM{Driver: "nosuch"}}, errs.NotFound, `plugin "nosuch" not found`},
		{wire.NetworkCreate{Name: "e", IPAM: subnet("10.50.0.0/16")}, errs.Denied, "invalid pool request: Pool overlaps with other one on this address space"},
		{wire.NetworkCreate{Name: "e", IPAM: subnet("10.51.0.5/24")}, errs.Invalid, "invalid network config:\ninvalid subnet 10.51.0.5/24: it should be 10.51.0.0/24"},
		{wire.NetworkCreate{Name: "e", EnableIPv4: &no}, errs.Invalid, "IPv4 or IPv6 must be enabled"},
		{wire.NetworkCreate{Name: "e", Options: map[string]string{"com.docker.network.driver.mtu": "x"}}, errs.Invalid, `failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing "x": invalid syntax)`},
	} {
		_, err := b.Create(ctx, c.req)
		if fmt.Sprint(err) != c.want || !errs.Is(err, c.kind) {
			t.Errorf("%+v: %v (%v)\nwant %s (%v)", c.req, err, errs.KindOf(err), c.want, c.kind)
		}
	}
	_, err = b.Create(ctx, wire.NetworkCreate{Name: "e19", Options: map[string]string{"com.docker.network.bridge.name": "br-rec"}})
	if !errs.Is(err, errs.Denied) || !strings.HasSuffix(err.Error(), "conflicts with network "+n1.ID+" (br-rec): networks have same bridge name") {
		t.Error(err)
	}
	for ref, want := range map[string]string{"bridge": "bridge is a pre-defined network and cannot be removed", "nosuch": "network nosuch not found"} {
		if err := b.Remove(ctx, ref); fmt.Sprint(err) != want {
			t.Errorf("remove %s: %v", ref, err)
		}
	}
	if err := b.Remove(ctx, "n1"); err != nil {
		t.Error(err)
	}
}

func TestListFilters(t *testing.T) { // spec/wire/62
	b := open(t, nil)
	for _, c := range []wire.NetworkCreate{{Name: "n1", Labels: map[string]string{"a": "b"}}, {Name: "n10", Internal: true}} {
		if _, err := b.Create(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	s := b.attach(t, AttachRequest{Name: "c1", Mode: "n1"})
	for _, c := range []struct{ filters, want string }{
		{``, "host none bridge n1 n10"},
		{`{"name":["n1"]}`, "n1 n10"}, {`{"name":["^n1$"]}`, "n1"}, {`{"driver":["bridge"]}`, "bridge n1 n10"}, {`{"driver":["nosuch"]}`, ""},
		{`{"type":["custom"]}`, "n1 n10"}, {`{"type":["builtin"]}`, "host none bridge"}, {`{"type":["x"]}`, "invalid filter: 'type'='x'"},
		{`{"scope":["x"]}`, ""}, {`{"label":["a"]}`, "n1"}, {`{"label":["a=b"]}`, "n1"}, {`{"dangling":["true"]}`, "n10"}, {`{"dangling":["false"]}`, "host none bridge n1"},
		{`{"dangling":["x"]}`, `invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`}, {`{"bogus":["x"]}`, "invalid filter 'bogus'"},
		{`{"name":["n1"],"driver":["null"]}`, ""},
	} {
		f, err := filter.Parse(c.filters)
		if err != nil {
			t.Fatal(err)
		}
		l, err := b.List(ctx, f)
		var names []string
		for _, n := range l {
			names = append(names, n.Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.filters, got, c.want)
		}
	}
	n1, err := b.Inspect(ctx, "n1")
	if err != nil || n1.Containers[s.ID].Name != "c1" {
		t.Errorf("%+v, %v", n1, err)
	}
	if n, err := b.Inspect(ctx, n1.ID[:12]); err != nil || n.ID != n1.ID {
		t.Error("by prefix:", err)
	}
	if _, err := b.Inspect(ctx, "N1"); fmt.Sprint(err) != "network N1 not found" {
		t.Error(err)
	}
	if err := b.Remove(ctx, "n1"); !errs.Is(err, errs.Denied) || err.Error() != fmt.Sprintf("error while removing network: network n1 has active endpoints (name:%q id:%q)", "c1", id.Short(s.Endpoints[0].ID)) {
		t.Error(err)
	}
	b.detach(t, s.ID)
	if r, err := b.Prune(ctx, filter.Args{}.With("until", "1h")); err != nil || len(r.NetworksDeleted) != 0 {
		t.Errorf("prune of the old: %v, %v", r, err)
	}
	if r, err := b.Prune(ctx, nil); err != nil || strings.Join(r.NetworksDeleted, " ") != "n1 n10" {
		t.Errorf("prune: %v, %v", r, err)
	}
}

func TestConnect(t *testing.T) { // spec/wire/63
	b := open(t, nil)
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "n1", IPAM: subnet("10.60.0.0/24")}); err != nil {
		t.Fatal(err)
	}
	c1 := b.attach(t, AttachRequest{Name: "c1", Mode: "bridge"})
	c2 := b.attach(t, AttachRequest{Name: "c2", Mode: "bridge"})
	h1 := b.attach(t, AttachRequest{Name: "h1", Mode: "host"})
	want77 := &wire.EndpointSettings{IPAMConfig: &wire.EndpointIPAM{IPv4Address: netip.MustParseAddr("10.60.0.77")}}
	m := Members{b.Networks}
	by := func(s *Sandbox) AttachRequest { return AttachRequest{ID: s.ID} }
	now, err := m.Connect(ctx, by(c1), "n1", want77)
	if err != nil || len(now.Endpoints) != 2 {
		t.Fatalf("%+v, %v", now, err)
	}
	e := now.Endpoints[1]
	if err != nil || e.IPv4.String() != "10.60.0.77/24" || e.Interface != "eth1" || e.Gateway4.String() != "10.60.0.1" {
		t.Fatalf("%+v, %v", e, err)
	}
	serve(t, namespace(t, c1), 80, "c1")
	if got := ask(nil, "tcp4", "10.60.0.77:80", "c1 10.60.0.1"); got != "c1 10.60.0.1" {
		t.Errorf("a connected container answers %q", got)
	}
	outside := &wire.EndpointSettings{IPAMConfig: &wire.EndpointIPAM{IPv4Address: netip.MustParseAddr("10.61.0.77")}}
	for _, c := range []struct {
		ref, container string
		settings       *wire.EndpointSettings
		kind           errs.Kind
		want           string
	}{
		{"n1", c1.ID, nil, errs.Denied, "endpoint with name c1 already exists in network n1"},
		{"n1", c2.ID, want77, errs.Denied, "Address already in use"},
		{"n1", c2.ID, outside, errs.Invalid, "invalid endpoint settings:\nno configured subnet contains IP address 10.61.0.77"},
		{"bridge", c2.ID, nil, errs.Denied, "endpoint with name c2 already exists in network bridge"},
		{"host", c1.ID, nil, errs.Invalid, "cannot connect container to host network - container must be created in host network mode"},
		{"none", c1.ID, nil, errs.Invalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode"},
		{"n1", h1.ID, nil, errs.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network"},
		{"nosuch", c1.ID, nil, errs.NotFound, "network nosuch not found"},
	} {
		_, err := m.Connect(ctx, AttachRequest{ID: c.container}, c.ref, c.settings)
		if fmt.Sprint(err) != c.want || !errs.Is(err, c.kind) {
			t.Errorf("%s %s: %v (%v)\nwant %s", c.ref, c.container[:4], err, errs.KindOf(err), c.want)
		}
	}
	b.reopen(t) // the second endpoint survives the daemon
	m = Members{b.Networks}
	if s, err := b.Sandbox(ctx, c1.ID); err != nil || len(s.Endpoints) != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := m.Disconnect(ctx, by(c1), "n1"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Disconnect(ctx, by(c1), "n1"); fmt.Sprint(err) != "container "+c1.ID+" is not connected to network n1" {
		t.Error(err)
	}
	if got := ask(nil, "tcp4", "10.60.0.77:80", "-"); got != "-" {
		t.Errorf("a disconnected container answers %q", got)
	}
	if err := b.Remove(ctx, "n1"); err != nil {
		t.Error(err)
	}
	for _, s := range []*Sandbox{c1, c2, h1} {
		b.detach(t, s.ID)
	}
	b.clean(t)
}

func namespace(t *testing.T, s *Sandbox) *kernel.Namespace {
	t.Helper()
	ns, err := kernel.OpenNamespace(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	return ns
}

func TestIsolated(t *testing.T) {
	b := open(t, func(o *Options) { o.IsolateDefault = true; o.Subnet = netip.MustParsePrefix("10.9.8.7/24") })
	c1 := b.attach(t, AttachRequest{Name: "c1", Mode: "bridge", Ports: published(t, "8080>80/tcp")})
	c2 := b.attach(t, AttachRequest{Name: "c2", Mode: "bridge"})
	if c1.Endpoints[0].Gateway4.String() != "10.9.8.7" || c1.Endpoints[0].IPv4.String() != "10.9.8.1/24" {
		t.Errorf("%+v", c1.Endpoints[0])
	}
	serve(t, namespace(t, c1), 80, "c1")
	if got := ask(namespace(t, c2), "tcp4", "10.9.8.1:80", "-"); got != "-" {
		t.Errorf("an isolated neighbour answers %q", got)
	}
	if got := ask(nil, "tcp4", "10.9.8.7:8080", "c1 10.9.8.7"); got != "c1 10.9.8.7" {
		t.Errorf("its published port answers %q", got)
	}
}

// TestLinkedThoughIsolated: a link opens the exposed ports of the other, in one
// direction and over both versions of IP, as long as both are there and it is.
func TestLinkedThoughIsolated(t *testing.T) {
	b := open(t, func(o *Options) {
		o.IsolateDefault, o.IPv6 = true, true
		o.Subnet, o.Subnet6 = netip.MustParsePrefix("10.9.8.7/24"), netip.MustParsePrefix("fd98::7/64")
	})
	db := b.attach(t, AttachRequest{Name: "db", Mode: "bridge"})
	r := AttachRequest{Name: "web", Mode: "bridge", Reaches: Reaches{db.ID: {tcp(t, "80"): {}}}}
	web := b.attach(t, r)
	r.ID = web.ID
	other := b.attach(t, AttachRequest{Name: "other", Mode: "bridge"})
	for _, port := range []int{80, 81} {
		serve(t, namespace(t, db), port, "db")
		serve(t, namespace(t, web), port, "web")
	}
	check := func(when string, s, to *Sandbox, port, want string) {
		t.Helper()
		for _, x := range []struct {
			network string
			of      func(*Sandbox) netip.Addr
		}{
			{"tcp4", func(s *Sandbox) netip.Addr { return s.Endpoints[0].IPv4.Addr() }},
			{"tcp6", func(s *Sandbox) netip.Addr { return s.Endpoints[0].IPv6.Addr() }},
		} {
			want := want
			if want != "-" {
				want += " " + x.of(s).String()
			}
			if got := ask(namespace(t, s), x.network, net.JoinHostPort(x.of(to).String(), port), want); got != want {
				t.Errorf("%s, %s: %q answers, want %q", when, x.network, got, want)
			}
		}
	}
	check("linked", web, db, "80", "db")
	check("linked, once more", web, db, "80", "db") // no redirect has come
	check("another port", web, db, "81", "-")
	check("the other way", db, web, "80", "-")
	check("not linked", other, db, "80", "-")
	b.detach(t, other.ID)
	b.Settle()
	// The next daemon knows it from the books.
	b.reopen(t)
	check("after the daemon's return", web, db, "80", "db")
	// Without the link what is under way ends, too; with it again it goes on.
	var c net.Conn
	if err := namespace(t, db).Do(func() error { return echo(t, "[::]:82") }); err != nil {
		t.Fatal(err)
	}
	linked, unlinked := r, r
	linked.Reaches, unlinked.Reaches = Reaches{db.ID: {tcp(t, "80"): {}, tcp(t, "82"): {}}}, nil
	republish := func(r AttachRequest) {
		t.Helper()
		if _, err := b.Republish(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	republish(linked)
	if err := namespace(t, web).Do(func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(db.Endpoints[0].IPv6.Addr().String(), "82"), 10*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	said := func(within time.Duration) bool {
		t.Helper()
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(within))
		n, err := c.Read(make([]byte, 10))
		return err == nil && n > 0
	}
	if !said(10 * time.Second) {
		t.Error("nothing comes back over the link")
	}
	republish(unlinked)
	check("the link has gone", web, db, "80", "-")
	if said(300 * time.Millisecond) {
		t.Error("what was under way goes on without the link")
	}
	b.reopen(t)
	check("the link has gone for the next daemon, too", web, db, "80", "-")
	republish(linked)
	check("linked again", web, db, "80", "db")
	b.detach(t, db.ID)
	check("the other has gone", web, db, "80", "-")
	b.detach(t, web.ID)
	b.clean(t)
}

// echo sends back what comes, on every connection.
func echo(t *testing.T, at string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	return nil
}

func TestHostFiles(t *testing.T) { // spec/cli/01-run.txt
	b := open(t, nil)
	c := b.attach(t, AttachRequest{Name: "c", Mode: "default"})
	h := HostFiles{Hostname: id.Short(c.ID), ExtraHosts: []string{"a:1.2.3.4", "h:host-gateway"}, DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")}}
	hosts, resolv, err := b.HostFiles(ctx, c, h)
	if err != nil || !strings.HasSuffix(string(hosts), "ff02::2\tip6-allrouters\n1.2.3.4\ta\n172.20.0.1\th\n172.20.0.2\t"+id.Short(c.ID)+"\n") {
		t.Errorf("%s %v", hosts, err)
	}
	if !strings.Contains(string(resolv), "\nnameserver 9.9.9.9\n") || !strings.HasPrefix(string(resolv), "# Generated by Gantry.\n") {
		t.Errorf("%s", resolv)
	}
	n := b.attach(t, AttachRequest{Name: "n", Mode: "none"})
	if hosts, _, err := b.HostFiles(ctx, n, HostFiles{Hostname: "n"}); err != nil || strings.Contains(string(hosts), "\tn\n") {
		t.Errorf("none: %s %v", hosts, err)
	}
	g := b.attach(t, AttachRequest{Name: "g", Mode: "container:" + c.ID, SharedWith: c.ID})
	if _, _, err := b.HostFiles(ctx, g, h); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a guest: %v", err)
	}
	if _, _, err := b.HostFiles(ctx, &Sandbox{ID: id.New()}, h); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
}

func TestWarnings(t *testing.T) {
	b := open(t, nil)
	if w, err := b.Warnings(ctx); err != nil || len(w) != 0 {
		t.Errorf("%q, %v", w, err)
	}
	out, err := exec.Command("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return // nobody else can make such a chain here
	}
	if err != nil {
		t.Fatal(string(out))
	}
	defer exec.Command("nft", "delete", "table", "ip", "filter").Run()
	if w, err := b.Warnings(ctx); err != nil || len(w) != 1 || !strings.Contains(w[0], "filter/FORWARD") {
		t.Errorf("%q, %v", w, err)
	}
}

// The default network avoids what the host has routes to, also those that came
// after it was chosen.
func TestSubnetAvoidsRoutes(t *testing.T) {
	restore := routeAway(t)
	b := open(t, nil)
	r, err := b.book.Find(ledger.Bridge)
	if err != nil || r.Plan().Subnet.String() != "172.21.0.0/16" {
		t.Errorf("%v %v", r.Plan().Subnet, err)
	}
	restore()
	b.reopen(t)
	if r, _ := b.book.Find(ledger.Bridge); r.Plan().Subnet.String() != "172.21.0.0/16" {
		t.Errorf("moved to %v for no reason", r.Plan().Subnet)
	}
}

// Two daemons of one host that both start before either has a container do not
// end up with the same subnet.
func TestTwoDaemons(t *testing.T) {
	a := open(t, nil)
	b := open(t, func(o *Options) { o.Bridge, o.Instance = "", "two" })
	x := a.attach(t, AttachRequest{Name: "a", Mode: "bridge", Ports: published(t, "8080>80/tcp")})
	y := b.attach(t, AttachRequest{Name: "b", Mode: "bridge", Ports: published(t, "8081>80/tcp")})
	if got := fmt.Sprint(x.Endpoints[0].IPv4, y.Endpoints[0].IPv4); got != "172.20.0.2/16 172.21.0.2/16" {
		t.Error(got)
	}
	serve(t, namespace(t, x), 80, "a")
	serve(t, namespace(t, y), 80, "b")
	for to, want := range map[string]string{"8080": "a 172.20.0.1", "8081": "b 172.21.0.1"} {
		if got := ask(nil, "tcp4", "127.0.0.1:"+to, want); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
	if got := ask(namespace(t, y), "tcp4", x.Endpoints[0].IPv4.Addr().String()+":80", "-"); got != "-" {
		t.Errorf("a container reaches the other daemon's: %q", got)
	}
	a.detach(t, x.ID)
	b.detach(t, y.ID)
	if err := b.Close(ctx, CloseOptions{Remove: true}); err != nil {
		t.Error(err)
	}
	b.Networks = nil
}

// routeAway routes 172.20.5.0/24 away, until the function it returns is called.
func routeAway(t *testing.T) func() {
	needRoot(t)
	ip(t, "route", "add", "172.20.5.0/24", "dev", "lo")
	return func() { ip(t, "route", "del", "172.20.5.0/24", "dev", "lo") }
}
