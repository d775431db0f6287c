package ports

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"gantry/internal/errs"
)

var (
	anyIP = netip.IPv4Unspecified()
	local = netip.MustParseAddr("127.0.0.1")
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Range
		bad  string
	}{
		{"", Range{}, ""}, {"0", Range{}, ""}, {"80", Range{80, 80}, ""}, {"8000-8010", Range{8000, 8010}, ""},
		{"99999", Range{}, `invalid port specification: "99999"`}, {"x", Range{}, `invalid port specification: "x"`},
		{"10-5", Range{}, `invalid port specification: "10-5"`}, {"0-5", Range{}, `invalid port specification: "0-5"`}, {"-1", Range{}, `invalid port specification: "-1"`},
	} {
		got, err := Parse(c.in)
		if got != c.want && c.bad == "" || (err == nil) != (c.bad == "") || err != nil && (err.Error() != c.bad || !errs.Is(err, errs.Invalid)) {
			t.Errorf("%q: %v, %v", c.in, got, err)
		}
	}
	if r := ParseEphemeral("32768\t60999\n"); r != (Range{32768, 60999}) {
		t.Error(r)
	}
	if r := ParseEphemeral("what"); r != (Range{}) {
		t.Error(r)
	}
}

func TestConflicts(t *testing.T) {
	tab := New(Range{41000, 41010})
	defer tab.Close()
	p, err := tab.Reserve("tcp", anyIP, Range{})
	if err != nil || p != 41000 {
		t.Fatal(p, err)
	}
	for _, c := range []struct {
		proto string
		ip    netip.Addr
		free  bool
	}{{"tcp", anyIP, false}, {"tcp", local, false}, {"udp", anyIP, true}} {
		_, err := tab.Reserve(c.proto, c.ip, Range{p, p})
		if c.free != (err == nil) {
			t.Errorf("%v: %v", c, err)
		}
		if want := fmt.Sprintf("Bind for %s:%d failed: port is already allocated", c.ip, p); err != nil && err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	q, err := tab.Reserve("tcp", local, Range{41005, 41005})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Reserve("tcp", anyIP, Range{q, q}); err == nil {
		t.Error("every address, although one is taken")
	}
	if _, err := tab.Reserve("tcp", netip.MustParseAddr("127.0.0.2"), Range{q, q}); err != nil {
		t.Error("another address:", err)
	}
	tab.Release(Key{"tcp", anyIP, p}, Key{"tcp", anyIP, 1})
	if _, err := tab.Reserve("tcp", anyIP, Range{p, p}); err != nil {
		t.Error("a released port:", err)
	}
}

// A port that a program of the host listens on is refused, and one that is held
// here is refused to programs of the host.
func TestHostPrograms(t *testing.T) {
	tab := New(Range{})
	defer tab.Close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := uint16(l.Addr().(*net.TCPAddr).Port)
	for _, ip := range []netip.Addr{anyIP, local} {
		if _, err := tab.Reserve("tcp", ip, Range{taken, taken}); err == nil {
			t.Errorf("%v:%d was given although a program listens", ip, taken)
		}
	}
	if got, err := tab.Reserve("tcp", anyIP, Range{taken, taken + 20}); err != nil || got == taken {
		t.Errorf("a range: %d, %v", got, err)
	}
	p, err := tab.Reserve("tcp", anyIP, Range{})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", p)); err == nil {
		l.Close()
		t.Errorf("a program could listen on %d", p)
	}
	if _, err := tab.Reserve("tcp", netip.MustParseAddr("203.0.113.1"), Range{p + 1, p + 1}); err == nil {
		t.Error("an address that the host does not have")
	}
}

func TestEphemeralRunsOut(t *testing.T) {
	tab := New(Range{41020, 41022})
	defer tab.Close()
	seen := map[uint16]bool{}
	for range 3 {
		p, err := tab.Reserve("udp", anyIP, Range{})
		if err != nil || seen[p] || p < 41020 || p > 41022 {
			t.Fatal(p, err)
		}
		seen[p] = true
	}
	if _, err := tab.Reserve("udp", anyIP, Range{}); err == nil || err.Error() != "Bind for 0.0.0.0:0 failed: all ports are allocated" {
		t.Error(err)
	}
}

func TestClaim(t *testing.T) {
	a := New(Range{})
	p, err := a.Reserve("tcp", anyIP, Range{})
	if err != nil {
		t.Fatal(err)
	}
	a.Close() // the daemon has died
	b := New(Range{})
	defer b.Close()
	b.Claim(Key{"tcp", anyIP, p})
	if _, err := b.Reserve("tcp", local, Range{p, p}); err == nil {
		t.Error("a claimed port was given away")
	}
}
