package driver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

var errNoConnection = errors.New("not connected")

// A link is a connection that is made when it is needed, and whose end is
// noticed while nothing is sent.
type link struct {
	proto, addr string
	tls         *tls.Config // for tcp+tls and tls
	// answers says that what comes back is read by the user of the link.
	answers bool

	conn net.Conn
	mu   sync.Mutex
	why  error         // of the end
	gone chan struct{} // closed when the other side has ended it
}

// get returns the connection, a new one if there is none.
func (l *link) get(ctx context.Context) (net.Conn, error) {
	if l.conn != nil {
		select {
		case <-l.gone:
			err := l.drop()
			return nil, fmt.Errorf("the remote ended the connection: %w", err)
		default:
			return l.conn, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	var conn net.Conn
	var err error
	d := net.Dialer{}
	switch l.proto {
	case "tcp+tls", "tls":
		conn, err = (&tls.Dialer{NetDialer: &d, Config: l.tls}).DialContext(ctx, "tcp", l.addr)
	default:
		conn, err = d.DialContext(ctx, l.proto, l.addr)
	}
	if err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	l.mu.Lock()
	l.conn, l.gone, l.why = conn, gone, nil
	l.mu.Unlock()
	if _, stream := halfCloser(conn); stream && !l.answers {
		go func() {
			_, err := io.Copy(io.Discard, conn)
			l.mu.Lock()
			if l.conn == conn {
				l.why = err
			}
			l.mu.Unlock()
			close(gone)
		}()
	}
	return conn, nil
}

// halfCloser returns conn if it is a byte stream.
func halfCloser(conn net.Conn) (interface{ CloseWrite() error }, bool) {
	h, ok := conn.(interface{ CloseWrite() error })
	return h, ok && conn.RemoteAddr().Network() != "unixgram"
}

// drop closes the connection and returns why it had ended.
func (l *link) drop() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return errNoConnection
	}
	l.conn.Close()
	l.conn = nil
	if l.why == nil {
		return io.EOF
	}
	return l.why
}

// write writes b whole, or drops the connection.
func (l *link) write(ctx context.Context, b []byte) error {
	conn, err := l.get(ctx)
	if err != nil {
		return err
	}
	return l.guard(ctx, conn, func() error {
		_, err := conn.Write(b)
		return err
	})
}

// guard calls f, which uses the connection, for at most sendWithin or until ctx
// ends, and drops the connection if it fails.
func (l *link) guard(ctx context.Context, conn net.Conn, f func() error) error {
	conn.SetDeadline(time.Now().Add(sendWithin))
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.drop()
		return err
	}
	conn.SetDeadline(time.Time{})
	return nil
}

// finish tells the other side that this was all and waits until it has read that.
func (l *link) finish(ctx context.Context) error {
	conn := l.conn
	if conn == nil {
		return errNoConnection
	}
	half, ok := halfCloser(conn)
	if !ok || l.answers {
		l.drop()
		return nil
	}
	if err := half.CloseWrite(); err != nil {
		l.drop()
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	select {
	case <-l.gone:
		if err := l.drop(); !errors.Is(err, io.EOF) {
			return err
		}
	case <-ctx.Done(): // it keeps its half open, as it may
		l.drop()
	}
	return nil
}
