// Package client speaks the Docker Engine API from the outside: it owns the
// connection to one daemon and turns calls into requests and answers into
// values or errors. The command line calls it; it writes nothing to disk and
// prints nothing. It must not know flags, output formats or the engine.
//
// It is small on purpose: one generic Call, one Stream and one Hijack instead
// of a method per endpoint, so that a process that lists containers does not
// pay for telemetry, filters and a hundred request types (docs/adr/0003).
//
// The highest API version is spoken at once, without a ping. A daemon that is
// older answers 400 "… is too new. Maximum supported API version is X", and the
// request is repeated with X, which is then kept.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// MaxVersion is the newest API version this client knows.
const MaxVersion = "1.56"

// Options configure New. The zero value of each field is usable except Host.
type Options struct {
	Host      string            // unix://path, tcp://host:port, http(s)://host:port, ssh://[user@]host[:port][/path]
	TLS       *tls.Config       // nil means plain TCP
	Version   string            // a fixed API version; "" means MaxVersion, then what the daemon says
	UserAgent string            // the User-Agent header
	Headers   map[string]string // added to each request (HttpHeaders of config.json)
}

// Client is a connection to one daemon. Its methods may be called at the same time.
type Client struct {
	host    string
	scheme  string
	address string // what the Host header says
	base    string // path before the version
	tls     *tls.Config
	dial    func(ctx context.Context) (net.Conn, error)
	http    *http.Client
	headers map[string]string
	fixed   bool
	agreed  atomic.Bool
	version atomic.Pointer[string]
}

// Request is one call with a body or an answer that is not a JSON value.
type Request struct {
	Method string
	Path   string // without the version prefix, already escaped
	Query  url.Values
	Header http.Header
	JSON   any       // sent as application/json if not nil
	Body   io.Reader // sent as it is if JSON is nil; can be read once only
	Raw    bool      // no version prefix (for /gantry/… and /_ping)
}

// New returns a client of the daemon at o.Host. It does not connect yet.
func New(o Options) (*Client, error) {
	ep, err := parseHost(o.Host, o.TLS)
	if err != nil {
		return nil, err
	}
	c := &Client{
		host: o.Host, scheme: ep.scheme, address: ep.address, base: ep.base,
		tls: o.TLS, dial: ep.dial, headers: map[string]string{}, fixed: o.Version != "",
	}
	for k, v := range o.Headers {
		c.headers[k] = v
	}
	if o.UserAgent != "" {
		c.headers["User-Agent"] = o.UserAgent
	}
	v := MaxVersion
	if c.fixed {
		v = o.Version
	}
	c.version.Store(&v)
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return ep.dial(ctx) },
			DialTLSContext:      func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dialTLS(ctx) },
			MaxIdleConns:        6,
			MaxIdleConnsPerHost: 6,
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Host returns the address the client was made with.
func (c *Client) Host() string { return c.host }

// Version returns the API version that the next request will name.
func (c *Client) Version() string { return *c.version.Load() }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call sends in (JSON, if not nil) and decodes the answer into out (if not nil).
// The error is an *Error if the daemon answered, a *ConnectError if nobody did.
func (c *Client) Call(ctx context.Context, method, path string, q url.Values, in, out any) error {
	res, err := c.Stream(ctx, Request{Method: method, Path: path, Query: q, JSON: in})
	if err != nil {
		return err
	}
	return decode(res, out)
}

// Get is Call with GET and no body.
func (c *Client) Get(ctx context.Context, path string, q url.Values, out any) error {
	return c.Call(ctx, http.MethodGet, path, q, nil, out)
}

// Post is Call with POST.
func (c *Client) Post(ctx context.Context, path string, q url.Values, in, out any) error {
	return c.Call(ctx, http.MethodPost, path, q, in, out)
}

// Delete is Call with DELETE and no body.
func (c *Client) Delete(ctx context.Context, path string, q url.Values, out any) error {
	return c.Call(ctx, http.MethodDelete, path, q, nil, out)
}

// Raw returns the body of a GET as it came.
func (c *Client) Raw(ctx context.Context, path string, q url.Values) ([]byte, error) {
	res, err := c.Stream(ctx, Request{Method: http.MethodGet, Path: path, Query: q})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

func decode(res *http.Response, out any) error {
	defer res.Body.Close()
	if out == nil {
		// Read to the end, so that the connection can be used again.
		_, err := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
		return err
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil && err != io.EOF {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	_, err := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<16))
	return err
}

// Stream sends r and returns the answer as soon as its header has come. A status
// of 400 and above is an error; else the caller must close the body.
func (c *Client) Stream(ctx context.Context, r Request) (*http.Response, error) {
	if r.Body != nil && !r.Raw {
		// A body that can be read once can't be repeated with another version.
		c.agree(ctx)
	}
	for try := 0; ; try++ {
		req, err := c.request(ctx, r)
		if err != nil {
			return nil, err
		}
		res, err := c.http.Do(req)
		if err != nil {
			return nil, c.transportError(ctx, err)
		}
		if res.StatusCode < 400 {
			c.agreed.Store(true)
			return res, nil
		}
		e := readError(res)
		if try == 0 && r.Body == nil && c.downgrade(e) {
			continue
		}
		return nil, e
	}
}

// agree settles the version by a ping, if no answer has settled it yet.
func (c *Client) agree(ctx context.Context) {
	if c.fixed || c.agreed.Load() {
		return
	}
	req, err := c.request(ctx, Request{Method: http.MethodHead, Path: "/_ping", Raw: true})
	if err != nil {
		return
	}
	res, err := c.http.Do(req)
	if err != nil {
		return // the request itself will report it
	}
	res.Body.Close()
	if v := res.Header.Get("Api-Version"); v != "" && older(v, MaxVersion) {
		c.version.Store(&v)
	}
	c.agreed.Store(true)
}

func (c *Client) path(r Request) string {
	p := c.base
	if !r.Raw {
		p += "/v" + c.Version()
	}
	p += r.Path
	if len(r.Query) > 0 {
		p += "?" + r.Query.Encode()
	}
	return p
}

func (c *Client) request(ctx context.Context, r Request) (*http.Request, error) {
	body := r.Body
	if r.JSON != nil {
		b, err := json.Marshal(r.JSON)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, c.scheme+"://"+c.address+c.path(r), body)
	if err != nil {
		return nil, err
	}
	for k, v := range c.headers {
		req.Header.Set(k, v)
	}
	for k, v := range r.Header {
		req.Header[k] = v
	}
	if r.JSON != nil {
		req.Header.Set("Content-Type", "application/json")
	} else if r.Body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "text/plain")
	}
	return req, nil
}
