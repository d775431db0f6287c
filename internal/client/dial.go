package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gantry/internal/errs"
)

// endpoint is a parsed host.
type endpoint struct {
	scheme, address, base string
	dial                  func(ctx context.Context) (net.Conn, error)
}

// dialError marks an error that came before any byte was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// dialTimeout bounds how long a connection may take to stand.
const dialTimeout = 30 * time.Second

// sunPath is how long a unix socket's path may be in the kernel's address (unix(7)).
const sunPath = 107

func parseHost(host string, t *tls.Config) (endpoint, error) {
	proto, addr, ok := strings.Cut(host, "://")
	if !ok || addr == "" {
		return endpoint{}, errs.New(errs.Invalid, "unable to parse docker host `%s`", host)
	}
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	switch proto {
	case "unix":
		return endpoint{scheme: "http", address: "api.moby.localhost", dial: func(ctx context.Context) (net.Conn, error) {
			return wrapDial(dialUnix(ctx, d, addr))
		}}, nil
	case "tcp", "http", "https":
		u, err := url.Parse("tcp://" + addr)
		if err != nil {
			return endpoint{}, errs.New(errs.Invalid, "unable to parse docker host `%s`: %w", host, err)
		}
		scheme := "http"
		if t != nil || proto == "https" {
			scheme = "https"
		}
		return endpoint{scheme: scheme, address: u.Host, base: strings.TrimSuffix(u.Path, "/"), dial: func(ctx context.Context) (net.Conn, error) {
			return wrapDial(d.DialContext(ctx, "tcp", u.Host))
		}}, nil
	case "ssh":
		argv, err := sshCommand(host)
		if err != nil {
			return endpoint{}, err
		}
		return endpoint{scheme: "http", address: "docker.example.com", dial: func(ctx context.Context) (net.Conn, error) {
			return wrapDial(dialCommand(ctx, argv))
		}}, nil
	}
	return endpoint{}, errs.New(errs.Invalid, "invalid bind address format: %s", host)
}

func wrapDial(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, &dialError{err}
	}
	return c, nil
}

// dialUnix connects to a socket whose path may be longer than an address can
// hold: then through the descriptor of its directory.
func dialUnix(ctx context.Context, d *net.Dialer, path string) (net.Conn, error) {
	if len(path) <= sunPath {
		return d.DialContext(ctx, "unix", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

func (c *Client) dialTLS(ctx context.Context) (net.Conn, error) {
	raw, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	conf := c.tls.Clone()
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if conf.ServerName == "" {
		if h, _, err := net.SplitHostPort(c.address); err == nil {
			conf.ServerName = h
		} else {
			conf.ServerName = c.address
		}
	}
	t := tls.Client(raw, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("the daemon's TLS: %w", err)
	}
	return t, nil
}
