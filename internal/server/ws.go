package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"

	"golang.org/x/net/websocket"

	"gantry/internal/container"
)

// socket is attach over a websocket (RFC 6455): what the process writes
// comes in binary messages without frame heads, what the client sends in
// messages of either kind is its input.
func (s *streams) socket(w http.ResponseWriter, r *request) error {
	o := attachOptions(r)
	if r.v < framedSince {
		// Before 1.42 the stream flags were not looked at.
		o.Stdin, o.Stdout, o.Stderr = true, true, true
	}
	att, err := s.engine.Attach(r.Context(), r.name, o)
	if err != nil {
		return err
	}
	defer att.Close()
	if res, ok := w.(*response); ok {
		res.began, res.hijacked = true, true
	}
	srv := websocket.Server{
		// Any origin: the guard has looked at it.
		Handshake: func(*websocket.Config, *http.Request) error { return nil },
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			s.pumpSocket(ws, att, o)
		},
	}
	// The library asks for the plain interface.
	srv.ServeHTTP(hijackable{w, http.NewResponseController(w)}, r.Request)
	return nil
}

// pumpSocket copies both ways until the output ends or the client closes.
func (s *streams) pumpSocket(ws *websocket.Conn, att *container.Attached, o container.AttachOptions) {
	stop := context.AfterFunc(s.ctx, func() { att.Close(); ws.Close() })
	defer stop()
	read := make(chan struct{})
	go func() {
		defer close(read)
		dst := io.Writer(io.Discard)
		if o.Stdin {
			dst = att
		}
		_, _ = io.Copy(dst, ws)
		// A close frame ends the client's interest altogether.
		_ = att.CloseWrite()
		_ = att.Close()
	}()
	if att.TTY {
		_, _ = io.Copy(ws, att)
	} else {
		_ = unframe(ws, att)
	}
	_ = ws.Close()
	_ = att.Close()
	<-read
}

// unframe copies the payloads of frames, each with one Write if it is not too
// long.
func unframe(w io.Writer, r io.Reader) error {
	in := bufio.NewReader(r)
	buf := make([]byte, 32<<10)
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		for left := int(binary.BigEndian.Uint32(head[4:])); left > 0; {
			n := min(left, len(buf))
			if _, err := io.ReadFull(in, buf[:n]); err != nil {
				return err
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			left -= n
		}
	}
}

// hijackable is a response with the interface that websocket.Server asserts.
type hijackable struct {
	http.ResponseWriter
	ctl *http.ResponseController
}

// Hijack takes the connection.
func (h hijackable) Hijack() (c net.Conn, rw *bufio.ReadWriter, err error) { return h.ctl.Hijack() }
