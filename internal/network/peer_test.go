package network

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/network/kernel"
	"gantry/internal/testkit"
)

// differences are the cells of the matrix in which docker.io 20.10 answers
// otherwise than Gantry, by row and column, with what it says there.
//
// From elsewhere every port is open there at the container's own address, for
// whoever routes through the host: those that are published always, so that
// binding one to 127.0.0.1 protects nothing, the others where the host forwarded
// before (as here). Docker itself has closed that since.
//
// Datagrams of containers to a port published at the host are served there by a
// process, which answers from another address than was asked.
var differences = map[string]map[string]string{
	"v4 own address, published tcp4":     {"lan": "v4"},
	"v4 own address, published udp4":     {"lan": "v4"},
	"v4 own address, not published tcp4": {"lan": "v4"},
	"v4 own address, not published udp4": {"lan": "v4"},
	"v4 published, 192.0.2.2 udp4":       {"same": "-", "other": "-"},
}

// TestMatrixOfDocker makes the part of IPv4 of the matrix with Debian's docker.io
// and holds it against ours. It runs where GANTRY_PEER is set.
func TestMatrixOfDocker(t *testing.T) {
	p := startPeer(t)
	p.docker("network", "create", "other")
	v4 := p.container("v4", "-p", "8080:80/tcp", "-p", "8080:80/udp", "-p", "127.0.0.1:8081:80/tcp", "-p", "127.0.0.1:8081:80/udp")
	p.spaces["same"], p.spaces["other"] = p.container("near"), p.container("far", "--network", "other")
	serve(t, v4, 80, "v4")
	serve(t, v4, 83, "v4")
	own := p.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "v4")
	golden := cells(t, "testdata/matrix.txt")
	for _, proto := range []string{"tcp4", "udp4"} {
		for what, to := range map[string]string{
			"published, 192.0.2.2": "192.0.2.2:8080", "published, 127.0.0.1": "127.0.0.1:8080",
			"on 127.0.0.1 only, 127.0.0.1": "127.0.0.1:8081", "on 127.0.0.1 only, 192.0.2.2": "192.0.2.2:8081",
			"own address, published": own + ":80", "own address, not published": own + ":83",
		} {
			row := "v4 " + what + " " + proto
			for i, from := range []string{"host", "lan", "same", "other"} {
				if len(golden[row]) != 4 {
					t.Fatalf("our matrix has no row %q", row)
				}
				want := golden[row][i]
				if d := differences[row][from]; d != "" {
					want = d
				}
				if got := knock(p.spaces[from], proto, to, want); got != want {
					t.Errorf("%s from %s: docker.io says %q, we %q", row, from, got, golden[row][i])
				}
			}
		}
	}
	p.docker("rm", "-f", "v4", "near", "far")
}

// peer is docker.io with a machine on its LAN, as machine makes one for us.
type peer struct {
	*testkit.Peer
	t      *testing.T
	spaces map[string]*kernel.Namespace
}

func startPeer(t *testing.T) *peer {
	t.Helper()
	if os.Getenv("GANTRY_PEER") == "" {
		t.Skip("GANTRY_PEER is not set")
	}
	needRoot(t)
	p := &peer{testkit.StartPeer(t), t, map[string]*kernel.Namespace{}}
	var image bytes.Buffer
	if err := testkit.Busybox(&image, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	load := exec.Command(p.CLI, "-H", "unix://"+p.Socket, "load")
	load.Stdin = &image
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("load: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", "peerlan").Run() })
	ip(t, "netns", "add", "peerlan")
	for _, script := range []string{"ip link add up-lan type veth peer name eth0 netns peerlan", "ip addr add 192.0.2.2/24 dev up-lan", "ip link set up-lan up"} {
		cmd := p.Enter(strings.Fields(script)...)
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
	}
	for _, script := range []string{"link set lo up", "link set eth0 up", "addr add 192.0.2.9/24 dev eth0", "route add default via 192.0.2.2"} {
		ip(t, append([]string{"-n", "peerlan"}, strings.Fields(script)...)...)
	}
	p.spaces["host"], p.spaces["lan"] = p.space(fmt.Sprintf("/proc/%d/ns/net", p.Pid)), p.space("/run/netns/peerlan")
	return p
}

func (p *peer) docker(args ...string) string {
	p.t.Helper()
	out, err := exec.Command(p.CLI, append([]string{"-H", "unix://" + p.Socket}, args...)...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("docker %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (p *peer) space(path string) *kernel.Namespace {
	p.t.Helper()
	ns, err := kernel.OpenNamespace(path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(ns.Close)
	return ns
}

// container starts one and returns its network namespace.
func (p *peer) container(name string, args ...string) *kernel.Namespace {
	p.t.Helper()
	p.docker(append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sleep", "600")...)
	key := p.docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", name)
	return p.space(fmt.Sprintf("/proc/%d/root%s", p.Pid, strings.Replace(key, "/var/run/", "/run/", 1)))
}

// TestConnectionRate counts how many connections a second a host of the LAN
// makes through a published port, by turns with docker.io's.
func TestConnectionRate(t *testing.T) {
	p := startPeer(t)
	theirs := p.container("served", "-p", "8080:80")
	b := open(t, nil)
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	s := b.attach(t, AttachRequest{Name: "served", Mode: "bridge", Ports: published(t, "8080>80/tcp")})
	serve(t, theirs, 80, "x")
	serve(t, namespace(t, s), 80, "x")
	rate := func(client *kernel.Namespace) float64 {
		t.Helper()
		const clients, each = 4, 75
		failed := make([]error, clients)
		var all sync.WaitGroup
		begin := time.Now()
		for i := range clients {
			all.Go(func() {
				failed[i] = client.Do(func() error {
					for range each {
						c, err := net.DialTimeout("tcp4", "192.0.2.2:8080", 10*time.Second)
						if err != nil {
							return err
						}
						_, err = io.ReadAll(c)
						if c.Close(); err != nil {
							return err
						}
					}
					return nil
				})
			})
		}
		all.Wait()
		if err := errors.Join(failed...); err != nil {
			t.Fatal(err)
		}
		return clients * each / time.Since(begin).Seconds()
	}
	// Many short rounds, each first in turn: what else the machine does hits both.
	var ratios []float64
	for i := range 61 {
		var ours, other float64
		if i%2 == 0 {
			ours, other = rate(lan), rate(p.spaces["lan"])
		} else {
			other, ours = rate(p.spaces["lan"]), rate(lan)
		}
		ratios = append(ratios, ours/other)
	}
	slices.Sort(ratios)
	m := ratios[len(ratios)/2]
	t.Logf("our rate by docker.io's: median %.3f, half of the rounds from %.2f to %.2f", m, ratios[len(ratios)/4], ratios[len(ratios)*3/4])
	if m < 0.95 {
		t.Errorf("the rate of connections is %.2f of docker.io's", m)
	}
	b.detach(t, s.ID)
	p.docker("rm", "-f", "served")
}
