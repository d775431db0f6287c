package nat

import (
	"net/netip"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	c := cases()["dual"]
	c.Networks = append(c.Networks, Network{Bridge: "in", Subnet: netip.MustParsePrefix("172.30.0.0/16"), Internal: true},
		Network{Bridge: "iso", Subnet: netip.MustParsePrefix("172.31.0.0/16"), Isolated: true})
	c.Passes = []Pass{{Bridge: "iso", From: netip.MustParseAddr("172.31.0.8"), To: netip.MustParseAddr("172.31.0.2"), Proto: TCP, Port: 80}}
	free := Host{Table: true, Forward4: true, Forward6: true, Own: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}
	closed := free
	closed.Forward4 = false
	dropping := free
	dropping.Drops = []Chain{{Family: "ip", Table: "filter", Name: "FORWARD", Hook: "forward"}, {Family: "inet", Table: "ufw", Name: "in", Hook: "input"}}
	passing := dropping
	passing.Drops = []Chain{{Family: "ip", Table: "filter", Name: "FORWARD", Hook: "forward", Passes: []string{"gb1"}}}
	flushed := free
	flushed.Table = false
	open := port(TCP, "0.0.0.0", 8080, "172.21.0.2:80", "c")
	mine := port(TCP, "127.0.0.1", 8081, "172.21.0.2:80", "c")
	filtered := open
	filtered.Filtered = true
	opened := Port{Proto: TCP, Container: netip.MustParseAddrPort("172.22.0.2:80")}
	c.Networks = append(c.Networks, Network{Bridge: "dir", Subnet: netip.MustParsePrefix("172.29.0.0/16"), Direct: true})
	for _, x := range []struct {
		name, link, from string
		h                Host
		ports            []Port
		reach, doubt     bool
		last             string
	}{
		{"published", "gb1", "", free, []Port{open}, true, false, "chain to-gb1: ct status dnat accept"},
		{"best of two", "gb1", "", free, []Port{mine, open}, true, false, "ct status dnat accept"},
		{"not published", "gb1", "", free, nil, false, false, "the port is not published"},
		{"not published, from here", "gb1", "192.0.2.2", free, nil, true, false, "over bridge gb1"},
		{"for this host", "gb2", "192.0.2.9", free, []Port{mine}, false, false, "published for this host only"},
		{"for this host, from here", "gb1", "127.0.0.1", free, []Port{mine}, true, false, "ct status dnat accept"},
		{"no forwarding", "gb1", "", closed, []Port{open}, false, false, "ip_forward is 0"},
		{"no forwarding, from here", "gb1", "127.0.0.1", closed, []Port{open}, true, false, "accept"},
		{"a chain drops", "gb1", "", dropping, []Port{open}, true, true, "accept"},
		{"let through", "gb1", "", passing, []Port{open}, true, false, "accept"},
		{"filtered", "gb1", "", dropping, []Port{filtered}, true, true, "inet ufw/in"},
		{"flushed", "gb1", "", flushed, []Port{open}, false, false, "not in the kernel"},
		{"internal", "in", "", free, []Port{open}, false, false, "internal"},
		{"neighbours", "gb1", "172.21.0.9", free, nil, true, false, "open inside a network"},
		{"isolated neighbours", "iso", "172.31.0.9", free, nil, false, false, "enable_icc"},
		{"linked", "iso", "172.31.0.8", free, nil, true, false, "a link (--link)"},
		{"linked, no forwarding", "iso", "172.31.0.8", closed, nil, false, false, "ip_forward is 0"},
		{"other network", "gb1", "172.31.0.9", free, nil, false, false, "not published"},
		{"routed", "gb2", "", free, []Port{opened}, true, false, "@opened accept"},
		{"unprotected", "gb3", "", free, nil, true, false, "nat-unprotected"},
		{"by routing", "dir", "", free, []Port{mine}, true, false, "chain to-dir: @opened accept"},
		{"by routing, filtered", "dir", "", dropping, []Port{filtered}, true, true, "inet ufw/in"},
		{"by routing, not published", "dir", "", free, nil, false, false, "not published"},
		{"by routing, from another network", "dir", "172.21.0.9", free, []Port{mine}, false, false, "this host only"},
		{"by a trusted interface", "gb1", "192.0.2.9", free, []Port{mine}, true, true, "chain to-gb1: @opened accept"},
		{"no network", "none", "", free, nil, false, false, "not up"},
	} {
		q := Question{Proto: TCP, Port: 80, Link: x.link, Ports: x.ports, To: []netip.Addr{netip.MustParseAddr("172.31.0.2")}}
		if x.from != "" {
			q.From = netip.MustParseAddr(x.from)
		}
		a := Explain(c, x.h, q)
		if a.Reachable != x.reach || a.Doubt != x.doubt || !strings.Contains(a.Steps[len(a.Steps)-1], x.last) {
			t.Errorf("%s: %+v", x.name, a)
		}
	}
}
