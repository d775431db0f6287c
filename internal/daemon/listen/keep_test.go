package listen

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A tapped connection calls read after each read of some bytes, before whoever
// reads knows of them.
type tapped struct {
	net.Conn
	read func()
}

func (c tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.read()
	}
	return n, err
}

// tap is a listener of tapped connections.
type tap struct {
	net.Listener
	read func()
}

func (l tap) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tapped{c, l.read}, nil
}

// A request whose first bytes are read when the listener is taken is answered.
func TestTakenWhileARequestComes(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	var k *Kept
	k = keep(tap{l, func() { k.Take() }}, nil)
	state := func(c net.Conn, s http.ConnState) {
		if s == http.StateNew || s == http.StateIdle {
			c.(*keptConn).Idle()
		} else {
			c.(*keptConn).Busy()
		}
	}
	// A server of both kinds of HTTP first reads as much as tells them apart.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: &protocols, ConnState: state, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })}
	go func() { _ = srv.Serve(k) }()
	defer l.Close() // a server does not end its listener once that is taken
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "POST /a/long/path HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(string(got), "body") {
		t.Errorf("%q, %v", got, err)
	}
}
