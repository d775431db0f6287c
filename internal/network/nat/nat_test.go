package nat

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func port(proto Proto, host string, p uint16, to string, owner string) Port {
	return Port{Proto: proto, HostIP: netip.MustParseAddr(host), HostPort: p, Container: netip.MustParseAddrPort(to), Owner: owner}
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
	for _, p := range cases()["published"].Ports {
		set := anywhere
		if !p.HostIP.IsUnspecified() {
			set = byAddress
		}
		k := key(set, p)
		if want := map[string]int{anywhere: 8, byAddress: 12}[set]; len(k) != want {
			t.Errorf("%v: key of %d bytes, want %d", p, len(k), want)
		}
		if p2 := ParseProto(p.Proto.String()); p2 != p.Proto {
			t.Errorf("%v: protocol comes back as %v", p, p2)
		}
	}
}
