package plugin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"gantry/internal/errs"
)

// mediaType is that of all requests and answers.
const mediaType = "application/vnd.docker.plugins.v1.2+json"

// maxAnswer bounds what a plugin may answer, in bytes.
const maxAnswer = 32 << 20

// errUnreached is a call that has not reached the plugin.
var errUnreached = errors.New("it can't be reached")

// Refused is an answer of a plugin that says that the call has failed.
type Refused struct {
	Method string
	Status int    // HTTP status; 200 if only the text says it
	Text   string // the plugin's own
}

// Error returns the plugin's text, with the method where the call itself failed.
func (r *Refused) Error() string {
	if r.Status == http.StatusOK {
		return r.Text
	}
	return r.Method + ": " + r.Text
}

type client struct {
	http *http.Client
	base string
}

func dial(e Endpoint) (*client, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	t := &http.Transport{MaxIdleConns: 2, IdleConnTimeout: 10 * time.Second, DisableCompression: true}
	network, base := "tcp", "http://plugin"
	if e.Network == "unix" {
		network = "unix"
	}
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := net.Conn(nil), error(nil)
		if e.Root != "" {
			within, cancel := context.WithTimeout(ctx, d.Timeout)
			defer cancel()
			c, err = DialSocket(within, e.Address)
		} else {
			c, err = d.DialContext(ctx, network, e.Address)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnreached, err)
		}
		return c, nil
	}
	if e.Network == "tls" {
		var err error
		if t.TLSClientConfig, err = e.TLS.config(e.Address); err != nil {
			return nil, err
		}
		base = "https://plugin"
	}
	// A plugin that redirects would have the daemon talk to somebody else.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{&http.Client{Transport: t, CheckRedirect: stay}, base}, nil
}

func (t TLS) config(address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{ServerName: host, InsecureSkipVerify: t.InsecureSkipVerify, MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// call posts one request. The connection is not kept waiting for the next: a
// plugin that restarts would break it in the middle.
func (c *client) call(ctx context.Context, method string, in, out any) error {
	body := []byte("{}")
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Accept", mediaType)
	req.Header.Set("Content-Type", mediaType)
	req.Close = true
	res, err := c.http.Do(req)
	if err != nil {
		return errs.New(errs.Unavailable, "%s: %w", method, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return errs.New(errs.Unavailable, "%s: %w", method, err)
	}
	return answer(method, res.StatusCode, data, out)
}

// answer reads what a plugin answered. Pure but for out.
func answer(method string, status int, data []byte, out any) error {
	if len(data) > maxAnswer {
		return fmt.Errorf("%s: the plugin's answer is longer than %d bytes", method, maxAnswer)
	}
	var failed struct{ Err string }
	_ = json.Unmarshal(data, &failed) // an answer need not be an object
	if status != http.StatusOK {
		text := failed.Err
		if text == "" {
			text = strings.TrimSpace(string(data))
		}
		if text == "" {
			text = http.StatusText(status)
		}
		return &Refused{method, status, text}
	}
	if failed.Err != "" {
		return &Refused{method, status, failed.Err}
	}
	if out == nil {
		return nil
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s: the plugin's answer is not understood: %w", method, err)
	}
	return nil
}

// Refusal is the HTTP status of the answer; callers that must not import this
// package tell a refusal by it.
func (r *Refused) Refusal() int { return r.Status }
