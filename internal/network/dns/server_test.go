package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// sockets are a site's on a loopback address.
func sockets(t testing.TB) (Sockets, string) {
	t.Helper()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l, err := net.Listen("tcp", u.LocalAddr().String())
	if err != nil {
		t.Skip("the port is in use for TCP:", err)
	}
	defer l.Close()
	uf, err1 := u.(*net.UDPConn).File()
	tf, err2 := l.(*net.TCPListener).File()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return Sockets{UDP: uf, TCP: tf}, u.LocalAddr().String()
}

func serve(t testing.TB, o Options, v *View) (*Server, string) {
	t.Helper()
	s := New(context.Background(), o)
	t.Cleanup(s.Close)
	so, addr := sockets(t)
	if err := s.Serve("1", so, v); err != nil {
		t.Fatal(err)
	}
	return s, addr
}

// upstream answers by UDP and TCP with what answer makes of a question; nothing
// if that is nil.
func upstream(t testing.TB, answer func(q []byte, tcp bool) []byte) Upstream {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", p.LocalAddr().String())
	if err != nil {
		t.Skip("the port is in use for TCP:", err)
	}
	t.Cleanup(func() { p.Close(); l.Close() })
	go func() {
		b := make([]byte, 65535)
		for {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			q := append([]byte(nil), b[:n]...)
			go func() {
				if r := answer(q, false); r != nil {
					p.WriteTo(r, from)
				}
			}()
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if q, err := readTCP(c); err == nil {
					if r := answer(q, true); r != nil {
						c.Write(append(be.AppendUint16(nil, uint16(len(r))), r...))
					}
				}
			}()
		}
	}()
	return Upstream{Addr: netip.MustParseAddrPort(p.LocalAddr().String()), Host: true}
}

func readTCP(c io.Reader) ([]byte, error) {
	var n uint16
	if err := binary.Read(c, binary.BigEndian, &n); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}

// says answers every question for an address with addr.
func says(t testing.TB, addr [4]byte, count *atomic.Int32) func([]byte, bool) []byte {
	return func(q []byte, _ bool) []byte {
		count.Add(1)
		return theirs(t, q, func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{a(m.Questions[0].Name.String(), 60, addr)}
		})
	}
}

func call(t testing.TB, network, addr string, q []byte) dnsmessage.Message {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 65535)
	if network == "tcp" {
		c.Write(append(be.AppendUint16(nil, uint16(len(q))), q...))
		b, err = readTCP(c)
	} else {
		c.Write(q)
		var n int
		n, err = c.Read(b)
		b = b[:n]
	}
	if err != nil {
		t.Fatalf("%s: %v", network, err)
	}
	m := read(t, b)
	if m.ID != be.Uint16(q) {
		t.Fatalf("the answer has number %d, not %d", m.ID, be.Uint16(q))
	}
	return m
}

func asked(us ...Upstream) *View {
	v := town()
	v.Upstreams = func() []Upstream { return us }
	return v
}

func TestServes(t *testing.T) {
	var n atomic.Int32
	s, addr := serve(t, Options{}, asked(upstream(t, says(t, [4]byte{9, 9, 9, 9}, &n))))
	for _, network := range []string{"udp", "tcp"} {
		if got := told(call(t, network, addr, ask(t, "web.", dnsmessage.TypeA, nil))); got != "10.1.0.2" {
			t.Errorf("%s: %q", network, got)
		}
		if got := told(call(t, network, addr, ask(t, "Example.org.", dnsmessage.TypeA, nil))); got != "9.9.9.9" {
			t.Errorf("%s: %q", network, got)
		}
	}
	if n.Load() != 1 {
		t.Errorf("the name server was asked %d times", n.Load())
	}
	s.See("1", &View{})
	if m := call(t, "udp", addr, ask(t, "example.org.", dnsmessage.TypeA, nil)); m.RCode != dnsmessage.RCodeServerFailure {
		t.Error("without name servers:", m.RCode)
	}
	if m := call(t, "udp", addr, ask(t, "web.", dnsmessage.TypeA, nil)); m.RCode != dnsmessage.RCodeNameError {
		t.Error("without networks:", m.RCode)
	}
	s.Stop("1")
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("it listens after it was stopped")
	}
}

func TestOnlyQuestionsAreAnswered(t *testing.T) {
	_, addr := serve(t, Options{}, town())
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, b := range [][]byte{{}, {1, 2, 3}, make([]byte, 60000), []byte(strings.Repeat("\xff", 500))} {
		c.Write(b)
	}
	q := ask(t, "web.", dnsmessage.TypeA, nil)
	q[2] |= 0x80
	c.Write(q)
	good := ask(t, "web.", dnsmessage.TypeA, nil)
	c.Write(good)
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if n > 500 {
			t.Errorf("an answer of %d bytes to nonsense", n)
		}
		if be.Uint16(b) == be.Uint16(good) && n > headerLen {
			break
		}
	}
}

func TestOthersFail(t *testing.T) {
	var n atomic.Int32
	good := upstream(t, says(t, [4]byte{9, 9, 9, 9}, &n))
	silent := upstream(t, func([]byte, bool) []byte { return nil })
	broken := upstream(t, func(q []byte, _ bool) []byte {
		return theirs(t, q, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeRefused })
	})
	forger := upstream(t, func(q []byte, _ bool) []byte {
		return theirs(t, q, func(m *dnsmessage.Message) {
			m.ID++
			m.Answers = []dnsmessage.Resource{a("example.org.", 60, [4]byte{6, 6, 6, 6})}
		})
	})
	gone := Upstream{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Host: true}
	for _, c := range []struct {
		what string
		us   []Upstream
		most time.Duration
		want string
	}{
		{"silent", []Upstream{silent, good}, patience, "9.9.9.9"},
		{"broken", []Upstream{broken, good}, patience, "9.9.9.9"},
		{"gone", []Upstream{gone, good}, patience, "9.9.9.9"},
		{"forged", []Upstream{forger, good}, patience, "9.9.9.9"},
		{"all broken", []Upstream{broken, broken}, patience, ""},
		{"none", nil, patience, ""},
		{"all silent", []Upstream{silent}, 3 * patience, ""},
	} {
		_, addr := serve(t, Options{}, asked(c.us...))
		began := time.Now()
		m := call(t, "udp", addr, ask(t, "example.org.", dnsmessage.TypeA, nil))
		if told(m) != c.want || c.want == "" && m.RCode == dnsmessage.RCodeSuccess {
			t.Errorf("%s: %q %v", c.what, told(m), m.RCode)
		}
		if took := time.Since(began); took > c.most {
			t.Errorf("%s: took %v", c.what, took)
		}
	}
}

func TestLongAnswers(t *testing.T) {
	var byTCP atomic.Int32
	up := upstream(t, func(q []byte, tcp bool) []byte {
		return theirs(t, q, func(m *dnsmessage.Message) {
			if !tcp {
				m.Truncated = true
				return
			}
			byTCP.Add(1)
			for i := range 100 {
				m.Answers = append(m.Answers, a(m.Questions[0].Name.String(), 60, [4]byte{9, 9, 9, byte(i)}))
			}
		})
	})
	_, addr := serve(t, Options{}, asked(up))
	m := call(t, "udp", addr, ask(t, "example.org.", dnsmessage.TypeA, nil))
	if !m.Truncated {
		t.Error("an answer that does not fit does not say so")
	}
	if m = call(t, "tcp", addr, ask(t, "example.org.", dnsmessage.TypeA, nil)); m.Truncated || len(m.Answers) != 100 {
		t.Errorf("by TCP: %d answers", len(m.Answers))
	}
	if m = call(t, "udp", addr, ask(t, "example.org.", dnsmessage.TypeA, edns(4096, false))); m.Truncated || len(m.Answers) != 100 {
		t.Errorf("to one that takes long datagrams: %d answers", len(m.Answers))
	}
	if byTCP.Load() != 2 {
		t.Errorf("asked by TCP %d times, not once with and once without options", byTCP.Load())
	}
}

func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	var n atomic.Int32
	answer := says(t, [4]byte{9, 9, 9, 9}, &n)
	up := upstream(t, func(q []byte, tcp bool) []byte { time.Sleep(100 * time.Millisecond); return answer(q, tcp) })
	_, addr := serve(t, Options{}, asked(up))
	done := make(chan string)
	for range 20 {
		go func() { done <- told(call(t, "udp", addr, ask(t, "example.org.", dnsmessage.TypeA, nil))) }()
	}
	for range 20 {
		if got := <-done; got != "9.9.9.9" {
			t.Error(got)
		}
	}
	if n.Load() != 1 {
		t.Errorf("asked %d times", n.Load())
	}
}

// TestOneDoesNotStarveOthers: a container whose questions nobody answers has as
// many waiting as it may, and others are answered; its own names, too.
func TestOneDoesNotStarveOthers(t *testing.T) {
	silent := upstream(t, func([]byte, bool) []byte { return nil })
	s, addr := serve(t, Options{Forwards: 8, Conns: 4}, asked(silent))
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 100 {
		c.Write(ask(t, fmt.Sprintf("n%d.example.org.", i), dnsmessage.TypeA, nil))
	}
	c.SetDeadline(time.Now().Add(2 * time.Second))
	b := make([]byte, 4096)
	for range 92 {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if m := read(t, b[:n]); m.RCode != dnsmessage.RCodeServerFailure {
			t.Error(m.RCode)
		}
	}
	if got := told(call(t, "udp", addr, ask(t, "web.", dnsmessage.TypeA, nil))); got != "10.1.0.2" {
		t.Error("its own names:", got)
	}
	var n atomic.Int32
	so, other := sockets(t)
	if err := s.Serve("2", so, asked(upstream(t, says(t, [4]byte{9, 9, 9, 9}, &n)))); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if got := told(call(t, "udp", other, ask(t, "example.org.", dnsmessage.TypeA, nil))); got != "9.9.9.9" || time.Since(began) > patience {
		t.Error("another container:", got, time.Since(began))
	}
	var conns []net.Conn
	for range 5 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	closed := 0
	for end := time.Now().Add(10 * time.Second); closed == 0 && time.Now().Before(end); {
		for _, c := range conns {
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err := c.Read(b); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				closed++
			}
		}
	}
	if closed != 1 {
		t.Errorf("%d of 5 connections were refused, not 1", closed)
	}
	began = time.Now()
	s.Stop("1")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("stopping took %v", took)
	}
}

func BenchmarkNames(b *testing.B) {
	v := town()
	msg := ask(b, "www.", dnsmessage.TypeA, nil)
	out := make([]byte, maxUDP)
	b.ReportAllocs()
	for b.Loop() {
		q, _ := parseQuery(msg)
		x, _ := v.resolve(&q)
		q.reply(out, x, q.size)
	}
}
