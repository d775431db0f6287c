package network

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gantry/internal/network/kernel"
	"gantry/internal/network/ledger"
	"gantry/internal/wire"
)

// pump sends from one namespace to another for the given time and returns the
// bits per second that arrived.
func pump(t *testing.T, from, to *kernel.Namespace, addr string) float64 {
	t.Helper()
	var l net.Listener
	listen := func() (err error) { l, err = net.Listen("tcp4", addr); return err }
	var err error
	if to == nil {
		err = listen()
	} else {
		err = to.Do(listen)
	}
	if err != nil {
		t.Fatal(err)
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
		buf := make([]byte, 64<<10)
		// What passes at once at the beginning does not count.
		settled := time.Now().Add(250 * time.Millisecond)
		for time.Now().Before(settled) {
			if _, err := c.Read(buf); err != nil {
				got <- 0
				return
			}
		}
		begin, sum := time.Now(), 0
		for time.Since(begin) < time.Second {
			n, err := c.Read(buf)
			sum += n
			if err != nil {
				break
			}
		}
		got <- float64(sum) * 8 / time.Since(begin).Seconds()
	}()
	var c net.Conn
	dial := func() (err error) { c, err = net.DialTimeout("tcp4", addr, 2*time.Second); return err }
	if from == nil {
		err = dial()
	} else {
		err = from.Do(dial)
	}
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(c, endless{})
	defer c.Close()
	return <-got
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestRateBounds: what a container receives and sends obeys its bounds, also
// after they are changed while it runs and after a new daemon has taken over.
func TestRateBounds(t *testing.T) {
	b := open(t, nil)
	r := AttachRequest{Name: "slow", Mode: "bridge", Rate: wire.NetRate{In: 20e6, Out: 8e6}}
	s := b.attach(t, r)
	r.ID = s.ID
	ns := namespace(t, s)
	ip, gw := s.Endpoints[0].IPv4.Addr().String(), s.Endpoints[0].Gateway4.String()
	check := func(when string, in, out float64) {
		t.Helper()
		for _, m := range []struct {
			way  string
			want float64
			rate func() float64
		}{
			{"in", in, func() float64 { return pump(t, nil, ns, ip+":7000") }},
			{"out", out, func() float64 { return pump(t, ns, nil, gw+":7001") }},
		} {
			// A busy machine makes it slower, never faster.
			got, slow := 0.0, true
			for try := 0; slow && try < 6; try++ {
				got = m.rate()
				slow = m.want == 0 && got < 100e6 || got < 0.7*m.want
				t.Logf("%s, %s: %.2f Mbit/s of %.2f", when, m.way, got/1e6, m.want/1e6)
			}
			if slow || m.want != 0 && got > 1.15*m.want {
				t.Errorf("%s, %s: %.2f Mbit/s, want %.2f", when, m.way, got/1e6, m.want/1e6)
			}
		}
	}
	check("at the start", 20e6, 8e6)
	// What the container does to its own interface lifts nothing.
	if err := ns.Do(func() error {
		out, err := exec.Command("sh", "-c", "tc qdisc del dev eth0 root; tc qdisc del dev eth0 ingress; tc qdisc add dev eth0 root pfifo limit 1000").CombinedOutput()
		t.Logf("tc in the container: %s", out)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	check("after tc in the container", 20e6, 8e6)
	b.reopen(t)
	r.Rate = wire.NetRate{In: 5e6, Out: 50e6}
	if _, err := b.Republish(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	b.reopen(t)
	check("changed", 5e6, 50e6)
	if e := b.book.Get(s.ID); e.Rate != r.Rate {
		t.Errorf("the books say %+v", e.Rate)
	}
	r.Rate = wire.NetRate{}
	if _, err := b.Republish(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	check("without bounds", 0, 0)
	if l, err := kernelLinks(); err != nil || strings.Contains(l, ledger.QueuePrefix) {
		t.Errorf("a queue without bounds: %s %v", l, err)
	}
	r.Rate = wire.NetRate{Out: 9e6}
	if _, err := b.Republish(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	b.detach(t, s.ID)
	b.clean(t)
}

// TestQueueLeftOver: a queue whose container nobody knows is found and removed,
// and one of another daemon is left alone.
func TestQueueLeftOver(t *testing.T) {
	b := open(t, nil)
	s := b.attach(t, AttachRequest{Name: "slow", Mode: "bridge", Rate: wire.NetRate{Out: 8e6}})
	ip(t, "link", "add", "gq0123456789a0", "type", "ifb")
	defer exec.Command("ip", "link", "del", "gq0123456789a0").Run()
	ip(t, "link", "set", "gq0123456789a0", "alias", "another")
	if err := os.Remove(b.opts.RunDir + "/sandbox/" + s.ID + ".json"); err != nil {
		t.Fatal(err)
	}
	b.reopen(t)
	if err := b.Reconcile(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if l, _ := kernelLinks(); !strings.Contains(l, "gq0123456789a0") || strings.Count(l, " "+ledger.QueuePrefix) != 1 {
		t.Errorf("links: %s", l)
	}
	b.clean(t)
}
