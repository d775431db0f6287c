package network

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"gantry/internal/network/kernel"
	"gantry/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files")

// TestMatrix is who reaches what, written down: host, LAN, a container of the
// same network, one of another, over both versions of IP and both protocols.
// "v4" is a container that has IPv4 only (so have those of its network, which have
// no way to fd99::2), "dual" one that has both.
func TestMatrix(t *testing.T) {
	b := open(t, nil)
	lan := machine6(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	yes := true
	for _, c := range []wire.NetworkCreate{{Name: "dual", EnableIPv6: &yes}, {Name: "other", EnableIPv6: &yes}} {
		if _, err := b.Create(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	ports := func(base int) wire.PortMap {
		return published(t, fmt.Sprintf("%d>80/tcp", base), fmt.Sprintf("%d>80/udp", base), fmt.Sprintf("127.0.0.1:%d>80/tcp", base+1), fmt.Sprintf("127.0.0.1:%d>80/udp", base+1))
	}
	v4 := b.attach(t, AttachRequest{Name: "v4", Mode: "bridge", Ports: ports(8080)})
	dual := b.attach(t, AttachRequest{Name: "dual", Mode: "dual", Ports: ports(8090)})
	near := b.attach(t, AttachRequest{Name: "near", Mode: "bridge"})
	beside := b.attach(t, AttachRequest{Name: "beside", Mode: "dual"})
	far := b.attach(t, AttachRequest{Name: "far", Mode: "other"})
	spaces := map[string]*kernel.Namespace{"host": nil, "lan": lan, "other": namespace(t, far)}
	for name, s := range map[string]*Sandbox{"v4": v4, "dual": dual} {
		for _, p := range []int{80, 83} {
			serve(t, namespace(t, s), p, name)
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%-34s %-5s %-8s %-8s %-8s %-8s\n", "what", "over", "host", "lan", "same", "other")
	golden := cells(t, "testdata/matrix.txt")
	row := func(what, network, to string) {
		fmt.Fprintf(&out, "%-34s %-5s", what, network)
		for i, from := range []string{"host", "lan", "same", "other"} {
			want := "-"
			if l := golden[what+" "+network]; len(l) > i && !*update {
				want = l[i]
			}
			fmt.Fprintf(&out, " %-8s", knock(spaces[from], network, to, want))
		}
		out.WriteByte('\n')
	}
	for _, c := range []struct {
		name string
		port int
		s    *Sandbox
		same *Sandbox
	}{{"v4", 8080, v4, near}, {"dual", 8090, dual, beside}} {
		spaces["same"] = namespace(t, c.same)
		for _, proto := range []string{"tcp", "udp"} {
			row(c.name+" published, 192.0.2.2", proto+"4", fmt.Sprintf("192.0.2.2:%d", c.port))
			row(c.name+" published, fd99::2", proto+"6", fmt.Sprintf("[fd99::2]:%d", c.port))
			row(c.name+" published, 127.0.0.1", proto+"4", fmt.Sprintf("127.0.0.1:%d", c.port))
			row(c.name+" published, ::1", proto+"6", fmt.Sprintf("[::1]:%d", c.port))
			row(c.name+" on 127.0.0.1 only, 127.0.0.1", proto+"4", fmt.Sprintf("127.0.0.1:%d", c.port+1))
			row(c.name+" on 127.0.0.1 only, 192.0.2.2", proto+"4", fmt.Sprintf("192.0.2.2:%d", c.port+1))
			row(c.name+" on 127.0.0.1 only, ::1", proto+"6", fmt.Sprintf("[::1]:%d", c.port+1))
			for _, x := range [][2]string{{"published", "80"}, {"not published", "83"}} {
				what, port := x[0], x[1]
				row(c.name+" own address, "+what, proto+"4", c.s.Endpoints[0].IPv4.Addr().String()+":"+port)
				if six := c.s.Endpoints[0].IPv6; six.IsValid() {
					row(c.name+" own address, "+what, proto+"6", "["+six.Addr().String()+"]:"+port)
				}
			}
		}
	}
	checkGolden(t, "testdata/matrix.txt", out.String())
	for _, s := range []*Sandbox{v4, dual, near, beside, far} {
		b.detach(t, s.ID)
	}
	b.Settle()
	for _, n := range []string{"dual", "other"} {
		if err := b.Remove(ctx, n); err != nil {
			t.Error(err)
		}
	}
}

// cells reads the last four columns of a golden table, by what and over.
func cells(t *testing.T, golden string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 5 {
			n := len(f) - 4
			all[strings.Join(f[:n], " ")] = f[n:]
		}
	}
	return all
}

func checkGolden(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("now\n%swas\n%s\n%s", got, want, dump())
	}
}

// TestFiltered: with published-ports=filtered the host's own input filter
// decides, without it a forward filter that drops is found, explained and
// mended.
func TestFiltered(t *testing.T) {
	b := open(t, func(o *Options) { o.FilterPorts = true })
	ctx := context.Background()
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "open", Options: map[string]string{"gantry.published-ports": "open"}}); err != nil {
		t.Fatal(err)
	}
	f := b.attach(t, AttachRequest{Name: "f", Mode: "bridge", Ports: published(t, "8080>80/tcp", "8080>80/udp")})
	o := b.attach(t, AttachRequest{Name: "o", Mode: "open", Ports: published(t, "8081>80/tcp")})
	serve(t, namespace(t, f), 80, "f")
	serve(t, namespace(t, o), 80, "o")
	check := func(when, addr, network, want string) {
		t.Helper()
		if got := knock(lan, network, addr, want); got != want {
			t.Errorf("%s: %s %s: %q, want %q\n%s", when, network, addr, got, want, dump())
		}
	}
	check("free", "192.0.2.2:8080", "tcp4", "f")
	check("free", "192.0.2.2:8080", "udp4", "f")
	check("free", "192.0.2.2:8081", "tcp4", "o")
	nft := func(cmd string) {
		t.Helper()
		if out, err := exec.Command("nft", cmd).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", cmd, out)
		}
	}
	nft("add table ip user; add chain ip user in { type filter hook input priority 0; policy drop; }; add rule ip user in ct state established,related accept")
	defer exec.Command("nft", "delete", "table", "ip", "user").Run()
	check("input drops", "192.0.2.2:8080", "tcp4", "-")
	check("input drops", "192.0.2.2:8080", "udp4", "-")
	check("input drops", "192.0.2.2:8081", "tcp4", "o")
	if a, err := Why(b.Networks, f.ID, "80", netip.Addr{}); err != nil || !a.Doubt || !strings.Contains(fmt.Sprint(a.Steps), "ip user/in") {
		t.Errorf("why: %+v %v", a, err)
	}
	nft("add rule ip user in tcp dport 8080 accept")
	check("the user has opened it", "192.0.2.2:8080", "tcp4", "f")

	nft("add chain ip user fw { type filter hook forward priority 0; policy drop; }; add rule ip user fw ip saddr 198.51.100.0/24 drop")
	check("forward drops", "192.0.2.2:8081", "tcp4", "-")
	if l, err := Blocked(b.Networks); err != nil || len(l) != 1 || !strings.Contains(l[0], "ip user/fw") {
		t.Errorf("%q %v", l, err)
	}
	if a, err := Why(b.Networks, o.ID, "80/tcp", netip.Addr{}); err != nil || !a.Doubt {
		t.Errorf("why: %+v %v", a, err)
	}
	if err := Unblock(b.Networks); err != nil {
		t.Fatal(err)
	}
	check("mended", "192.0.2.2:8081", "tcp4", "o")
	if l, err := Blocked(b.Networks); err != nil || len(l) != 0 {
		t.Errorf("after mending %q %v", l, err)
	}
	if a, err := Why(b.Networks, o.ID, "80/tcp", netip.MustParseAddr("192.0.2.9")); err != nil || !a.Reachable || a.Doubt {
		t.Errorf("why: %+v %v", a, err)
	}
	b.detach(t, f.ID)
	b.detach(t, o.ID)
	b.Settle()
	if err := b.Remove(ctx, "open"); err != nil {
		t.Error(err)
	}
}
