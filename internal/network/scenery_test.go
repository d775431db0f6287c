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

	"golang.org/x/sys/unix"

	"gantry/internal/network/kernel"
	"gantry/internal/wire"
)

// world is three machines: a host on the LAN, the host (the namespace of the
// test), and containers.
//
//	lan 192.0.2.9 ──── 192.0.2.2 host 172.20.0.1 ──── containers
//	other 198.51.100.9 ──── 198.51.100.2
type world struct {
	lan, other *kernel.Namespace
}

// machine joins a namespace to the host and gives it a route to everything there.
func machine(t *testing.T, name, host, inside string) *kernel.Namespace {
	t.Helper()
	path := t.TempDir() + "/" + name
	ns, err := kernel.CreateNamespace(path, "")
	if err != nil {
		t.Fatal(err)
	}
	h, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	link := "up-" + name
	err = h.Connect(context.Background(), ns, kernel.Veth{Host: link, Inside: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, host[len(host)-4]},
		Addr: []netip.Prefix{netip.MustParsePrefix(inside)}, Gateway: []netip.Addr{netip.MustParsePrefix(host).Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	ip(t, "addr", "add", host, "dev", link)
	t.Cleanup(func() {
		h.RemoveLink(link)
		h.Close()
		ns.Close()
		kernel.RemoveNamespace(path)
	})
	return ns
}

// machine6 is machine with fd99::2 of the host and fd99::9 of its own besides,
// and a way to all local addresses of IPv6.
func machine6(t *testing.T, name, host, inside string) *kernel.Namespace {
	t.Helper()
	ns := machine(t, name, host, inside)
	// An address that needs no check for duplicates is there at once (the ip of
	// busybox has no nodad).
	enable := func(link string) error {
		err := kernel.SetSysctl("net/ipv6/conf/"+link+"/accept_dad", "0")
		if err == nil {
			err = kernel.SetSysctl("net/ipv6/conf/"+link+"/disable_ipv6", "0")
		}
		return err
	}
	if err := enable("up-" + name); err != nil {
		t.Fatal(err)
	}
	ip(t, "addr", "add", "fd99::2/64", "dev", "up-"+name)
	if err := ns.Do(func() error {
		if err := enable("eth0"); err != nil {
			return err
		}
		out, err := exec.Command("sh", "-ec", "ip addr add fd99::9/64 dev eth0; ip route add fd00::/8 via fd99::2").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return ns
}

// ip runs ip(8) as a user would, in the test's host.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v %s", args, err, out)
	}
}

// in runs fn in a namespace, nil being the host.
func in(ns *kernel.Namespace, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return ns.Do(fn)
}

// serve answers TCP and UDP of both versions of IP on every address of a
// namespace with a text and the client's address.
func serve(t *testing.T, ns *kernel.Namespace, port int, text string) {
	t.Helper()
	for version, any := range map[string]string{"4": "0.0.0.0", "6": "[::]"} {
		if err := in(ns, func() error { return answer(t, version, fmt.Sprintf("%s:%d", any, port), text) }); err != nil {
			t.Fatal(err)
		}
	}
}

func answer(t *testing.T, version, at, text string) error {
	l, err := net.Listen("tcp"+version, at)
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close() })
	u, err := net.ListenPacket("udp"+version, at)
	if err != nil {
		return err
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, text+" "+c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 10)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			u.WriteTo([]byte(text+" "+from.(*net.UDPAddr).IP.String()), from)
		}
	}()
	return nil
}

// ask dials from a namespace (nil: the host) and returns the answer, "refused",
// or "-" if there is none. Where something else than want comes, and want is an
// answer, it asks again for some seconds: the machine may be busy.
func ask(ns *kernel.Namespace, network, addr string, want ...string) string {
	got := askOnce(ns, network, addr)
	for deadline := time.Now().Add(10 * time.Second); len(want) == 1 && want[0] != "-" && time.Now().Before(deadline); {
		if got == want[0] || strings.HasPrefix(got, want[0]+" ") {
			break
		}
		got = askOnce(ns, network, addr)
	}
	return got
}

func askOnce(ns *kernel.Namespace, network, addr string) string {
	answer := "-"
	_ = in(ns, func() error {
		c, err := net.DialTimeout(network, addr, 300*time.Millisecond)
		if err != nil {
			if errors.Is(err, unix.ECONNREFUSED) {
				answer = "refused"
			}
			return nil
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		if strings.HasPrefix(network, "udp") {
			io.WriteString(c, "?")
		}
		buf := make([]byte, 100)
		if n, err := c.Read(buf); n > 0 {
			answer = string(buf[:n])
		} else if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) {
			answer = "refused"
		}
		return nil
	})
	return answer
}

// knock is ask without the client's address.
func knock(ns *kernel.Namespace, network, addr string, want ...string) string {
	who, _, _ := strings.Cut(ask(ns, network, addr, want...), " ")
	return who
}

func published(t *testing.T, specs ...string) wire.PortMap {
	m := wire.PortMap{}
	for _, s := range specs {
		host, c, _ := strings.Cut(s, ">")
		b := wire.PortBinding{HostPort: host}
		if addr, p, ok := strings.Cut(host, ":"); ok {
			b.HostIP, b.HostPort = netip.MustParseAddr(addr), p
		}
		m[tcp(t, c)] = append(m[tcp(t, c)], b)
	}
	return m
}
