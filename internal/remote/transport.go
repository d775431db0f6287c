package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"

	"gantry/internal/errs"
	"gantry/internal/image"
)

// Limits of an exchange with a registry.
const (
	dialTime      = 30 * time.Second
	headerTime    = 30 * time.Second // until a registry begins to answer
	storeTime     = 5 * time.Minute  // until it has stored what was sent
	maxHeader     = 256 << 10        // bytes of an answer's head
	maxText       = 8 << 20          // bytes of an answer that is no blob
	maxRedirects  = 10
	maxTextWindow = 2 * time.Minute // for all of such an answer
)

// A wire is the way to one endpoint: it keeps requests from leaving it for plain
// HTTP, bounds answers, and falls back to plain HTTP where that is allowed.
type wire struct {
	endpoint
	base *http.Transport
	// strict leads elsewhere, where certificates are checked although the
	// endpoint's is not.
	strict   *http.Transport
	lenience []string // hosts where TLS is optional
	name     string   // repository as in the image's name; what the endpoint calls it may differ
	agent    string
	plain    atomic.Bool  // the endpoint was found to speak plain HTTP
	bad      atomic.Bool  // it can't be reached, or sends what it should not
	calm     atomic.Int32 // how often it has asked for a pause
}

func newWire(e endpoint, name string, c Config, agent string) (*wire, error) {
	conf, err := e.tls.config(e.insecure || e.unverified)
	if err != nil {
		return nil, err
	}
	w := &wire{endpoint: e, name: name, agent: agent}
	w.base = &http.Transport{
		Proxy:                  proxy(c),
		DialContext:            (&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    20 * time.Second,
		ResponseHeaderTimeout:  headerTime,
		ExpectContinueTimeout:  time.Second,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // a blob's digest is that of what is sent
		ForceAttemptHTTP2:      true,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
	}
	w.strict, w.lenience = w.base, c.Insecure
	if e.insecure || e.unverified {
		w.strict = w.base.Clone()
		w.strict.TLSClientConfig.InsecureSkipVerify = false
	}
	return w, nil
}

// over returns the transport for an address.
func (w *wire) over(u *url.URL) *http.Transport {
	if strings.EqualFold(hostName(u.Host), hostName(w.host)) || isInsecure(u.Host, w.lenience) {
		return w.base
	}
	return w.strict
}

// proxy is the choice of a proxy: by the configuration, or else the environment.
func proxy(c Config) func(*http.Request) (*url.URL, error) {
	p := httpproxy.FromEnvironment()
	if c.HTTPProxy != "" {
		p.HTTPProxy = c.HTTPProxy
	}
	if c.HTTPSProxy != "" {
		p.HTTPSProxy = c.HTTPSProxy
	}
	if c.NoProxy != "" {
		p.NoProxy = c.NoProxy
	}
	f := p.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return f(r.URL) }
}

// client returns an HTTP client over w. Redirects take no credentials along.
func (w *wire) client() *http.Client {
	return &http.Client{Transport: w, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		from := via[len(via)-1].URL
		if from.Scheme != r.URL.Scheme || !strings.EqualFold(from.Host, r.URL.Host) {
			stripSecrets(r.Header)
		}
		return nil
	}}
}

func stripSecrets(h http.Header) {
	for _, k := range []string{"Authorization", "Proxy-Authorization", "Cookie", "Referer"} {
		h.Del(k)
	}
}

// A blobRequest in a context marks requests for a blob: their answers may be
// large, and only bytes up to last are asked for, if it is positive.
type blobRequest struct {
	last    int64
	partial atomic.Bool // the answer is a range
}

type blobKey struct{}

func asBlob(ctx context.Context, b *blobRequest) context.Context {
	return context.WithValue(ctx, blobKey{}, b)
}

// RoundTrip sends one request.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if w.agent != "" {
		r.Header.Set("User-Agent", w.agent)
	}
	here := strings.EqualFold(r.URL.Host, w.host)
	if here {
		for name, list := range w.header {
			r.Header[name] = list
		}
	}
	if here && w.repo != w.name {
		w.rename(r.URL)
	}
	if here && w.plain.Load() {
		r.URL.Scheme = "http"
	}
	if r.URL.Scheme != "https" && !w.insecure {
		return nil, errs.New(errs.Denied, "refused: %s leads to %s://%s, and only https is allowed", w.host, r.URL.Scheme, r.URL.Host)
	}
	blob, _ := r.Context().Value(blobKey{}).(*blobRequest)
	if blob != nil && r.Method == http.MethodGet {
		r.Header.Set("Accept-Encoding", "identity")
		blob.setRange(r.Header)
	}
	resp, err := w.over(r.URL).RoundTrip(r)
	if err != nil && here && w.insecure && r.URL.Scheme == "https" && speaksPlain(err, r.URL) && rewind(r) {
		w.plain.Store(true)
		r.URL.Scheme = "http"
		resp, err = w.base.RoundTrip(r)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusTooManyRequests {
		return w.pause(r.Context(), resp)
	}
	switch {
	case blob != nil && r.Method == http.MethodGet && resp.StatusCode < 300:
		if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
			resp.Body.Close()
			return nil, fmt.Errorf("%s sent a blob with encoding %q, which was not asked for", r.URL.Host, enc)
		}
		if resp.StatusCode == http.StatusPartialContent {
			blob.partial.Store(true)
		}
	default:
		resp.Body = bounded(resp.Body)
	}
	return resp, nil
}

// How often, and how long, a registry can ask for a pause.
const (
	maxPauses = 3
	maxPause  = 30 * time.Second
)

// A limitError is a registry that is asked too often.
type limitError struct{ text string }

func (e *limitError) Error() string { return "toomanyrequests: " + e.text }

// pause waits as long as an answer of 429 asks for, so that the request can be
// made again; or, if it is too long or too often, makes an error of it.
func (w *wire) pause(ctx context.Context, resp *http.Response) (*http.Response, error) {
	wait := retryAfter(resp.Header)
	if w.calm.Add(1) <= maxPauses && wait <= maxPause {
		if wait == 0 {
			wait = backoff
		}
		if err := sleep(ctx, wait); err != nil {
			resp.Body.Close()
			return nil, err
		}
		resp.Body = bounded(resp.Body)
		return resp, nil
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	resp.Body.Close()
	text := strings.TrimPrefix(registryText(data), "toomanyrequests: ")
	if text == "" {
		text = w.host + " limits how often it is asked"
	}
	if wait > 0 {
		text += fmt.Sprintf(" (it asks to try again in %s)", wait.Round(time.Second))
	}
	return nil, errs.With(errs.Unavailable, &limitError{text})
}

// retryAfter is how long a registry wants to be left alone: seconds or a date.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return time.Duration(min(n, 1<<20)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}

// setRange completes a range that is open to its end.
func (b *blobRequest) setRange(h http.Header) {
	if b.last <= 0 {
		return
	}
	from := "bytes=0-"
	if v := h.Get("Range"); v != "" {
		from = v
	}
	h.Set("Range", from+strconv.FormatInt(b.last, 10))
}

// rename puts the endpoint's name of the repository into the path of a request.
func (w *wire) rename(u *url.URL) {
	old := w.path + "/" + w.name + "/"
	if rest, ok := strings.CutPrefix(u.Path, old); ok {
		u.Path, u.RawPath = w.path+"/"+w.repo+"/"+rest, ""
	}
}

// speaksPlain reports whether TLS failed because the other side speaks HTTP, or
// because nobody listens at the port of https, which nobody has named.
func speaksPlain(err error, u *url.URL) bool {
	var rec tls.RecordHeaderError
	if errors.As(err, &rec) && string(rec.RecordHeader[:]) == "HTTP/" {
		return true
	}
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return true
	}
	return u.Port() == "" && (errors.Is(err, syscall.ECONNREFUSED) || isTimeout(err))
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// rewind makes a request's body readable again; false if it can't.
func rewind(r *http.Request) bool {
	if r.Body == nil || r.Body == http.NoBody {
		return true
	}
	if r.GetBody == nil {
		return false
	}
	b, err := r.GetBody()
	r.Body = b
	return err == nil
}

// bounded ends a body that is too long or takes too long with an error.
func bounded(body io.ReadCloser) io.ReadCloser {
	b := &boundedBody{ReadCloser: body, left: maxText}
	b.timer = time.AfterFunc(maxTextWindow, func() { b.late.Store(true); body.Close() })
	return b
}

type boundedBody struct {
	io.ReadCloser
	left  int64
	timer *time.Timer
	late  atomic.Bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errs.New(errs.Invalid, "registry sent more than %d bytes that are no layer", maxText)
	}
	if err != nil && !errors.Is(err, io.EOF) && b.late.Load() {
		return n, errs.New(errs.Unavailable, "registry did not complete its answer in %s", maxTextWindow)
	}
	return n, err
}

func (b *boundedBody) Close() error {
	b.timer.Stop()
	return b.ReadCloser.Close()
}

// readText reads at most the bytes that a manifest may have.
func readText(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, image.MaxManifest+1))
	if err == nil && len(data) > image.MaxManifest {
		err = errs.New(errs.Invalid, "manifest has more than %d bytes", image.MaxManifest)
	}
	return data, err
}
