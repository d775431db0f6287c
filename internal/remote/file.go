package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"gantry/internal/errs"
	apiwire "gantry/internal/wire"
)

// fileAddress reads the address of a file to import. One without a scheme is
// taken for http, as Docker does. The daemon fetches nothing else than http and
// https: other schemes lead to what only the daemon may read.
func fileAddress(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, errs.New(errs.Invalid, "import: %q is no address of http or https", u.Redacted())
	}
	return u, nil
}

// Download opens the file at an http or https address, through the daemon's
// proxies and with its certificates for that host; tell gets how far its reading
// is. Redirects are followed ten times, never from https to http.
//
// An address that says no such thing, and an answer that is an error, is
// errs.Invalid or errs.NotFound. Reading fails with errs.Unavailable if nothing
// comes for the time that a stalled registry gets.
func (c *Client) Download(ctx context.Context, address string, tell func(apiwire.Progress)) (io.ReadCloser, error) {
	u, err := fileAddress(address)
	if err != nil {
		return nil, err
	}
	cfg := c.config()
	e := endpoint{scheme: u.Scheme, host: u.Host, insecure: isInsecure(u.Host, cfg.Insecure)}
	if e.tls, err = certificates(u.Host, cfg.CertDirs); err != nil {
		return nil, err
	}
	w, err := newWire(e, "", cfg, c.Agent)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	d := &download{cancel: cancel, tell: tell, stall: cfg.Stall, free: w.base.CloseIdleConnections}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.Join(errs.With(errs.Invalid, err), d.Close())
	}
	req.Header.Set("User-Agent", c.Agent)
	resp, err := (&http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
		return w.over(r.URL).RoundTrip(r)
	}), CheckRedirect: followFile}).Do(req)
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	d.body, d.total = resp.Body, max(resp.ContentLength, 0)
	if resp.StatusCode != http.StatusOK {
		err := fileError(u, resp)
		_ = d.Close()
		return nil, err
	}
	tell(apiwire.Progress{Status: "Downloading from " + u.Redacted()})
	d.timer = time.AfterFunc(d.stall, func() {
		cancel(errs.New(errs.Unavailable, "%s has sent nothing for %s", u.Host, d.stall))
	})
	d.ctx = ctx
	return d, nil
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// followFile decides about a redirect.
func followFile(r *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) >= maxRedirects:
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	case r.URL.Scheme != "http" && r.URL.Scheme != "https", from.Scheme == "https" && r.URL.Scheme != "https":
		return errs.New(errs.Denied, "refused: %s leads to %s://%s", from.Host, r.URL.Scheme, r.URL.Host)
	case !strings.EqualFold(from.Host, r.URL.Host):
		stripSecrets(r.Header)
	}
	return nil
}

// fileError is the error of an answer that brings no file.
func fileError(u *url.URL, resp *http.Response) error {
	kind := errs.Invalid
	switch {
	case resp.StatusCode == http.StatusNotFound:
		kind = errs.NotFound
	case resp.StatusCode >= http.StatusInternalServerError:
		kind = errs.Unavailable
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorText))
	msg := fmt.Sprintf("failed to GET %s with status %s", u.Redacted(), printable(resp.Status))
	if body := strings.TrimSpace(printable(string(text))); body != "" {
		msg += ": " + body
	}
	return errs.With(kind, errors.New(msg))
}

// A download is a file that comes over the network.
type download struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	tell   func(apiwire.Progress)
	timer  *time.Timer
	stall  time.Duration
	free   func()
	total  int64 // 0: it is not known
	n      int64
	told   time.Time
}

// Read reads, and tells how far it is each tick and at the end. A body that ends
// before the length it was announced with is an error.
func (d *download) Read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	d.timer.Reset(d.stall)
	d.n += int64(n)
	if now := time.Now(); errors.Is(err, io.EOF) || now.Sub(d.told) >= tick {
		d.told = now
		d.tell(apiwire.Progress{Status: "Importing", Progress: &apiwire.ProgressDetail{Current: d.n, Total: d.total}})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(d.ctx); cause != nil {
			return n, cause
		}
	}
	return n, err
}

// Close ends the download.
func (d *download) Close() error {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.cancel(context.Canceled)
	var err error
	if d.body != nil {
		err = d.body.Close()
	}
	d.free()
	return err
}
