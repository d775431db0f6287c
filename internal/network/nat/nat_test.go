package nat

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func port(proto Proto, host string, p uint16, to string, owner string) Port {
	return Port{Proto: proto, HostIP: netip.MustParseAddr(host), HostPort: p, Container: netip.MustParseAddrPort(to), Owner: owner}
}

func rangeOf(proto Proto, host string, from uint16, n int, to string, at uint16, owner string) (out []Port) {
	for range n {
		out = append(out, port(proto, host, from, netip.AddrPortFrom(netip.MustParseAddr(to), at).String(), owner))
		from, at = from+1, at+1
	}
	return out
}

// cases are the configurations whose rules are written down, and also fed to
// the kernel.
func cases() map[string]Config {
	a := Network{Bridge: "gantry0", Subnet: netip.MustParsePrefix("172.20.0.0/16"), Masquerade: true}
	return map[string]Config{
		"empty":  {Table: "gantry"},
		"bridge": {Table: "gantry", Networks: []Network{a}},
		"published": {Table: "gantry", Networks: []Network{a}, Closed: []string{"eth0", "wlan0"}, Ports: []Port{
			port(UDP, "0.0.0.0", 53, "172.20.0.2:53", "c1"),
			port(TCP, "0.0.0.0", 8080, "172.20.0.2:80", "c1"),
			port(TCP, "127.0.0.1", 8081, "172.20.0.3:80", "c2"),
			port(SCTP, "192.0.2.2", 7, "172.20.0.3:7", "c2"),
			port(TCP, "0.0.0.0", 443, "172.20.0.2:443", "c1"),
		}},
		"dual": {Table: "gantry", Networks: []Network{
			{Bridge: "gb1", Subnet: netip.MustParsePrefix("172.21.0.0/16"), Subnet6: netip.MustParsePrefix("fd00:1::/64"), Masquerade: true, Trusted: []string{"wg0"}},
			{Bridge: "gb2", Subnet: netip.MustParsePrefix("172.22.0.0/16"), Subnet6: netip.MustParsePrefix("fd00:2::/64"), Masquerade: true, Mode: Routed, Mode6: Routed},
			{Bridge: "gb3", Subnet6: netip.MustParsePrefix("fd00:3::/64"), Mode6: Unprotected},
		}, Ports: []Port{
			port(TCP, "0.0.0.0", 8080, "172.21.0.2:80", "c1"),
			port(TCP, "::", 8080, "[fd00:1::2]:80", "c1"),
			port(UDP, "2001:db8::1", 53, "[fd00:1::2]:53", "c1"),
			port(TCP, "::1", 8081, "[fd00:1::2]:80", "c1"),
			port(TCP, "::", 8082, "172.20.0.2:80", "c2"),
			{Proto: TCP, Container: netip.MustParseAddrPort("172.22.0.2:80"), Owner: "c3"},
			{Proto: TCP, Container: netip.MustParseAddrPort("[fd00:2::2]:80"), Owner: "c3"},
		}},
		"ranges": {Table: "gantry", Networks: []Network{a}, Ports: slices.Concat(
			rangeOf(TCP, "0.0.0.0", 8000, 12, "172.20.0.2", 8000, "c1"),
			rangeOf(UDP, "::", 9000, 9, "fd00:1::2", 9000, "c1"),
			rangeOf(TCP, "0.0.0.0", 8012, 3, "172.20.0.3", 8012, "c2"),   // too few
			rangeOf(TCP, "0.0.0.0", 7000, 9, "172.20.0.3", 7001, "c2"),   // other numbers
			rangeOf(TCP, "127.0.0.1", 6000, 9, "172.20.0.3", 6000, "c2"), // one address
		)},
		"direct": {Table: "gantry", Accept: Mark{1, 3}, Networks: []Network{
			{Bridge: "gb1", Subnet: netip.MustParsePrefix("172.21.0.0/16"), Subnet6: netip.MustParsePrefix("fd00:1::/64"), Masquerade: true, Direct: true, Trusted: []string{"wg0"}},
		}, Ports: Opened(slices.Concat(
			rangeOf(TCP, "0.0.0.0", 8000, 12, "172.21.0.2", 8000, "c1"),
			rangeOf(TCP, "127.0.0.1", 9000, 12, "172.21.0.2", 8000, "c1"), // the same ports
			[]Port{port(TCP, "::", 80, "[fd00:1::2]:80", "c1"), {Proto: TCP, HostIP: netip.IPv4Unspecified(), HostPort: 7, Filtered: true}},
		))},
		"links": {Table: "gantry", Networks: []Network{
			{Bridge: "gantry0", Subnet: netip.MustParsePrefix("172.20.0.0/16"), Subnet6: netip.MustParsePrefix("fd00::/64"), Isolated: true, Masquerade: true},
			{Bridge: "gb1", Subnet: netip.MustParsePrefix("172.21.0.0/16")},
		}, Passes: []Pass{
			{Bridge: "gantry0", From: netip.MustParseAddr("172.20.0.3"), To: netip.MustParseAddr("172.20.0.2"), Proto: UDP, Port: 53},
			{Bridge: "gantry0", From: netip.MustParseAddr("172.20.0.3"), To: netip.MustParseAddr("172.20.0.2"), Proto: TCP, Port: 6379},
			{Bridge: "gantry0", From: netip.MustParseAddr("172.20.0.3"), To: netip.MustParseAddr("172.20.0.2"), Proto: TCP, Port: 6379},
			{Bridge: "gantry0", From: netip.MustParseAddr("fd00::3"), To: netip.MustParseAddr("fd00::2"), Proto: TCP, Port: 6379},
			{Bridge: "gb1", From: netip.MustParseAddr("172.21.0.3"), To: netip.MustParseAddr("172.21.0.2"), Proto: TCP, Port: 1}, // all are open there
		}},
		"networks": {Table: "gantry-b", Networks: []Network{
			{Bridge: "gb2", Subnet: netip.MustParsePrefix("172.22.0.0/16"), Isolated: true},
			{Bridge: "gb1", Subnet: netip.MustParsePrefix("172.21.0.0/16"), Masquerade: true, Internal: true}, a}},
	}
}

func TestRender(t *testing.T) {
	for name, c := range cases() {
		got := Render(c).String()
		file := filepath.Join("testdata", name+".nft")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: the rules are now\n%s\nand were\n%s", name, got, want)
		}
	}
}

func TestElementsRoundTrip(t *testing.T) {
	ports := append(cases()["published"].Ports, cases()["dual"].Ports...)
	for n := range uint16(9) {
		ports = append(ports, port(TCP, "0.0.0.0", 7000+n, "172.20.0.3:"+strconv.Itoa(int(7000+n)), "c3"), port(UDP, "::", 7000+n, "[fd00:1::3]:"+strconv.Itoa(int(7000+n)), "c3"))
	}
	for _, p := range spans(ports) {
		l := layoutOf(p)
		if got := l.decode(l.element(p)); got != p {
			t.Errorf("%s: %v comes back as %v", l.name, p, got)
		}
		if p2 := ParseProto(p.Proto.String()); p2 != p.Proto {
			t.Errorf("%v: protocol comes back as %v", p, p2)
		}
	}
}

// TestWhoServes: what the kernel can't translate is relayed, and nothing else
// but the part of ::1.
func TestWhoServes(t *testing.T) {
	filtered := port(TCP, "0.0.0.0", 80, "172.20.0.2:80", "c")
	filtered.Filtered = true
	for _, c := range []struct {
		p                   Port
		translated, relayed bool
	}{
		{port(TCP, "0.0.0.0", 80, "172.20.0.2:80", "c"), true, false},
		{port(TCP, "::", 80, "172.20.0.2:80", "c"), false, true},
		{port(TCP, "::", 80, "[fd00::2]:80", "c"), true, true},
		{port(UDP, "::1", 80, "[fd00::2]:80", "c"), false, true},
		{port(SCTP, "::", 80, "172.20.0.2:80", "c"), false, false},
		{filtered, false, true},
		{Port{Proto: TCP, Container: netip.MustParseAddrPort("172.20.0.2:80")}, true, false},
	} {
		if c.p.Translated() != c.translated || c.p.Relayed() != c.relayed {
			t.Errorf("%v: translated %v, relayed %v", c.p, c.p.Translated(), c.p.Relayed())
		}
	}
}
