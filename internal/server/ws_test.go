package server

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

const handshake = " HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// Output comes in binary messages without frame heads; a text message is input;
// the end of output closes with status 1000.
func TestSocket(t *testing.T) {
	f := &fake{stream: newFakeStream()}
	r := serve(t, f)
	conn := r.dial(t)
	io.WriteString(conn, "GET /containers/c1/attach/ws?stream=1&stdin=1&stdout=1"+handshake)
	in := bufio.NewReader(conn)
	want := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	if got := readHead(t, in); got != want {
		t.Fatalf("%q", got)
	}
	// A masked text frame "hi" (RFC 6455, section 5.2; a mask of zeros).
	conn.Write([]byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'})
	for end := time.Now().Add(20 * time.Second); f.stream.input() != "hi"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("input %q", f.stream.input())
		}
	}
	f.stream.say("out\n")
	f.stream.outW.Close()
	out, _ := io.ReadAll(in)
	if string(out) != "\x82\x04out\n\x88\x02\x03\xe8" {
		t.Errorf("%q", out)
	}
}

func TestSocketErrors(t *testing.T) {
	r := serve(t, &fake{stream: newFakeStream()})
	head := strings.TrimSuffix(strings.ReplaceAll(handshake, "\r\n", "\n"), "\n\n")
	if got := r.ask(t, "GET /containers/nosuch/attach/ws?stream=1"+head); got != refusal("404 Not Found", "No such container: nosuch") {
		t.Errorf("%q", got)
	}
	if got := r.ask(t, "GET /containers/c1/attach/ws?stream=1 HTTP/1.1\nHost: x"); !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\r\n") || !strings.HasSuffix(got, "not websocket protocol") {
		t.Errorf("%q", got)
	}
}

// Row S20: over TCP a page's request is refused before anything is routed.
func TestGuardOverTCP(t *testing.T) {
	r := serve(t, &fake{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.srv.Serve(l) }()
	for head, want := range map[string]string{
		"Host: evil.example":                             "HTTP/1.1 403",
		"Host: 127.0.0.1\r\nOrigin: http://evil.example": "HTTP/1.1 403",
		"Host: " + l.Addr().String():                     "HTTP/1.1 200",
	} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /_ping HTTP/1.1\r\n"+head+"\r\nConnection: close\r\n\r\n")
		if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), want) {
			t.Errorf("%q: %q", head, got)
		}
		c.Close()
	}
	if err := r.srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
