package ipam

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"gantry/internal/errs"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr  { return netip.MustParseAddr(s) }

func TestUsageIsDockers(t *testing.T) { // the figures of spec/wire/61 and 62
	for _, c := range []struct {
		cfg      Config
		used, av uint64
	}{
		{Config{Subnet: pfx("172.18.0.0/16"), Gateway: addr("172.18.0.1")}, 3, 65533},
		{Config{Subnet: pfx("10.50.0.0/24"), Range: pfx("10.50.0.128/25"), Gateway: addr("10.50.0.1"), Aux: []netip.Addr{addr("10.50.0.5")}}, 4, 127},
		{Config{Subnet: pfx("fd12::/64"), Gateway: addr("fd12::1")}, 2, 18446744073709551614},
	} {
		if u, a := New(c.cfg).Usage(); u != c.used || a != c.av {
			t.Errorf("%v: %d used, %d available; want %d, %d", c.cfg.Subnet, u, a, c.used, c.av)
		}
	}
}

func TestLowestFreeFirst(t *testing.T) {
	p := New(Config{Subnet: pfx("10.0.0.0/29"), Gateway: addr("10.0.0.1")})
	for i := 2; i <= 6; i++ {
		if a, err := p.Allocate(fmt.Sprint(i)); err != nil || a != addr(fmt.Sprintf("10.0.0.%d", i)) {
			t.Fatalf("%d: %v %v", i, a, err)
		}
	}
	if _, err := p.Allocate("x"); !errs.Is(err, errs.Denied) {
		t.Fatalf("a full pool gives %v", err)
	}
	p.Release(addr("10.0.0.4"), "someone else")
	if _, err := p.Allocate("x"); err == nil {
		t.Fatal("an address was released by one who did not own it")
	}
	p.Release(addr("10.0.0.5"), "5")
	p.Release(addr("10.0.0.3"), "3")
	if a, _ := p.Allocate("x"); a != addr("10.0.0.3") {
		t.Errorf("got %v", a)
	}
	if err := p.Claim(addr("10.0.0.4"), "x"); !errs.Is(err, errs.Denied) {
		t.Errorf("claim of a taken address: %v", err)
	}
	if err := p.Claim(addr("10.0.1.4"), "x"); !errs.Is(err, errs.Invalid) {
		t.Errorf("claim outside: %v", err)
	}
}

// No address is ever given to two owners, and none is lost.
func TestPoolModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := New(Config{Subnet: pfx("10.0.0.0/28"), Gateway: addr("10.0.0.1")})
		model := map[netip.Addr]string{}
		for i := range rapid.IntRange(1, 60).Draw(t, "n") {
			owner := fmt.Sprint(i)
			switch rapid.IntRange(0, 2).Draw(t, "op") {
			case 0:
				a, err := p.Allocate(owner)
				if (err == nil) != (len(model) < 13) {
					t.Fatalf("%d leased, allocate: %v", len(model), err)
				}
				if err == nil {
					if model[a] != "" {
						t.Fatalf("%v given twice", a)
					}
					model[a] = owner
				}
			case 1:
				for a, o := range model {
					p.Release(a, o)
					delete(model, a)
					break
				}
			case 2:
				a := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 15).Draw(t, "host"))})
				free := model[a] == "" && a != addr("10.0.0.0") && a != addr("10.0.0.1") && a != addr("10.0.0.15")
				if err := p.Claim(a, owner); (err == nil) != free {
					t.Fatalf("claim %v: %v", a, err)
				} else if free {
					model[a] = owner
				}
			}
			if got := p.Leases(); len(got) != len(model) {
				t.Fatalf("leases %v, want %v", got, model)
			}
		}
	})
}

func TestChoose(t *testing.T) {
	d := Defaults()
	for _, c := range []struct {
		taken []string
		want  string
	}{
		{nil, "172.20.0.0/16"},
		{[]string{"172.20.5.0/24"}, "172.21.0.0/16"},
		{[]string{"172.16.0.0/12"}, "192.168.0.0/20"},
		{[]string{"172.16.0.0/12", "192.168.0.0/19", "192.168.33.0/24"}, "192.168.48.0/20"},
		{[]string{"172.16.0.0/12", "192.168.0.0/16"}, ""},
		{[]string{"0.0.0.0/0"}, ""},
	} {
		var taken []netip.Prefix
		for _, s := range c.taken {
			taken = append(taken, pfx(s))
		}
		got, err := Choose(d, taken)
		if c.want == "" {
			if !errs.Is(err, errs.Denied) {
				t.Errorf("%v: %v, %v", c.taken, got, err)
			}
		} else if err != nil || got != pfx(c.want) {
			t.Errorf("%v: %v, %v; want %s", c.taken, got, err, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Subnet: pfx("10.51.0.0/24")}, ""},
		{Config{Subnet: pfx("10.51.0.5/24")}, "invalid network config:\ninvalid subnet 10.51.0.5/24: it should be 10.51.0.0/24"},
		{Config{Subnet: pfx("10.52.0.0/24"), Gateway: addr("10.53.0.1")}, "invalid network config:\ninvalid gateway 10.53.0.1: parent subnet 10.52.0.0/24 doesn't contain this address"},
		{Config{Subnet: pfx("10.52.0.0/24"), Range: pfx("10.53.0.0/25")}, "invalid network config:\ninvalid ip-range 10.53.0.0/25: parent subnet 10.52.0.0/24 doesn't contain ip-range"},
		{Config{Gateway: addr("10.53.0.1")}, "invalid network config:\ninvalid gateway 10.53.0.1: parent subnet invalid Prefix doesn't contain this address"},
	} {
		err := Check([]Config{c.cfg})
		if got := fmt.Sprint(err); (c.want == "") != (err == nil) || (err != nil && got != c.want) {
			t.Errorf("%v: %q, want %q", c.cfg, got, c.want)
		}
	}
	if err := Check([]Config{{Subnet: pfx("10.54.0.0/24")}, {Subnet: pfx("10.54.0.0/24")}}); err != ErrOverlap {
		t.Errorf("twice the same: %v", err)
	}
}

func TestEnds(t *testing.T) {
	if Last(pfx("10.1.2.0/23")) != addr("10.1.3.255") || First(pfx("10.1.2.0/23")) != addr("10.1.2.1") || Last(pfx("10.1.2.3/32")) != addr("10.1.2.3") {
		t.Error("the ends of a subnet are wrong")
	}
	if m := MAC(addr("172.20.0.2")).String(); m != "02:42:ac:14:00:02" {
		t.Error(m)
	}
}
