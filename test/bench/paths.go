package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gantry/internal/network/kernel"
)

// A path leads from a client to a server that listens in a namespace of its
// own.
type path struct {
	client, server *kernel.Namespace
	listen, dial   string
}

// shell runs a script that makes links and rules as somebody would by hand.
func shell(script string) error {
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// byHand makes what a container and its neighbours have, with ip(8) and nft(8)
// alone: a machine of its own (gbh) with a bridge, two namespaces on it, and a
// client beyond that reaches port 8080 of the machine.
const byHand = `for n in gbh gba gbb gbc; do ip netns add $n; done
H="ip netns exec gbh"
$H sh -ec 'ip link set lo up; sysctl -qw net.ipv4.ip_forward=1; ip link add br0 type bridge; ip addr add 10.211.0.1/24 dev br0; ip link set br0 up'
for n in a b; do
	ip -n gbh link add v$n master br0 type veth peer name eth0 netns gb$n; ip -n gbh link set v$n up
	ip -n gb$n link set eth0 up
done
ip -n gba addr add 10.211.0.2/24 dev eth0; ip -n gbb addr add 10.211.0.3/24 dev eth0
for n in a b; do ip -n gb$n route add default via 10.211.0.1; done
ip -n gbh link add vc type veth peer name eth0 netns gbc; ip -n gbh link set vc up; ip -n gbh addr add 10.212.0.1/24 dev vc
ip -n gbc link set eth0 up; ip -n gbc addr add 10.212.0.2/24 dev eth0
$H nft -f - <<E
table inet t {
	chain before { type nat hook prerouting priority dstnat; tcp dport 8080 dnat ip to 10.211.0.2:7001; }
	chain after { type nat hook postrouting priority srcnat; ip saddr 10.211.0.0/24 oifname != "br0" masquerade; }
	chain passing { type filter hook forward priority filter; ct state established,related accept; oifname "br0" ct status dnat accept; }
}
E`

// outside is a client of this machine, as a host of its LAN is.
const outside = `ip netns add gbl; ip link add gblv type veth peer name eth0 netns gbl; ip link set gblv up; ip addr add 10.213.0.1/24 dev gblv
ip -n gbl link set eth0 up; ip -n gbl addr add 10.213.0.2/24 dev eth0`

func dismantle() {
	for _, n := range []string{"gbh", "gba", "gbb", "gbc", "gbl"} {
		_ = exec.Command("ip", "netns", "del", n).Run()
	}
	_ = exec.Command("ip", "link", "del", "gblv").Run()
}

// world are the namespaces of a run of the network's measures.
type world struct {
	d      *daemon
	spaces map[string]*kernel.Namespace
}

func (w *world) open(name, file string) error {
	ns, err := kernel.OpenNamespace(file)
	w.spaces[name] = ns
	return err
}

func (w *world) close() {
	for _, ns := range w.spaces {
		ns.Close()
	}
	dismantle()
	_ = w.d.gantry("rm", "-f", "bench-server", "bench-client")
	_ = w.d.gantry("network", "rm", "bench-net")
}

// build makes both worlds: that by hand, and two containers with a client
// outside.
func build(d *daemon) (*world, error) {
	w := &world{d: d, spaces: map[string]*kernel.Namespace{}}
	dismantle() // of a run that was killed
	if err := errors.Join(shell(byHand), shell(outside)); err != nil {
		w.close()
		return nil, err
	}
	for _, n := range []string{"gba", "gbb", "gbc", "gbl"} {
		if err := w.open(n, "/run/netns/"+n); err != nil {
			w.close()
			return nil, err
		}
	}
	err := d.gantry("network", "create", "bench-net")
	for name, args := range map[string][]string{"server": {"-p", "18080:7001"}, "client": nil} {
		args = append(append([]string{"run", "-d", "--name", "bench-" + name, "--network", "bench-net"}, args...), "busybox", "sleep", "3600")
		err = errors.Join(err, d.gantry(args...))
		pid, e := d.output("inspect", "-f", "{{.State.Pid}}", "bench-"+name)
		err = errors.Join(err, e)
		if err == nil {
			err = w.open(name, "/proc/"+pid+"/ns/net")
		}
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// paths returns those of the daemon and those by hand: within a network and
// through a published port.
func (w *world) paths(d *daemon) (within, port [2]path, err error) {
	addr, err := d.output("inspect", "-f", `{{(index .NetworkSettings.Networks "bench-net").IPAddress}}`, "bench-server")
	if err != nil {
		return
	}
	s := w.spaces
	within = [2]path{{s["client"], s["server"], ":7000", addr + ":7000"}, {s["gbb"], s["gba"], ":7000", "10.211.0.2:7000"}}
	port = [2]path{{s["gbl"], s["server"], ":7001", "10.213.0.1:18080"}, {s["gbc"], s["gba"], ":7001", "10.212.0.1:8080"}}
	return within, port, nil
}

func (p path) serve() (l net.Listener, err error) {
	err = p.server.Do(func() (err error) { l, err = net.Listen("tcp4", p.listen); return err })
	return l, err
}

// throughput returns how many bits a second of one connection arrive.
func (p path) throughput() (float64, error) {
	const settle, span = 100 * time.Millisecond, 500 * time.Millisecond
	l, err := p.serve()
	if err != nil {
		return 0, err
	}
	defer l.Close()
	got := make(chan float64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- 0
			return
		}
		defer c.Close()
		buf := make([]byte, 256<<10)
		sum, begin := 0, time.Now()
		for from := begin.Add(settle); ; {
			n, err := c.Read(buf)
			if now := time.Now(); err != nil || now.Sub(begin) > span {
				break
			} else if now.Before(from) {
				continue
			}
			if sum == 0 {
				begin = time.Now()
			}
			sum += n
		}
		got <- float64(sum) * 8 / time.Since(begin).Seconds()
	}()
	var c net.Conn
	err = p.client.Do(func() (err error) { c, err = net.DialTimeout("tcp4", p.dial, 5*time.Second); return err })
	if err != nil {
		return 0, err
	}
	defer c.Close()
	go io.Copy(struct{ io.Writer }{c}, endless{})
	return <-got, nil
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// connections returns how many connections a second are made, one after another
// by four clients.
func (p path) connections() (float64, error) {
	const clients, each = 4, 500
	l, err := p.serve()
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*net.TCPConn).SetLinger(0) // no port is left waiting
			_, _ = c.Write([]byte{1})
			go func() { _, _ = c.Read(make([]byte, 1)); c.Close() }()
		}
	}()
	failed := make([]error, clients)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range clients {
		all.Go(func() {
			failed[i] = p.client.Do(func() error {
				for range each {
					c, err := net.DialTimeout("tcp4", p.dial, 5*time.Second)
					if err != nil {
						return err
					}
					_, err = c.Read(make([]byte, 1))
					_ = c.(*net.TCPConn).SetLinger(0)
					if c.Close(); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	all.Wait()
	return clients * each / time.Since(begin).Seconds(), errors.Join(failed...)
}

// compare measures two paths by turns and returns the median of the ratios of
// the first to the second.
func compare(rounds int, paths [2]path, measure func(path) (float64, error)) (ratio, first float64, err error) {
	var ratios, values []float64
	for range rounds {
		var v [2]float64
		for i, p := range paths {
			if v[i], err = measure(p); err != nil {
				return 0, 0, err
			}
		}
		ratios, values = append(ratios, v[0]/v[1]), append(values, v[0])
	}
	return middle(ratios), middle(values), nil
}

// resident returns the memory of a process in kB.
func resident(pid int) (uint64, error) {
	return kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
}

// helpers counts the processes of a daemon beside itself and the shims of some
// containers.
func helpers(d *daemon, containers int) (int, error) {
	shims, err := shimsOf(d.run)
	if err != nil {
		return 0, err
	}
	n := len(shims) - containers
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", d.cmd.Process.Pid))
	for _, c := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(c); err == nil && !slices.Contains(shims, pid) {
			n++
		}
	}
	return n, err
}
