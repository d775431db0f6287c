// Package upstream makes repositories copies of another registry's: what is not
// here is fetched from there when somebody asks for it, once however many ask,
// and kept.
//
// Package registry calls it for names below a prefix that is configured. It
// writes into package repo's store alone. It must not know HTTP servers or users:
// what a cache has is for everybody who may pull the name here.
//
// # Whom it trusts
//
// Nobody: manifests are bounded, and everything is checked against the digest
// that was asked for. Credentials go to the configured host, and to token servers
// of that host or of those that the configuration names; no redirection takes
// them elsewhere, and none leads from https to http.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"gantry/internal/errs"
	"gantry/internal/registry/repo"
)

// A Remote is a registry to copy from.
type Remote struct {
	// Prefix is what names here begin with that are this registry's: "hub" for
	// hub/library/debian. Empty: all names.
	Prefix   string `yaml:"prefix"`
	URL      string `yaml:"url"` // https://host[:port][/path]
	Username string `yaml:"username"`
	Password string `yaml:"password"`
	// Hosts are what clients call this registry when they ask this server as its
	// mirror, with the parameter ns; none: the URL's host. Without a prefix and
	// without hosts it is every registry that no other remote is.
	Hosts []string `yaml:"hosts"`
	// AuthHosts may see the credentials besides the URL's host: token servers.
	AuthHosts []string `yaml:"auth-hosts"`
	CA        string   `yaml:"ca"` // file of certificates to trust, PEM
	// TTL is for how long a tag's meaning is believed; 0 for five minutes.
	TTL time.Duration `yaml:"ttl"`
	// Keep is how long a tag that nobody asks for is kept; 0 for ever.
	Keep time.Duration `yaml:"keep"`
}

// defaultTTL is how long a tag's meaning is believed.
const defaultTTL = 5 * time.Minute

// client talks to one remote. It is safe for concurrent use.
type client struct {
	Remote
	base   *url.URL
	http   *http.Client
	mu     sync.Mutex
	basic  bool             // it wants the password itself
	tokens map[string]token // by scope
}

type token struct {
	text  string
	until time.Time
}

// newClient returns the client of a remote. errs.Invalid if that is wrong.
func newClient(r Remote) (*client, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return nil, errs.New(errs.Invalid, "upstream %q is not https://host", r.URL)
	}
	if r.Prefix != "" {
		if err := repo.CheckName(r.Prefix); err != nil {
			return nil, errs.New(errs.Invalid, "prefix %q: %w", r.Prefix, err)
		}
	}
	if r.TTL == 0 {
		r.TTL = defaultTTL
	}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second, IdleConnTimeout: time.Minute,
		MaxIdleConnsPerHost: 8, ForceAttemptHTTP2: true, DisableCompression: true,
	}
	if r.CA != "" {
		pem, err := os.ReadFile(r.CA)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, errs.New(errs.Invalid, "%s: no certificates", r.CA)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &client{Remote: r, base: u, tokens: map[string]token{}, http: &http.Client{Transport: t, CheckRedirect: redirect}}, nil
}

// redirect lets a request go on to where an answer points, without credentials if
// that is another place.
func redirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if len(via) > 10 {
		return errs.New(errs.Unavailable, "too many redirections")
	}
	if first.Scheme == "https" && req.URL.Scheme != "https" {
		return errs.New(errs.Denied, "a redirection from https to %s", req.URL.Scheme)
	}
	if req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		req.Header.Del("Authorization")
	}
	return nil
}

// do sends a request for a repository, with what the registry wants to see.
func (c *client) do(ctx context.Context, method, repository, rest string, h http.Header) (*http.Response, error) {
	u := c.base.JoinPath("v2", repository, rest)
	if path, query, ok := strings.Cut(rest, "?"); ok {
		u = c.base.JoinPath("v2", repository, path)
		u.RawQuery = query
	}
	scope := "repository:" + repository + ":pull"
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
		if err != nil {
			return nil, err
		}
		for k, v := range h {
			req.Header[k] = v
		}
		c.authorize(req, scope)
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, errs.New(errs.Unavailable, "upstream %s: %w", c.base.Host, err)
		}
		if resp.StatusCode == http.StatusUnauthorized && try == 0 {
			challenges := resp.Header.Values("WWW-Authenticate")
			drain(resp)
			if err := c.login(ctx, challenges, scope); err != nil {
				return nil, err
			}
			continue
		}
		return resp, c.check(resp)
	}
}

// check turns an answer that is none into an error.
func (c *client) check(resp *http.Response) error {
	switch s := resp.StatusCode; {
	case s == http.StatusOK || s == http.StatusPartialContent:
		return nil
	case s == http.StatusNotFound:
		drain(resp)
		return errs.New(errs.NotFound, "upstream %s has it not", c.base.Host)
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		drain(resp)
		return repo.NewFault(errs.Denied, repo.Denied, "upstream %s denies access: %s", c.base.Host, resp.Status)
	default:
		drain(resp)
		return errs.New(errs.Unavailable, "upstream %s: %s", c.base.Host, resp.Status)
	}
}

func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

// authorize adds what is known to be wanted.
func (c *client) authorize(req *http.Request, scope string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.tokens[scope]; ok && time.Now().Before(t.until) {
		req.Header.Set("Authorization", "Bearer "+t.text)
	} else if c.basic && c.Username != "" {
		req.SetBasicAuth(c.Username, c.Password)
	}
}

// login does what a challenge asks for.
// Format: RFC 9110, 11.6.1; Docker's token authentication.
func (c *client) login(ctx context.Context, challenges []string, scope string) error {
	for _, text := range challenges {
		scheme, params := parseChallenge(text)
		switch strings.ToLower(scheme) {
		case "basic":
			c.mu.Lock()
			c.basic = true
			c.mu.Unlock()
			return nil
		case "bearer":
			return c.fetchToken(ctx, params, scope)
		}
	}
	return repo.NewFault(errs.Denied, repo.Denied, "upstream %s wants an authentication that is not known here", c.base.Host)
}

// parseChallenge reads one challenge.
func parseChallenge(text string) (scheme string, params map[string]string) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	params = map[string]string{}
	for rest = strings.TrimSpace(rest); rest != ""; {
		k, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		var v string
		if strings.HasPrefix(after, `"`) {
			v, rest, _ = strings.Cut(after[1:], `"`)
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			v, rest, _ = strings.Cut(after, ",")
		}
		params[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
		rest = strings.TrimSpace(rest)
	}
	return scheme, params
}

// fetchToken gets a token from a token server, which sees the credentials if it
// is one of the registry's.
func (c *client) fetchToken(ctx context.Context, params map[string]string, scope string) error {
	u, err := url.Parse(params["realm"])
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || c.base.Scheme != "http") {
		return repo.NewFault(errs.Denied, repo.Denied, "upstream %s names a token server that is none: %.200q", c.base.Host, params["realm"])
	}
	q := u.Query()
	if params["service"] != "" {
		q.Set("service", params["service"])
	}
	q.Set("scope", scope)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	if c.Username != "" && (u.Host == c.base.Host || slices.Contains(c.AuthHosts, u.Host)) {
		req.SetBasicAuth(c.Username, c.Password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return errs.New(errs.Unavailable, "token server of %s: %w", c.base.Host, err)
	}
	if err := c.check(resp); err != nil {
		return fmt.Errorf("token server of %s: %w", c.base.Host, err)
	}
	defer resp.Body.Close()
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&t); err != nil {
		return errs.New(errs.Unavailable, "token server of %s: %w", c.base.Host, err)
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	life := time.Duration(max(t.ExpiresIn, 60)) * time.Second
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) > 1000 {
		clear(c.tokens)
	}
	c.tokens[scope] = token{t.Token, time.Now().Add(life - 10*time.Second)}
	return nil
}

var accept = http.Header{"Accept": {strings.Join([]string{
	"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json", repo.DockerIndex, repo.DockerManifest}, ", ")}}

// manifest fetches a manifest by tag or digest.
func (c *client) manifest(ctx context.Context, repository, ref string) (repo.Content, error) {
	resp, err := c.do(ctx, http.MethodGet, repository, "manifests/"+ref, accept)
	if err != nil {
		return repo.Content{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, repo.MaxManifest+1))
	if err != nil {
		return repo.Content{}, errs.New(errs.Unavailable, "upstream %s: %w", c.base.Host, err)
	}
	if len(data) > repo.MaxManifest {
		return repo.Content{}, errs.New(errs.Unavailable, "upstream %s: a manifest of more than %d bytes", c.base.Host, repo.MaxManifest)
	}
	return repo.Content{MediaType: resp.Header.Get("Content-Type"), Digest: digest.FromBytes(data), Data: data}, nil
}

// head returns the digest that a tag has, empty if the registry does not say.
func (c *client) head(ctx context.Context, repository, tag string) (digest.Digest, error) {
	resp, err := c.do(ctx, http.MethodHead, repository, "manifests/"+tag, accept)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	d, err := digest.Parse(resp.Header.Get("Docker-Content-Digest"))
	if err != nil {
		return "", nil
	}
	return d, nil
}

// blob opens a blob at an offset. size is that of the whole.
func (c *client) blob(ctx context.Context, method, repository string, d digest.Digest, from int64) (body io.ReadCloser, size int64, err error) {
	h := http.Header{}
	if from > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := c.do(ctx, method, repository, "blobs/"+d.String(), h)
	if err != nil {
		return nil, 0, err
	}
	size = resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		size += from
	} else if from > 0 { // it knows no ranges
		if _, err := io.CopyN(io.Discard, resp.Body, from); err != nil {
			resp.Body.Close()
			return nil, 0, errs.New(errs.Unavailable, "upstream %s: %w", c.base.Host, err)
		}
	}
	if resp.ContentLength < 0 {
		resp.Body.Close()
		return nil, 0, errs.New(errs.Unavailable, "upstream %s does not say how large %s is", c.base.Host, d)
	}
	return resp.Body, size, nil
}
