package client

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// Conn is a connection taken over from HTTP: raw bytes in both directions.
type Conn struct {
	net.Conn
	r           *bufio.Reader
	ContentType string // of the answer: says whether the stream is framed
}

// Read reads what the daemon sends, the bytes that came with the header first.
func (c *Conn) Read(b []byte) (int, error) { return c.r.Read(b) }

// CloseWrite tells the daemon that no more input will come, and keeps reading.
func (c *Conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// Hijack sends a POST with Upgrade: tcp and returns the connection behind it.
// It uses a connection of its own. ctx bounds the handshake only.
func (c *Client) Hijack(ctx context.Context, path string, q url.Values, in any) (*Conn, error) {
	return c.Upgrade(ctx, "tcp", Request{Method: http.MethodPost, Path: path, Query: q, JSON: in})
}

// Upgrade sends r and turns its connection into one of the protocol proto, as the
// build routes want it (h2c). It uses a connection of its own. ctx bounds the
// handshake only.
func (c *Client) Upgrade(ctx context.Context, proto string, r Request) (*Conn, error) {
	for try := 0; ; try++ {
		conn, err := c.upgrade(ctx, proto, r)
		if e, ok := err.(*Error); ok && try == 0 && c.downgrade(e) {
			continue
		}
		return conn, err
	}
}

func (c *Client) upgrade(ctx context.Context, proto string, r Request) (*Conn, error) {
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", proto)
	var raw net.Conn
	if c.scheme == "https" {
		raw, err = c.dialTLS(ctx)
	} else {
		raw, err = c.dial(ctx)
	}
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	// A cancelled ctx ends the handshake by closing the connection under it.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	res, br, err := handshake(raw, req)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		return nil, c.transportError(ctx, err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols && res.StatusCode != http.StatusOK {
		e := readError(res)
		raw.Close()
		if e.Status < 400 {
			return nil, fmt.Errorf("unable to upgrade to %s, received %d", proto, e.Status)
		}
		return nil, e
	}
	c.agreed.Store(true)
	return &Conn{Conn: raw, r: br, ContentType: res.Header.Get("Content-Type")}, nil
}

func handshake(raw net.Conn, req *http.Request) (*http.Response, *bufio.Reader, error) {
	if err := req.Write(raw); err != nil {
		return nil, nil, err
	}
	br := bufio.NewReaderSize(raw, 32<<10)
	res, err := http.ReadResponse(br, req)
	return res, br, err
}

// Dial returns a bare connection to the daemon, for commands that only pass bytes.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	var conn net.Conn
	var err error
	if c.scheme == "https" {
		conn, err = c.dialTLS(ctx)
	} else {
		conn, err = c.dial(ctx)
	}
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	return conn, nil
}
