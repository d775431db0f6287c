package manifests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"gantry/internal/errs"
)

// maxText bounds manifests, configurations and tokens, in bytes.
const maxText = 8 << 20

// Credentials are those for one registry.
type Credentials struct{ Username, Password, Identity, Token string }

// A Registry is one that is asked. It is not safe for concurrent use.
type Registry struct {
	host   string // as names begin
	base   string // address of its API
	creds  Credentials
	client *http.Client
	auth   map[string]string // by repository
}

// Open finds out how host is reached. insecure allows certificates that nobody
// vouches for, and plain HTTP; loopback addresses always do.
func Open(ctx context.Context, host string, c Credentials, insecure string) (*Registry, error) {
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	loose := insecure != "" || isLoopback(host)
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: loose} //nolint:gosec // what the user asked for
	r := &Registry{host: host, creds: c, auth: map[string]string{}, client: &http.Client{Transport: t, Timeout: 10 * time.Minute, CheckRedirect: redirects(loose)}}
	var first error
	for _, scheme := range []string{"https", "http"} {
		if scheme == "http" && !loose {
			break
		}
		r.base = scheme + "://" + host + "/v2/"
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base, nil)
		if err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
		res, err := r.client.Do(req)
		if err == nil {
			res.Body.Close()
			return r, nil
		}
		if first == nil {
			first = err
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, fmt.Errorf("failed to configure transport: error pinging v2 registry: %w", first)
}

// Close ends the connections.
func (r *Registry) Close() { r.client.CloseIdleConnections() }

func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// redirects keeps credentials and secrets from plain HTTP.
func redirects(loose bool) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errs.New(errs.Invalid, "more than ten redirects")
		}
		if req.URL.Scheme != "https" && !loose {
			return errs.New(errs.Denied, "refused: a redirect leads to %s://%s", req.URL.Scheme, req.URL.Host)
		}
		return nil
	}
}

// do sends a request for a repository, with credentials if they are asked for. The
// caller closes the body.
func (r *Registry) do(ctx context.Context, method, repo, path string, body []byte, header http.Header) (*http.Response, error) {
	at := r.base + repo + "/" + path
	if strings.Contains(path, "://") {
		at = path
	}
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
		if err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
		for k, v := range header {
			req.Header[k] = v
		}
		own := req.URL.Host == r.host
		if a := r.auth[repo]; a != "" && own {
			req.Header.Set("Authorization", a)
		}
		res, err := r.client.Do(req)
		if err != nil || res.StatusCode != http.StatusUnauthorized || try > 0 || !own {
			return res, err
		}
		res.Body.Close()
		if err := r.authorize(ctx, repo, res.Header.Values("WWW-Authenticate")); err != nil {
			return nil, err
		}
	}
}

// authorize answers a challenge (RFC 9110 section 11, Docker's token
// authentication).
func (r *Registry) authorize(ctx context.Context, repo string, challenges []string) error {
	for _, c := range challenges {
		scheme, rest, _ := strings.Cut(c, " ")
		switch strings.ToLower(scheme) {
		case "basic":
			if r.creds.Username != "" {
				req := http.Request{Header: http.Header{}}
				req.SetBasicAuth(r.creds.Username, r.creds.Password)
				r.auth[repo] = req.Header.Get("Authorization")
				return nil
			}
		case "bearer":
			if r.creds.Token != "" {
				r.auth[repo] = "Bearer " + r.creds.Token
				return nil
			}
			t, err := r.token(ctx, parameters(rest), repo)
			if err == nil {
				r.auth[repo] = "Bearer " + t
			}
			return err
		}
	}
	return errs.New(errs.Unauthenticated, "unauthorized: authentication required")
}

// parameters reads those of a challenge: key="value", separated by commas.
func parameters(s string) map[string]string {
	out := map[string]string{}
	for s != "" {
		k, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		v := rest
		if strings.HasPrefix(rest, `"`) {
			v, s, _ = strings.Cut(rest[1:], `"`)
			s = strings.TrimLeft(s, ", ")
		} else {
			v, s, _ = strings.Cut(rest, ",")
		}
		out[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
	}
	return out
}

// sameSite reports whether two hosts may share credentials: one is the other, or
// they have the last two parts of their names in common.
func sameSite(a, b string) bool {
	tail := func(s string) string {
		if h, _, err := net.SplitHostPort(s); err == nil {
			s = h
		}
		if net.ParseIP(s) != nil {
			return s
		}
		p := strings.Split(s, ".")
		return strings.Join(p[max(0, len(p)-2):], ".")
	}
	return strings.EqualFold(tail(a), tail(b))
}

// token asks the token server. It gets credentials only if it is of the registry's
// own site.
func (r *Registry) token(ctx context.Context, p map[string]string, repo string) (string, error) {
	realm, err := url.Parse(p["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && !strings.HasPrefix(r.base, "http:") {
		return "", errs.New(errs.Denied, "the registry names a token server that is not asked: %.200q", p["realm"])
	}
	q := url.Values{"service": {p["service"]}, "scope": {"repository:" + repo + ":pull,push", p["scope"]}}
	if p["scope"] == "" || p["scope"] == q["scope"][0] {
		q["scope"] = q["scope"][:1]
	}
	method, body := http.MethodGet, ""
	trusted := sameSite(realm.Host, r.host)
	if trusted && r.creds.Identity != "" {
		q.Set("scope", strings.Join(q["scope"], " "))
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", r.creds.Identity)
		q.Set("client_id", "gantry")
		method, body = http.MethodPost, q.Encode()
	} else {
		realm.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, realm.String(), strings.NewReader(body))
	if err != nil {
		return "", errs.With(errs.Invalid, err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else if trusted && r.creds.Username != "" {
		req.SetBasicAuth(r.creds.Username, r.creds.Password)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if res.StatusCode != http.StatusOK {
		return "", failure(res)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxText)).Decode(&t); err != nil {
		return "", err
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	return t.Token, nil
}

// failure reads why a registry refused.
func failure(res *http.Response) error {
	var b struct {
		Errors []struct{ Code, Message string }
	}
	data, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	text := res.Status
	if json.Unmarshal(data, &b) == nil && len(b.Errors) > 0 {
		text = strings.ToLower(strings.ReplaceAll(b.Errors[0].Code, "_", " ")) + ": " + b.Errors[0].Message
	}
	k := errs.Unknown
	switch res.StatusCode {
	case http.StatusNotFound:
		k = errs.NotFound
	case http.StatusUnauthorized:
		k = errs.Unauthenticated
	case http.StatusForbidden:
		k = errs.Denied
	}
	return errs.New(k, "%s", text)
}

// Manifest returns a manifest or list by tag or digest, whose digest is checked.
func (r *Registry) Manifest(ctx context.Context, repo, ref string) (Descriptor, []byte, error) {
	res, err := r.do(ctx, http.MethodGet, repo, "manifests/"+ref, nil, http.Header{"Accept": {OCIIndex, OCIManifest, DockerList, DockerManifest}})
	if err != nil {
		return Descriptor{}, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Descriptor{}, nil, failure(res)
	}
	data, err := text(res.Body)
	if err != nil {
		return Descriptor{}, nil, err
	}
	mt, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	d := Descriptor{MediaType: mt, Digest: Digest(data), Size: int64(len(data))}
	if strings.Contains(ref, ":") && ref != d.Digest {
		return d, nil, errs.New(errs.Corrupt, "the registry sent %s for %s", d.Digest, ref)
	}
	switch mt {
	case OCIIndex, OCIManifest, DockerList, DockerManifest:
		return d, data, nil
	}
	return d, nil, errs.New(errs.Unsupported, "unsupported manifest format: %.100q", mt)
}

// Digest returns that of data.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func text(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err == nil && len(data) > maxText {
		err = errs.New(errs.Invalid, "the registry sent more than %d bytes", maxText)
	}
	return data, err
}

// PlatformOf reads what a manifest is for from its configuration.
func (r *Registry) PlatformOf(ctx context.Context, repo string, manifest []byte) (*Platform, error) {
	var m struct{ Config Descriptor }
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, err
	}
	res, err := r.do(ctx, http.MethodGet, repo, "blobs/"+m.Config.Digest, nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, failure(res)
	}
	data, err := text(res.Body)
	if err != nil {
		return nil, err
	}
	if got := Digest(data); strings.HasPrefix(m.Config.Digest, "sha256:") && got != m.Config.Digest {
		return nil, errs.New(errs.Corrupt, "the registry sent %s for %s", got, m.Config.Digest)
	}
	p := &Platform{}
	return p, json.Unmarshal(data, p)
}

// Blobs returns the blobs that a manifest needs.
func Blobs(manifest []byte) ([]Descriptor, error) {
	var m struct {
		Config Descriptor
		Layers []Descriptor
	}
	err := json.Unmarshal(manifest, &m)
	return append(m.Layers, m.Config), err
}

// Mount has a blob of repository from be in repo too.
func (r *Registry) Mount(ctx context.Context, repo, from string, d Descriptor) error {
	q := url.Values{"mount": {d.Digest}, "from": {from}}
	res, err := r.do(ctx, http.MethodPost, repo, "blobs/uploads/?"+q.Encode(), nil, nil)
	if err != nil {
		return err
	}
	res.Body.Close()
	switch res.StatusCode {
	case http.StatusCreated:
		return nil
	case http.StatusAccepted:
		return r.copyBlob(ctx, repo, from, d, res.Header.Get("Location"))
	}
	return failure(res)
}

// copyBlob sends a blob through this machine, where a registry does not mount.
func (r *Registry) copyBlob(ctx context.Context, repo, from string, d Descriptor, location string) error {
	to, err := url.Parse(r.base)
	if err == nil {
		to, err = to.Parse(location)
	}
	if err != nil {
		return errs.With(errs.Invalid, err)
	}
	res, err := r.do(ctx, http.MethodGet, from, "blobs/"+d.Digest, nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return failure(res)
	}
	q := to.Query()
	q.Set("digest", d.Digest)
	to.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, to.String(), res.Body)
	if err != nil {
		return errs.With(errs.Invalid, err)
	}
	req.ContentLength = d.Size
	req.Header.Set("Content-Type", "application/octet-stream")
	if to.Host == r.host && r.auth[repo] != "" {
		req.Header.Set("Authorization", r.auth[repo])
	}
	put, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer put.Body.Close()
	if put.StatusCode != http.StatusCreated {
		return failure(put)
	}
	return nil
}

// Put writes a manifest or list under a tag or its digest.
func (r *Registry) Put(ctx context.Context, repo, ref, mediaType string, data []byte) error {
	res, err := r.do(ctx, http.MethodPut, repo, "manifests/"+ref, data, http.Header{"Content-Type": {mediaType}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		return failure(res)
	}
	return nil
}
