package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"gantry/internal/network/kernel"
	"gantry/internal/wire"
)

// lookUp asks 127.0.0.11 of a namespace for the IPv4 address of a name.
func lookUp(ns *kernel.Namespace, network, name string) (netip.Addr, error) {
	r := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (c net.Conn, err error) {
		err = ns.Do(func() (err error) { c, err = net.DialTimeout(network, "127.0.0.11:53", 5*time.Second); return err })
		return c, err
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := r.LookupNetIP(ctx, "ip4", name+".")
	if err != nil {
		return netip.Addr{}, err
	}
	return l[0].Unmap(), nil
}

// TestPort53IsFree: a program in a container can listen on port 53 of all
// addresses, and 127.0.0.11 still answers, by both protocols, after the sockets
// were made anew, and where the container tracks and filters its connections.
func TestPort53IsFree(t *testing.T) {
	b := open(t, nil)
	if _, err := b.Create(ctx, wire.NetworkCreate{Name: "named"}); err != nil {
		t.Fatal(err)
	}
	s := b.attach(t, AttachRequest{Name: "app", Mode: "named"})
	near := b.attach(t, AttachRequest{Name: "near", Mode: "named"})
	ns, other := namespace(t, s), namespace(t, near)
	serve(t, ns, 53, "app")
	own := s.Endpoints[0].IPv4.Addr()
	check := func(when string) {
		t.Helper()
		for _, network := range []string{"udp4", "tcp4"} {
			if a, err := lookUp(ns, network, "near"); err != nil || a != near.Endpoints[0].IPv4.Addr() {
				t.Errorf("%s: near by %s is %v, %v", when, network, a, err)
			}
			want := "app " + near.Endpoints[0].IPv4.Addr().String()
			if got := ask(other, network, fmt.Sprintf("%s:53", own), want); got != want {
				t.Errorf("%s: the program's own port by %s: %q, want %q", when, network, got, want)
			}
		}
	}
	check("new")
	if err := ns.Do(func() error {
		const rules = `add table ip user; add chain ip user in { type filter hook input priority 0; policy drop; }
add rule ip user in ct state invalid drop; add rule ip user in ct state established accept
add rule ip user in udp dport 53 accept; add rule ip user in tcp dport 53 accept
add chain ip user out { type filter hook output priority 0; policy drop; }; add rule ip user out ct state invalid drop
add rule ip user out ct state established accept; add rule ip user out udp dport 53 accept; add rule ip user out tcp dport 53 accept`
		if out, err := exec.Command("nft", rules).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	check("behind filters")
	b.names.Close()
	b.reopen(t) // no keeper here: the sockets are made anew
	check("after a restart")
	for _, c := range []*Sandbox{s, near} {
		b.detach(t, c.ID)
	}
	b.Settle()
	if err := b.Remove(ctx, "named"); err != nil {
		t.Error(err)
	}
}
