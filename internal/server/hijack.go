package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/shim"
)

// Media types of streams.
const (
	rawStream   = "application/vnd.docker.raw-stream"
	multiplexed = "application/vnd.docker.multiplexed-stream"
)

// framedSince is the first version that says which streams are framed.
const framedSince version = 1042

// linger is how long the server goes on reading from a client after the stream
// has ended: to close a socket with unread bytes would reset the connection,
// and the client could miss the end of the output.
const linger = 10 * time.Second

// hangupPoll is how often a half closed connection is asked whether the client
// is gone altogether.
const hangupPoll = 500 * time.Millisecond

// A hijacked is a connection that has left HTTP.
type hijacked struct {
	conn net.Conn
	in   *bufio.Reader // what the client sends, with what was read ahead
}

// hijack takes the connection from the HTTP server and writes head to it.
func hijack(w http.ResponseWriter, head string) (*hijacked, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	if kept, ok := conn.(interface{ Release() net.Conn }); ok {
		conn = kept.Release()
	}
	if r, ok := w.(*response); ok {
		r.began, r.hijacked = true, true
	}
	if _, err := io.WriteString(conn, head); err != nil {
		conn.Close()
		return nil, err
	}
	return &hijacked{conn, rw.Reader}, nil
}

// streamHead is the head of an attach or exec stream.
func streamHead(r *request, contentType string, more http.Header) string {
	if !upgrades(r) {
		return "HTTP/1.1 200 OK\r\nContent-Type: " + contentType + "\r\n" + headerText(more) + "\r\n"
	}
	return "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + contentType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" + headerText(more) + "\r\n"
}

func upgrades(r *request) bool { _, ok := r.Header["Upgrade"]; return ok }

func headerText(h http.Header) string {
	if len(h) == 0 {
		return ""
	}
	var b strings.Builder
	_ = h.Write(&b)
	return b.String()
}

// streamType is the media type of an attach or exec stream: only a client that
// upgrades is told of frames.
func streamType(r *request, tty bool) string {
	if upgrades(r) && !tty && r.v >= framedSince {
		return multiplexed
	}
	return rawStream
}

// An input says whether what the client sends is the process's input.
type input uint8

const (
	inputNone input = iota
	inputClient
)

// pump copies between the client and a process's streams, byte for byte, until
// the output ends, the client is gone or ctx ends. It closes both.
//
//	client ──bytes──▶ s.Write      end of the client's bytes ─▶ s.CloseWrite
//	client ◀──bytes── s.Read       end of the output ─▶ half close, linger, close
func (c *hijacked) pump(ctx context.Context, s shim.Stream, from input) {
	defer c.conn.Close()
	stop := context.AfterFunc(ctx, func() { s.Close(); c.conn.Close() })
	defer stop()
	over := make(chan struct{}) // the output has ended
	read := make(chan struct{}) // the client sends no more
	go func() {
		defer close(read)
		if from == inputClient {
			_, _ = io.Copy(s, c.in)
			_ = s.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, c.in)
		select {
		case <-over:
		default:
			c.awaitHangup(over, s)
		}
	}()
	c.awaitHead()
	_, _ = io.Copy(c.conn, s)
	close(over)
	_ = s.Close()
	closeWrite(c.conn)
	_ = c.conn.SetReadDeadline(time.Now().Add(linger))
	<-read
}

// say writes one line to the client, as standard output, and closes.
func (c *hijacked) say(text string, tty bool) {
	defer c.conn.Close()
	c.awaitHead()
	line := []byte(text + "\r\n")
	if !tty {
		line = append(frameHead(stdoutFrame, len(line)), line...)
	}
	_, _ = c.conn.Write(line)
}

// headTime is the longest that the stream is held back for the head.
const headTime = 20 * time.Millisecond

// awaitHead returns when the client has read the head. Some clients (docker-py)
// read the head through a buffer that they then throw away, with whatever of
// the stream came right behind it. The kernel knows on unix sockets what is not
// read yet (SIOCOUTQ, unix(7)); on others, what has not arrived.
func (c *hijacked) awaitHead() {
	pause := 20 * time.Microsecond
	for end := time.Now().Add(headTime); time.Now().Before(end); time.Sleep(pause) {
		unread := 0
		if !control(c.conn, func(fd int) { unread, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) }) || unread == 0 {
			return
		}
		pause = min(2*pause, time.Millisecond)
	}
}

// control runs f with the connection's descriptor; false if there is none.
func control(conn net.Conn, f func(fd int)) bool {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	return err == nil && raw.Control(func(fd uintptr) { f(int(fd)) }) == nil
}

// awaitHangup closes s when the client, which has sent its last byte, has
// closed the other direction too.
func (c *hijacked) awaitHangup(over <-chan struct{}, s io.Closer) {
	tick := time.NewTicker(hangupPoll)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			if hungUp(c.conn) {
				s.Close()
				return
			}
		}
	}
}

// hungUp reports whether the peer has closed both directions (poll(2)). Over
// TCP that shows only when something is sent.
func hungUp(conn net.Conn) bool {
	gone := false
	open := control(conn, func(fd int) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return gone || !open
}

func closeWrite(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
