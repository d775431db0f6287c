package driver

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/plan"
)

var t0 = time.Date(2024, 5, 6, 7, 8, 9, 123_456_789, time.UTC)

func info(driver string, opts ...string) plan.LogInfo {
	o := map[string]string{}
	for _, kv := range opts {
		k, v, _ := strings.Cut(kv, "=")
		o[k] = v
	}
	return plan.LogInfo{
		Driver: driver, Options: o, ContainerID: strings.Repeat("c", 64), ContainerName: "web", Image: "img:1",
		ImageDigest: "sha256:12", Created: t0, Args: []string{"run", "it"}, Labels: map[string]string{"app.x": "y"}, Environ: []string{"E=1"},
	}
}

func send(t *testing.T, i plan.LogInfo, batch ...Message) Sender {
	t.Helper()
	s, err := New(i)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	return s
}

func out(line string) Message { return Message{Line: []byte(line), Stream: "stdout", Time: t0} }
func bad(line string) Message { return Message{Line: []byte(line), Stream: "stderr", Time: t0} }

// accept returns all that the first connection sends.
func accept(t *testing.T, l net.Listener) <-chan []byte {
	got := make(chan []byte, 1)
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		all, _ := io.ReadAll(c)
		c.Close()
		got <- all
	}()
	return got
}

func listen(t *testing.T, proto, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(proto, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func packets(t *testing.T, proto, addr string) net.PacketConn {
	t.Helper()
	p, err := net.ListenPacket(proto, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	p.SetReadDeadline(time.Now().Add(10 * time.Second))
	return p
}

func packet(t *testing.T, p net.PacketConn) []byte {
	t.Helper()
	b := make([]byte, 1<<17)
	n, _, err := p.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func matches(t *testing.T, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
		t.Errorf("got %q, want %s", got, pattern)
	}
}

func TestSyslogForms(t *testing.T) {
	const id = "cccccccccccc"
	for _, c := range []struct{ format, want string }{
		{"", `<30>\w{3} [ \d]\d \d\d:\d\d:\d\d ` + id + `\[\d+\]: one\n<27>\w.*: two\n`},
		{"rfc3164", `<30>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ ` + id + `\[\d+\]: one\n<27>.*: two\n`},
		{"rfc5424", `<30>1 2024-05-0\dT\d\d:\d\d:09(Z|[+-]\d\d:\d\d) \S+ ` + id + ` \d+ ` + id + ` - one\n<27>1 .* - two\n`},
		{"rfc5424micro", `<30>1 2024-05-0\dT\d\d:\d\d:09\.123456(Z|[+-]\d\d:\d\d) \S+ ` + id + ` \d+ ` + id + ` - one\n<27>1 .* - two\n`},
	} {
		l := listen(t, "tcp", "127.0.0.1:0")
		got := accept(t, l)
		s := send(t, info("syslog", "syslog-address=tcp://"+l.Addr().String(), "syslog-format="+c.format), out("one"), out(""), bad("two"))
		if err := s.Finish(t.Context()); err != nil {
			t.Error(err)
		}
		matches(t, string(<-got), c.want)
	}
}

func TestSyslogDatagrams(t *testing.T) {
	u := packets(t, "udp", "127.0.0.1:0")
	send(t, info("syslog", "syslog-address=udp://"+u.LocalAddr().String(), "syslog-facility=local1", "tag={{.Name}}"), out("one"), bad("two"))
	matches(t, string(packet(t, u)), `<142>.* web\[\d+\]: one\n`)
	matches(t, string(packet(t, u)), `<139>.* web\[\d+\]: two\n`)
	path := filepath.Join(t.TempDir(), "s")
	g := packets(t, "unixgram", path)
	s := send(t, info("syslog", "syslog-address=unix://"+path), out("three"))
	matches(t, string(packet(t, g)), `<30>.*: three\n`)
	if err := s.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	path = filepath.Join(t.TempDir(), "s")
	l := listen(t, "unix", path)
	got := accept(t, l)
	s = send(t, info("syslog", "syslog-address=unix://"+path), out("four"), out("five"))
	if err := s.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	matches(t, string(<-got), `<30>.*: four\n<30>.*: five\n`)
}

func TestSyslogOverTLS(t *testing.T) {
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // for its certificate
	defer web.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	writePEM(t, ca, web.Certificate().Raw)
	for _, opt := range []string{"syslog-tls-ca-cert=" + ca, "syslog-tls-skip-verify=true"} {
		l := listenTLS(t, web.TLS)
		got := accept(t, l)
		s := send(t, info("syslog", "syslog-address=tcp+tls://"+l.Addr().String(), "syslog-format=rfc5424", opt), out("one"), out("two"))
		if err := s.Finish(t.Context()); err != nil {
			t.Error(err)
		}
		r := bufio.NewReader(bytes.NewReader(<-got))
		for _, want := range []string{"one", "two"} { // RFC 5425: length, space, message
			n := 0
			for c, err := r.ReadByte(); c != ' '; c, err = r.ReadByte() {
				if err != nil || c < '0' || c > '9' {
					t.Fatalf("no length: %q %v", c, err)
				}
				n = 10*n + int(c-'0')
			}
			m := make([]byte, n)
			if _, err := io.ReadFull(r, m); err != nil {
				t.Fatal(err)
			}
			matches(t, string(m), `<30>1 .* - `+want+`\n`)
		}
	}
	if _, err := New(info("syslog", "syslog-address=tcp+tls://h:1", "syslog-tls-ca-cert="+dir+"/none")); err == nil {
		t.Error("a certificate that does not exist passed")
	}
	l := listenTLS(t, web.TLS)
	accept(t, l)
	s, err := New(info("syslog", "syslog-address=tcp+tls://"+l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), []Message{out("x")}); err == nil {
		t.Error("sent to a server whose certificate nobody signed")
	}
}

func TestFluentdWithAcknowledgment(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	got := make(chan []any, 4)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r := bufio.NewReader(c)
		for {
			v, err := unpack(r)
			if err != nil {
				return
			}
			m := v.([]any)
			chunk, _ := m[2].(map[string]any)["chunk"].(string)
			c.Write(packString(packString([]byte{0x81}, "ack"), chunk))
			got <- m
		}
	}()
	i := info("fluentd", "fluentd-address="+l.Addr().String(), "fluentd-request-ack=true", "fluentd-sub-second-precision=true", "labels=app.x", "tag=t.{{.Name}}")
	long := strings.Repeat("z", 70000)
	s := send(t, i, out("one"), Message{Line: []byte(long), Stream: "stderr", Time: t0, Partial: &Partial{"p", 2, true}})
	m := <-got
	if m[0] != "t.web" || m[2].(map[string]any)["size"] != uint64(2) {
		t.Errorf("%v", m)
	}
	entries := m[1].([]any)
	first := entries[0].([]any)
	if at := first[0].([]byte); binary.BigEndian.Uint32(at) != uint32(t0.Unix()) || binary.BigEndian.Uint32(at[4:]) != 123456789 {
		t.Errorf("time %v", at)
	}
	rec := first[1].(map[string]any)
	if rec["log"] != "one" || rec["source"] != "stdout" || rec["container_name"] != "/web" || rec["app.x"] != "y" || len(rec) != 5 {
		t.Errorf("%v", rec)
	}
	rec = entries[1].([]any)[1].(map[string]any)
	if rec["log"] != long || rec["source"] != "stderr" || rec["partial_message"] != "true" || rec["partial_id"] != "p" || rec["partial_ordinal"] != "2" || rec["partial_last"] != "true" {
		t.Errorf("the long part: %d fields", len(rec))
	}
	if err := s.Send(t.Context(), []Message{out("two")}); err != nil || s.Doubt() != 0 {
		t.Error(err)
	}
	<-got
	// Without an answer nothing has arrived.
	quiet := listen(t, "tcp", "127.0.0.1:0")
	defer quiet.Close()
	mute, err := New(info("fluentd", "fluentd-address="+quiet.Addr().String(), "fluentd-request-ack=1"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := mute.Send(ctx, []Message{out("x")}); err == nil {
		t.Error("no acknowledgment came, and no error")
	}
}

// unpack reads a MessagePack value of the kinds that the forward protocol uses.
func unpack(r *bufio.Reader) (any, error) {
	h, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	num := func(n int) int {
		v := 0
		for range n {
			b, _ := r.ReadByte()
			v = v<<8 | int(b)
		}
		return v
	}
	str := func(n int) (any, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return string(b), err
	}
	list := func(n int) (any, error) {
		var l []any
		for range n {
			v, err := unpack(r)
			if err != nil {
				return nil, err
			}
			l = append(l, v)
		}
		return l, nil
	}
	dict := func(n int) (any, error) {
		m := map[string]any{}
		for range n {
			k, _ := unpack(r)
			v, err := unpack(r)
			if err != nil {
				return nil, err
			}
			m[k.(string)] = v
		}
		return m, nil
	}
	switch {
	case h&0xf0 == 0x90:
		return list(int(h & 15))
	case h&0xf0 == 0x80:
		return dict(int(h & 15))
	case h&0xe0 == 0xa0:
		return str(int(h & 31))
	}
	switch h {
	case 0xdc:
		return list(num(2))
	case 0xde:
		return dict(num(2))
	case 0xd9:
		return str(num(1))
	case 0xda:
		return str(num(2))
	case 0xdb:
		return str(num(4))
	case 0xce:
		return uint64(num(4)), nil
	case 0xd7:
		num(1)
		b := make([]byte, 8)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	return nil, errAck
}

func TestGELF(t *testing.T) {
	check := func(text []byte, line string, level float64) {
		t.Helper()
		var m map[string]any
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatalf("%v: %.200s", err, text)
		}
		if m["version"] != "1.1" || m["short_message"] != line || m["level"] != level || m["timestamp"] != 1714979289.123 ||
			m["_container_name"] != "web" || m["_command"] != "run it" || m["_tag"] != "cccccccccccc" || m["_E"] != "1" || m["_created"] != "2024-05-06T07:08:09.123456789Z" {
			t.Errorf("%.300s", text)
		}
	}
	l := listen(t, "tcp", "127.0.0.1:0")
	got := accept(t, l)
	s := send(t, info("gelf", "gelf-address=tcp://"+l.Addr().String(), "env=E"), out("a\x00b"), bad("two"))
	if err := s.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	parts := bytes.Split(<-got, []byte{0})
	check(parts[0], "a\x00b", 6)
	check(parts[1], "two", 3)
	u := packets(t, "udp", "127.0.0.1:0")
	long := make([]byte, 16384)
	for i := range long {
		long[i] = 'a' + byte(i*i%26+i%7)%26
	}
	for _, kind := range []string{"gzip", "zlib", "none"} {
		send(t, info("gelf", "gelf-address=udp://"+u.LocalAddr().String(), "env=E", "gelf-compression-type="+kind, "gelf-compression-level=1"), out("short"), out(string(long)))
		check(inflate(t, kind, packet(t, u)), "short", 6)
		var whole []byte
		for i := byte(0); ; i++ {
			p := packet(t, u)
			if p[0] != 0x1e || p[1] != 0x0f {
				if i > 0 || kind == "none" {
					t.Fatal("no chunk")
				}
				whole = p
				break
			}
			if p[10] != i || len(p) > gelfChunk {
				t.Fatalf("chunk %d of %d, %d bytes, is number %d", i, p[11], len(p), p[10])
			}
			whole = append(whole, p[gelfHead:]...)
			if i == p[11]-1 {
				break
			}
		}
		check(inflate(t, kind, whole), string(long), 6)
	}
}

func inflate(t *testing.T, kind string, b []byte) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(b)
	var err error
	switch kind {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "zlib":
		r, err = zlib.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSplunk(t *testing.T) {
	type post struct {
		head http.Header
		body []byte
	}
	got := make(chan post, 1)
	status := http.StatusOK
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/services/collector/event/1.0" || r.Method != "POST" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		var in io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			in, _ = gzip.NewReader(r.Body)
		}
		b, _ := io.ReadAll(in)
		w.WriteHeader(status)
		io.WriteString(w, `{"text":"Invalid token"}`)
		got <- post{r.Header, b}
	}))
	defer web.Close()
	base := []string{"splunk-url=" + web.URL, "splunk-token=T", "splunk-index=i", "splunk-source=s", "splunk-sourcetype=st", "env=E"}
	for _, c := range []struct{ format, event string }{
		{"inline", `{"line":"{\"a\":1}","source":"stdout","tag":"cccccccccccc","attrs":{"E":"1"}}`},
		{"json", `{"line":{"a":1},"source":"stdout","tag":"cccccccccccc","attrs":{"E":"1"}}`},
		{"raw", `"cccccccccccc E=1 {\"a\":1}"`},
	} {
		send(t, info("splunk", append(base, "splunk-format="+c.format, "splunk-gzip=true", "splunk-index-acknowledgment=true")...), out(`{"a":1}`), out("  "), bad("two"))
		p := <-got
		if p.head.Get("Authorization") != "Splunk T" || len(p.head.Get("X-Splunk-Request-Channel")) != 36 {
			t.Errorf("%v", p.head)
		}
		lines := strings.Split(strings.TrimSpace(string(p.body)), "\n")
		if len(lines) != 2 {
			t.Fatalf("%q", lines)
		}
		matches(t, lines[0], regexp.QuoteMeta(`{"event":`+c.event+`,"time":"1714979289.123456","host":"`)+`[^"]+`+regexp.QuoteMeta(`","source":"s","sourcetype":"st","index":"i"}`))
	}
	status = http.StatusForbidden
	s, err := New(info("splunk", base...))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Send(t.Context(), []Message{out("x")})
	<-got
	if err == nil || err.Error() != `splunk: failed to send event - 403 Forbidden - {"text":"Invalid token"}` {
		t.Error(err)
	}
	for opts, want := range map[string]string{
		"":                         "splunk: splunk-url is expected",
		"splunk-url=http://h/path": "splunk: expected format scheme://dns_name_or_ip:port for splunk-url",
		"splunk-url=http://h":      "splunk: splunk-token is expected",
		"splunk-url=http://h splunk-token=t splunk-gzip-level=11": "not supported level '11' for splunk-gzip-level (supported values between -1 and 9)",
	} {
		if _, err := New(info("splunk", strings.Fields(opts)...)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", opts, err)
		}
	}
}

func TestJournald(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	p := packets(t, "unixgram", path).(*net.UnixConn)
	s, err := newJournaldAt(path, info("journald", "labels=app.x"))
	if err != nil {
		t.Fatal(err)
	}
	huge := strings.Repeat("h", 1<<20)
	batch := []Message{out("one\rtwo"), {Line: []byte("a\nb"), Stream: "stderr", Time: t0, Partial: &Partial{"q", 1, false}}, out(huge)}
	done := make(chan error, 1)
	go func() { done <- s.Send(t.Context(), batch) }()
	f := fields(t, packet(t, p))
	if f["MESSAGE"] != "one\rtwo" || f["PRIORITY"] != "6" || f["CONTAINER_NAME"] != "web" || f["CONTAINER_ID"] != "cccccccccccc" || f["APP_X"] != "y" ||
		f["SYSLOG_IDENTIFIER"] != "cccccccccccc" || f["IMAGE_NAME"] != "img:1" || f["SYSLOG_TIMESTAMP"] != "2024-05-06T07:08:09.123456789Z" {
		t.Errorf("%v", f)
	}
	f = fields(t, packet(t, p))
	if f["MESSAGE"] != "a\nb" || f["PRIORITY"] != "3" || f["CONTAINER_PARTIAL_MESSAGE"] != "true" || f["CONTAINER_PARTIAL_ORDINAL"] != "1" {
		t.Errorf("%v", f)
	}
	oob := make([]byte, 64)
	_, n, _, _, err := p.ReadMsgUnix(make([]byte, 16), oob)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatal(err, len(msgs))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "memfd")
	defer file.Close()
	file.Seek(0, io.SeekStart)
	all, err := io.ReadAll(file)
	if err != nil || fields(t, all)["MESSAGE"] != huge {
		t.Errorf("%d bytes, %v", len(all), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func fields(t *testing.T, b []byte) map[string]string {
	t.Helper()
	m := map[string]string{}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			t.Fatalf("%q", b)
		}
		if k, v, ok := strings.Cut(string(b[:i]), "="); ok {
			m[k], b = v, b[i+1:]
			continue
		}
		n := int(binary.LittleEndian.Uint64(b[i+1:]))
		m[string(b[:i])] = string(b[i+9 : i+9+n])
		b = b[i+9+n+1:]
	}
	return m
}

// A stream whose other side has gone says so before anything is lost into it.
func TestDeadConnectionIsNoticed(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	s, err := New(info("syslog", "syslog-address=tcp://"+l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), []Message{out("one")}); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	time.Sleep(50 * time.Millisecond)
	if err := s.Send(t.Context(), []Message{out("two")}); err == nil {
		t.Error("sent into a connection that was ended")
	}
	if err := s.Send(t.Context(), []Message{out("two")}); err != nil {
		t.Errorf("not connected again: %v", err)
	}
	if s.Doubt() == 0 {
		t.Error("TCP gives no answers")
	}
}
