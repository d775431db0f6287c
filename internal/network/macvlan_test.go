package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/network/kernel"
	"gantry/internal/wire"
)

// onLAN is a network whose containers stand on the link to the LAN machine, which
// is 192.0.2.9.
func onLAN(b *bench, driver string, options ...string) (wire.NetworkCreated, error) {
	c := wire.NetworkCreate{Name: driver, Driver: driver, Options: map[string]string{"parent": "up-lan"}, IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{
		Subnet: netip.MustParsePrefix("192.0.2.0/24"), IPRange: netip.MustParsePrefix("192.0.2.128/25"), Gateway: netip.MustParseAddr("192.0.2.9"),
	}}}}
	for _, o := range options {
		k, v, _ := strings.Cut(o, "=")
		c.Options[k] = v
	}
	return b.Create(context.Background(), c)
}

// within opens the namespace of a sandbox until the test ends.
func within(t *testing.T, s *Sandbox) *kernel.Namespace {
	t.Helper()
	ns, err := kernel.OpenNamespace(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	return ns
}

// answers reports whether a TCP server that serve made is reached.
func answers(from *kernel.Namespace, to netip.Prefix) bool {
	return strings.HasPrefix(ask(from, "tcp", netip.AddrPortFrom(to.Addr(), 80).String()), "hello")
}

// reached is answers for what must be so: a link may be some time in coming up.
func reached(from *kernel.Namespace, to netip.Prefix) bool {
	return knock(from, "tcp", netip.AddrPortFrom(to.Addr(), 80).String(), "hello") == "hello"
}

func TestMacvlanModes(t *testing.T) {
	lanAddr := netip.MustParsePrefix("192.0.2.9/24")
	for _, c := range []struct {
		mode         string
		neighbours   bool // containers reach each other
		alone        bool
		defaultRoute bool
	}{{"", true, false, true}, {"bridge", true, false, true}, {"private", false, false, true}, {"vepa", false, false, true}, {"passthru", false, true, true}} {
		t.Run("mode "+c.mode, func(t *testing.T) {
			b := open(t, nil)
			lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
			serve(t, lan, 80, "hello")
			if _, err := onLAN(b, "macvlan", "macvlan_mode="+c.mode); err != nil {
				t.Fatal(err)
			}
			one := b.attach(t, AttachRequest{Mode: "macvlan"})
			ns1 := within(t, one)
			serve(t, ns1, 80, "hello")
			if !answers(ns1, lanAddr) || !answers(lan, one.Endpoints[0].IPv4) {
				t.Error("the container and the LAN do not reach each other")
			}
			if answers(nil, one.Endpoints[0].IPv4) {
				t.Error("the host reaches the container through its own parent interface")
			}
			if two, err := b.Attach(context.Background(), AttachRequest{ID: strings.Repeat("b", 64), Mode: "macvlan"}); c.alone != (err != nil) {
				t.Errorf("a second container: %v", err)
			} else if err == nil {
				if got := answers(within(t, two), one.Endpoints[0].IPv4); got != c.neighbours {
					t.Errorf("containers reach each other: %v", got)
				}
				b.detach(t, two.ID)
			}
			mac, err := linkMAC(ns1, "eth0")
			if err != nil {
				t.Fatal(err)
			}
			if want := one.Endpoints[0].MAC; !c.alone && mac != want {
				t.Errorf("the interface has %s, the books say %s", mac, want)
			}
			if parent, _ := net.InterfaceByName("up-lan"); c.alone && mac != parent.HardwareAddr.String() {
				t.Errorf("the interface has %s, and its parent %s", mac, parent.HardwareAddr)
			}
			b.detach(t, one.ID)
			if err := b.Remove(context.Background(), "macvlan"); err != nil {
				t.Error(err)
			}
			if _, err := net.InterfaceByName("up-lan"); err != nil {
				t.Errorf("the parent has gone: %v", err)
			}
		})
	}
}

// linkMAC asks a namespace for the hardware address of a link.
func linkMAC(ns *kernel.Namespace, link string) (mac string, err error) {
	err = ns.Do(func() error {
		b, err := exec.Command("ip", "-o", "link", "show", link).Output()
		_, after, _ := strings.Cut(string(b), "link/ether ")
		mac, _, _ = strings.Cut(after, " ")
		return err
	})
	return mac, err
}

func TestMacvlanWithoutParent(t *testing.T) {
	b := open(t, nil)
	made, err := b.Create(context.Background(), wire.NetworkCreate{Name: "alone", Driver: "macvlan"})
	if err != nil {
		t.Fatal(err)
	}
	one, two := b.attach(t, AttachRequest{Mode: "alone"}), b.attach(t, AttachRequest{Mode: "alone"})
	serve(t, within(t, one), 80, "hello")
	if !answers(within(t, two), one.Endpoints[0].IPv4) {
		t.Error("containers do not reach each other")
	}
	if g := one.Endpoints[0].Gateway4; g.IsValid() {
		t.Errorf("it has a gateway: %s", g)
	}
	// What a killed daemon leaves, the next one knows.
	b.detach(t, two.ID)
	b.reopen(t)
	if !strings.Contains(links(t), "gd"+made.ID[:12]) {
		t.Errorf("no parent: %s", links(t))
	}
	b.detach(t, one.ID)
	b.Settle()
	b.reopen(t)
	if err := b.Remove(context.Background(), "alone"); err != nil {
		t.Error(err)
	}
	if l := links(t); l != "lo" {
		t.Errorf("left: %s", l)
	}
}

func links(t *testing.T) string {
	t.Helper()
	l, err := kernelLinks()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A network on the LAN beside a bridge: joined and left while the container runs.
func TestMacvlanLive(t *testing.T) {
	b := open(t, nil)
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	if _, err := onLAN(b, "macvlan"); err != nil {
		t.Fatal(err)
	}
	r := AttachRequest{ID: strings.Repeat("c", 64), Name: "c", Ports: published(t, "8080>80/tcp")}
	s := b.attach(t, r)
	ns := within(t, s)
	serve(t, ns, 80, "hello")
	s, err := Members{b.Networks}.Connect(context.Background(), r, "macvlan", &wire.EndpointSettings{
		IPAMConfig: &wire.EndpointIPAM{IPv4Address: netip.MustParseAddr("192.0.2.50")}, MacAddress: []byte{2, 0, 0, 0, 0, 0x50}, GwPriority: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if !answers(lan, netip.MustParsePrefix("192.0.2.50/24")) {
		t.Error("the LAN does not reach the container at its new address")
	}
	if mac, _ := linkMAC(ns, "eth1"); mac != "02:00:00:00:00:50" {
		t.Errorf("eth1 has %s", mac)
	}
	if !strings.HasPrefix(ask(nil, "tcp", "127.0.0.1:8080"), "hello") {
		t.Error("the published port does not answer any more")
	}
	if len(s.Endpoints) != 2 {
		t.Errorf("endpoints: %+v", s.Endpoints)
	}
	if _, err := (Members{b.Networks}).Disconnect(context.Background(), r, "macvlan"); err != nil {
		t.Fatal(err)
	}
	if mac, _ := linkMAC(ns, "eth1"); mac != "" {
		t.Error("eth1 is still there")
	}
	b.detach(t, r.ID)
}

// Kinds of link that this kernel does not have are refused with the name of the
// module; where it has them they work.
func TestVLANAndIPvlan(t *testing.T) {
	b := open(t, nil)
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	serve(t, lan, 80, "hello")
	lanAddr := netip.MustParsePrefix("192.0.2.9/24")
	for i, o := range []struct{ mode, flag string }{{"", ""}, {"l2", "private"}, {"l2", "vepa"}, {"l3", ""}, {"l3s", "bridge"}} {
		_, err := onLAN(b, "ipvlan", "ipvlan_mode="+o.mode, "ipvlan_flag="+o.flag)
		if b.stage.host.Knows("ipvlan") != nil {
			if !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "the module ipvlan is missing") {
				t.Errorf("ipvlan: %v", err)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		s := b.attach(t, AttachRequest{ID: strings.Repeat(fmt.Sprint(i), 64), Mode: "ipvlan"})
		two := b.attach(t, AttachRequest{ID: strings.Repeat(fmt.Sprint(i), 63) + "f", Mode: "ipvlan"})
		ns := within(t, s)
		serve(t, ns, 80, "hello")
		if l2 := !strings.HasPrefix(o.mode, "l3"); l2 && (!answers(ns, lanAddr) || !answers(lan, s.Endpoints[0].IPv4)) {
			t.Errorf("%+v: the container and the LAN do not reach each other", o)
		}
		if got, want := answers(within(t, two), s.Endpoints[0].IPv4), o.flag == "" || o.flag == "bridge"; got != want {
			t.Errorf("%+v: containers reach each other: %v", o, got)
		}
		b.detach(t, s.ID)
		b.detach(t, two.ID)
		b.Settle()
		if err := b.Remove(context.Background(), "ipvlan"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := onLAN(b, "macvlan", "parent=up-lan.7")
	if b.stage.host.Knows("vlan") != nil {
		if !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "the module 8021q is missing") {
			t.Errorf("vlan: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	ipIn(t, lan, "addr", "flush", "dev", "eth0")
	ipIn(t, lan, "link", "add", "link", "eth0", "name", "eth0.7", "type", "vlan", "id", "7")
	ipIn(t, lan, "addr", "add", "192.0.2.77/24", "dev", "eth0.7")
	ipIn(t, lan, "link", "set", "eth0.7", "up")
	s := b.attach(t, AttachRequest{Mode: "macvlan"})
	if !answers(within(t, s), netip.MustParsePrefix("192.0.2.77/24")) {
		t.Error("the tagged network is not reached")
	}
	b.detach(t, s.ID)
	b.Settle()
	b.reopen(t)
	if err := b.Remove(context.Background(), "macvlan"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(links(t), "up-lan.7") {
		t.Error("the sub-interface is left")
	}
}

// ipIn runs ip(8) in a namespace.
func ipIn(t *testing.T, ns *kernel.Namespace, args ...string) {
	t.Helper()
	if err := ns.Do(func() error {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("ip %v: %w %s", args, err, out)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestParentsThatCanNotBe(t *testing.T) {
	b := open(t, nil)
	machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	if _, err := onLAN(b, "macvlan"); err != nil {
		t.Fatal(err)
	}
	first, _ := b.book.Find("macvlan")
	for _, c := range []struct{ parent, mode, want string }{
		{"nosuch0", "", "invalid subinterface vlan name nosuch0, example formatting is eth0.10"},
		{"up-lan.x", "", "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received up-lan.x"},
		{"up-lan.5000", "", "vlan id must be between 1-4094, received: 5000"},
		{"lo", "", "loopback interface is not a valid macvlan parent link"},
		{"up-lan", "passthru", "cannot use mode passthru, macvlan network " + first.ID + " is already using parent interface up-lan"},
		{"up-lan", "bogus", "requested macvlan mode 'bogus' is not valid, 'bridge' mode is the macvlan driver default"},
	} {
		_, err := b.Create(context.Background(), wire.NetworkCreate{Name: "other", Driver: "macvlan", Options: map[string]string{"parent": c.parent, "macvlan_mode": c.mode}})
		if err == nil || err.Error() != c.want {
			t.Errorf("%+v: %v", c, err)
		}
		if _, err := b.book.Find("other"); err == nil {
			t.Errorf("%+v: it is on the books", c)
		}
	}
	if err := b.Remove(context.Background(), "macvlan"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/sys/class/net/up-lan"); err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
}

// routes are those of a namespace, as ip(8) shows them.
func routes(t *testing.T, ns *kernel.Namespace) (out string) {
	t.Helper()
	if err := ns.Do(func() error {
		b, err := exec.Command("ip", "route").Output()
		out = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}
