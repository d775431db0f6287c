package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"golang.org/x/net/publicsuffix"

	"gantry/internal/errs"
	apiwire "gantry/internal/wire"
)

// DecodeAuth reads an X-Registry-Auth header: base64 JSON of any alphabet, with
// or without padding. An empty header is no credentials.
func DecodeAuth(header string) (apiwire.RegistryAuth, error) {
	var a apiwire.RegistryAuth
	header = strings.TrimRight(strings.TrimSpace(header), "=")
	if header == "" {
		return a, nil
	}
	header = strings.NewReplacer("+", "-", "/", "_").Replace(header)
	data, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		return a, errs.New(errs.Invalid, "invalid X-Registry-Auth header: must be a valid base64url-encoded string")
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return apiwire.RegistryAuth{}, errs.New(errs.Invalid, "invalid X-Registry-Auth header: invalid JSON: %w", err)
	}
	return whole(a), nil
}

// whole takes user and password out of the field auth, if they are only there.
func whole(a apiwire.RegistryAuth) apiwire.RegistryAuth {
	if a.Username == "" && a.Password == "" && a.Auth != "" {
		if b, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
			if user, pass, ok := strings.Cut(string(b), ":"); ok {
				a.Username, a.Password = user, strings.Trim(pass, "\x00")
			}
		}
	}
	a.Auth = ""
	return a
}

// AuthFor returns, of credentials by registry as the configuration of a command line
// has them, those for the registry of an image's name; none if there are none.
func AuthFor(list map[string]apiwire.RegistryAuth, name reference.Named) apiwire.RegistryAuth {
	domain := reference.Domain(name)
	for _, server := range sortedKeys(list) {
		a := list[server]
		if a.ServerAddress == "" {
			a.ServerAddress = server
		}
		if strings.EqualFold(authHost(a, domain), serverHost(domain)) {
			return whole(a)
		}
	}
	return apiwire.RegistryAuth{}
}

// authHost returns the host that credentials are for; domain is that of the
// image's name, for credentials that do not say.
func authHost(a apiwire.RegistryAuth, domain string) string {
	s := a.ServerAddress
	if u, err := url.Parse(s); err == nil && u.Host != "" {
		s = u.Host
	} else {
		s, _, _ = strings.Cut(s, "/")
	}
	switch {
	case s == "":
		s = domain
	case s == "index."+defaultDomain():
		s = defaultDomain()
	}
	return serverHost(s)
}

// An authorizer answers a registry's challenges for one operation at one
// endpoint.
//
// Credentials are sent to the endpoint itself if they were given for it, and to
// the token server that it names only if that is at the same host or site
// (registrable domain), or in the list of hosts that the configuration allows. A
// token goes nowhere but to the endpoint that asked for it. Everybody else sees
// an anonymous client.
type authorizer struct {
	w      *wire
	client *http.Client // to token servers
	auth   apiwire.RegistryAuth
	ours   bool // the credentials are for this endpoint
	// offline asks for an identity token too, which comes to identity.
	offline bool

	mu        sync.Mutex
	challenge auth.Challenge
	scopes    []string // needed so far
	token     string   // the whole header
	tokenFor  []string // the scopes that token was asked for
	expires   time.Time
	identity  string
}

func newAuthorizer(w *wire, a apiwire.RegistryAuth, domain string) *authorizer {
	return &authorizer{w: w, client: w.client(), auth: a, ours: strings.EqualFold(authHost(a, domain), w.host)}
}

// Authorize adds the Authorization header to a request to the endpoint.
func (a *authorizer) Authorize(ctx context.Context, r *http.Request) error {
	if !strings.EqualFold(r.URL.Host, a.w.host) {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ours && a.auth.RegistryToken != "" {
		r.Header.Set("Authorization", "Bearer "+a.auth.RegistryToken)
		return nil
	}
	switch a.challenge.Scheme {
	case auth.BasicAuth:
		r.SetBasicAuth(a.auth.Username, a.auth.Password)
	case auth.BearerAuth:
		if err := a.refresh(ctx); err != nil {
			return err
		}
		r.Header.Set("Authorization", a.token)
	}
	return nil
}

// refresh fetches a token for the scopes of ctx and the challenge, if there is
// none that is good.
func (a *authorizer) refresh(ctx context.Context) error {
	if a.w.repo == a.w.name {
		a.need(docker.GetTokenScopes(ctx, nil)...)
	}
	fresh := a.expires.IsZero() || time.Now().Before(a.expires)
	if a.token != "" && fresh && len(a.tokenFor) == len(a.scopes) {
		return nil
	}
	scopes := slices.Clone(a.scopes)
	t, err := a.fetchToken(ctx, scopes)
	if err != nil {
		return err
	}
	a.identity = t.identity
	a.token, a.tokenFor, a.expires = "Bearer "+t.access, scopes, time.Time{}
	if t.seconds > 10 {
		a.expires = time.Now().Add(time.Duration(t.seconds-5) * time.Second)
	}
	return nil
}

// need adds scopes to those that tokens are asked for. They are never taken out
// again, so that requests of several kinds share a token.
func (a *authorizer) need(scopes ...string) (news bool) {
	for _, s := range scopes {
		if s != "" && !slices.Contains(a.scopes, s) {
			a.scopes, news = append(a.scopes, s), true
		}
	}
	return news
}

// A token is what a token server gives.
type token struct {
	access, identity string
	seconds          int
}

// fetchToken asks the token server of the challenge.
func (a *authorizer) fetchToken(ctx context.Context, scopes []string) (token, error) {
	o, err := auth.GenerateTokenOptions(ctx, a.w.host, "", "", a.challenge)
	if err != nil {
		return token{}, errs.With(errs.Invalid, err)
	}
	o.Scopes, o.FetchRefreshToken = scopes, a.offline
	realm, err := url.Parse(o.Realm)
	if err != nil || realm.Host == "" {
		return token{}, errs.New(errs.Invalid, "%s names a token server that is no address: %.200q", a.w.host, o.Realm)
	}
	if a.ours && (a.auth.Password != "" || a.auth.IdentityToken != "") {
		if !a.mayKnow(realm) {
			return token{}, errs.New(errs.Denied, "%s wants the credentials sent to %s, which is another site: refused (allow it with \"auth-hosts\" of this registry in daemon.json)", a.w.host, realm.Host)
		}
		o.Username, o.Secret = a.auth.Username, a.auth.Password
		if a.auth.IdentityToken != "" {
			o.Username, o.Secret = "", a.auth.IdentityToken
		}
	}
	return a.askToken(ctx, o)
}

// askToken fetches a token: by POST for an identity token, which knows no other
// way, else by GET, which every server knows.
func (a *authorizer) askToken(ctx context.Context, o auth.TokenOptions) (token, error) {
	ctx = context.WithValue(ctx, blobKey{}, (*blobRequest)(nil))
	if o.Secret != "" && o.Username == "" {
		r, err := auth.FetchTokenWithOAuth(ctx, a.client, nil, agentID, o)
		if err != nil {
			return token{}, err
		}
		return token{r.AccessToken, r.RefreshToken, r.ExpiresInSeconds}, nil
	}
	r, err := auth.FetchToken(ctx, a.client, nil, o)
	if err != nil {
		return token{}, err
	}
	return token{r.Token, r.RefreshToken, r.ExpiresInSeconds}, nil
}

// agentID is how token servers know this client.
const agentID = "docker"

// mayKnow reports whether credentials for the endpoint may be sent to a token
// server.
func (a *authorizer) mayKnow(realm *url.URL) bool {
	if realm.Scheme != "https" && !a.w.insecure || realm.User != nil {
		return false
	}
	return sameSite(hostName(a.w.host), hostName(realm.Host)) ||
		slices.ContainsFunc(a.w.authHosts, func(h string) bool {
			return strings.EqualFold(h, realm.Host) || strings.EqualFold(h, hostName(realm.Host))
		})
}

// sameSite reports whether two hosts belong to the same owner: they are the
// same, or names below the same registrable domain.
func sameSite(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if a == b {
		return true
	}
	if net.ParseIP(a) != nil || net.ParseIP(b) != nil {
		return false
	}
	x, err := publicsuffix.EffectiveTLDPlusOne(a)
	if err != nil {
		return false
	}
	y, err := publicsuffix.EffectiveTLDPlusOne(b)
	return err == nil && x == y
}

// AddResponses looks at an answer of 401: nil if another try makes sense.
func (a *authorizer) AddResponses(_ context.Context, all []*http.Response) error {
	last := all[len(all)-1]
	if !strings.EqualFold(last.Request.URL.Host, a.w.host) {
		return fmt.Errorf("%s does not get credentials: %w", last.Request.URL.Host, errdefs.ErrNotImplemented)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	// The same request, refused with what it was given.
	again := last.Request.Header.Get("Authorization") != ""
	for _, c := range auth.ParseAuthHeader(last.Header) {
		switch c.Scheme {
		case auth.BearerAuth:
			news := a.need(strings.Fields(c.Parameters["scope"])...)
			if again && !news && c.Parameters["error"] != "invalid_token" || len(all) > 3 {
				return refused(c)
			}
			a.challenge, a.token = c, ""
			return nil
		case auth.BasicAuth:
			if !a.ours || a.auth.Username == "" || a.auth.Password == "" {
				return fmt.Errorf("no basic auth credentials: %w", docker.ErrInvalidAuthorization)
			}
			if again {
				return refused(c)
			}
			a.challenge = c
			return nil
		}
	}
	return fmt.Errorf("no known way to authenticate: %w", errdefs.ErrNotImplemented)
}

func refused(c auth.Challenge) error {
	if e := c.Parameters["error"]; e != "" {
		return fmt.Errorf("server message: %.64s: %w", e, docker.ErrInvalidAuthorization)
	}
	return docker.ErrInvalidAuthorization
}
