package clients

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
)

// TestQuestionsFromContainers asks a container's name server as resolvers do that
// busybox is not like: by TCP, for more than a datagram has, and for both versions
// of IP at once by one socket. Others are asked at --dns, from the container.
func TestQuestionsFromContainers(t *testing.T) {
	d := testkit.StartBusybox(t)
	docker(t, d, "network", "create", "--ipv6", "--subnet", "10.74.9.0/24", "--gateway", "10.74.9.1", "--subnet", "fd74:9::/64", "asking")
	docker(t, d, "run", "-d", "--name", "web", "--network", "asking", "busybox", "sleep", "600")
	docker(t, d, "run", "-d", "--name", "guest", "--network", "asking", "--dns", "10.74.9.1", "--dns-search", "example", "--dns-opt", "timeout:9", "busybox", "sleep", "600")
	elsewhere(t, "10.74.9.1:53")
	inside := enter(t, docker(t, d, "inspect", "-f", "{{.State.Pid}}", "guest"))

	conf := docker(t, d, "exec", "guest", "cat", "/etc/resolv.conf")
	for _, want := range []string{"nameserver 127.0.0.11", "search example", "timeout:9"} {
		if !strings.Contains(conf, want) {
			t.Errorf("resolv.conf does not say %q:\n%s", want, conf)
		}
	}
	for _, c := range []struct {
		network, name string
		size          int // that the client takes; 0: none said
		texts         int // that come; -1: truncated
	}{
		{"udp", "texts12.example.", 0, -1},
		{"udp", "texts12.example.", 4096, 12},
		{"udp", "texts16.example.", 4096, -1},
		{"tcp", "texts16.example.", 0, 16},
		{"tcp", "texts12.example.", 4096, 12},
	} {
		m := inside.ask(c.network, question(t, 7, c.name, dnsmessage.TypeTXT, c.size))[0]
		texts, sum := 0, 0
		if len(m.Answers) == 1 {
			list := m.Answers[0].Body.(*dnsmessage.TXTResource).TXT
			texts, sum = len(list), len(strings.Join(list, ""))
		}
		if m.Truncated {
			texts = -1
		}
		if texts != c.texts || texts > 0 && sum != 255*texts {
			t.Errorf("%s, %d bytes taken: %s has %d texts of %d bytes", c.network, c.size, c.name, texts, sum)
		}
	}
	want := docker(t, d, "inspect", "-f", "{{with .NetworkSettings.Networks.asking}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}", "web")
	for name, want := range map[string]string{"web.": want, "ext.example.": "203.0.113.7 2001:db8::7"} {
		got := map[uint16]string{}
		for _, m := range inside.ask("udp", question(t, 1, name, dnsmessage.TypeA, 0), question(t, 2, name, dnsmessage.TypeAAAA, 0)) {
			for _, a := range m.Answers {
				switch b := a.Body.(type) {
				case *dnsmessage.AResource:
					got[m.ID] += net.IP(b.A[:]).String()
				case *dnsmessage.AAAAResource:
					got[m.ID] += net.IP(b.AAAA[:]).String()
				}
			}
		}
		if s := got[1] + " " + got[2]; s != want {
			t.Errorf("%s asked for both at once: %q, want %q", name, s, want)
		}
	}
	d.OK(t, "rm", "-f", "web", "guest")
	d.OK(t, "network", "rm", "asking")
}

// elsewhere is a name server of the outside: textsN.example has N texts of 255
// bytes, by UDP only the word that they do not fit; ext.example has addresses.
func elsewhere(t *testing.T, at string) {
	t.Helper()
	u, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo(answerElsewhere(b[:n], "udp"), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if q, err := framed(c); err == nil {
				r := answerElsewhere(q, "tcp")
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(r))), r...))
			}
			c.Close()
		}
	}()
}

func answerElsewhere(q []byte, network string) []byte {
	var m dnsmessage.Message
	if m.Unpack(q) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Additionals = true, nil
	head := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: m.Questions[0].Type, Class: dnsmessage.ClassINET, TTL: 60}
	var n int
	switch _, err := fmt.Sscanf(head.Name.String(), "texts%d.", &n); {
	case err == nil && network == "udp":
		m.Truncated = true
	case err == nil:
		texts := &dnsmessage.TXTResource{}
		for range n {
			texts.TXT = append(texts.TXT, strings.Repeat("x", 255))
		}
		m.Answers = []dnsmessage.Resource{{Header: head, Body: texts}}
	case head.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: [4]byte{203, 0, 113, 7}}}}
	case head.Type == dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AAAAResource{AAAA: [16]byte{0x20, 1, 0xd, 0xb8, 15: 7}}}}
	}
	b, _ := m.Pack()
	return b
}

// question packs one; size is how long a datagram the client takes, 0 for
// nothing said of that.
func question(t *testing.T, id uint16, name string, kind dnsmessage.Type, size int) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	if size > 0 {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(size, dnsmessage.RCodeSuccess, false); err != nil {
			t.Fatal(err)
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// space is the network namespace of a process.
type space struct {
	t    *testing.T
	file *os.File
}

func enter(t *testing.T, pid string) space {
	t.Helper()
	f, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return space{t, f}
}

// ask sends questions to 127.0.0.11 from the namespace by one socket, all at once,
// and returns as many answers.
func (s space) ask(network string, questions ...[]byte) []dnsmessage.Message {
	s.t.Helper()
	type dialled struct {
		c   net.Conn
		err error
	}
	got := make(chan dialled, 1)
	go func() { // the thread ends with the goroutine: it never comes back
		runtime.LockOSThread()
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			got <- dialled{nil, err}
			return
		}
		c, err := net.DialTimeout(network, "127.0.0.11:53", 10*time.Second)
		got <- dialled{c, err}
	}()
	d := <-got
	if d.err != nil {
		s.t.Fatal(d.err)
	}
	defer d.c.Close()
	d.c.SetDeadline(time.Now().Add(30 * time.Second))
	for _, q := range questions {
		if network == "tcp" {
			q = append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
		}
		if _, err := d.c.Write(q); err != nil {
			s.t.Fatal(err)
		}
	}
	var out []dnsmessage.Message
	for range questions {
		b, err := make([]byte, 65535), error(nil)
		if network == "tcp" {
			b, err = framed(d.c)
		} else {
			var n int
			n, err = d.c.Read(b)
			b = b[:n]
		}
		var m dnsmessage.Message
		if err == nil {
			err = m.Unpack(b)
		}
		if err != nil {
			s.t.Fatalf("by %s: %v", network, err)
		}
		out = append(out, m)
	}
	return out
}

// framed reads one message of a stream (RFC 1035, 4.2.2).
func framed(r io.Reader) ([]byte, error) {
	var n uint16
	if err := binary.Read(r, binary.BigEndian, &n); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
