package registry

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"gantry/internal/errs"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
)

// identity is who a client is.
type identity struct {
	name    string
	known   bool         // it has shown something
	foreign bool         // its token is somebody else's, who alone says what it may do
	token   *auth.Claims // nil: a password
}

// open reports whether everybody may do everything.
func (s *core) open() bool { return s.Policy.Free() && s.Foreign == nil }

// identify reads who a client is. What it shows must be right.
func (s *core) identify(r *request) error {
	h := r.Header.Get("Authorization")
	if h == "" || s.open() || r.URL.Path == "/healthz" {
		return nil
	}
	scheme, rest, _ := strings.Cut(h, " ")
	switch strings.ToLower(scheme) {
	case "basic":
		user, password, ok := r.BasicAuth()
		if !ok {
			return errs.New(errs.Unauthenticated, "authentication required")
		}
		if user == "" && password == "" { // how some clients say that they are nobody
			return nil
		}
		if err := s.Policy.Password(user, password); err != nil {
			return err
		}
		r.user = identity{name: user, known: true}
		return nil
	case "bearer":
		return s.identifyToken(r, strings.TrimSpace(rest))
	}
	return errs.New(errs.Unauthenticated, "authentication required")
}

func (s *core) identifyToken(r *request, text string) error {
	now := time.Now()
	if s.Tokens != nil {
		c, err := s.Tokens.Verifier().Verify(text, now)
		if err == nil && !c.Refresh {
			r.user = identity{name: c.Subject, known: true, token: c}
			return nil
		}
	}
	if s.Foreign != nil {
		c, err := s.Foreign.Verify(text, now)
		if err != nil {
			return err
		}
		r.user = identity{name: c.Subject, known: true, foreign: true, token: c}
		return nil
	}
	return errs.New(errs.Unauthenticated, "authentication required: invalid token")
}

// may reports whether a client may do something. A token must give the right,
// and if it is our own its owner must still have it.
func (s *core) may(r *request, repository string, a auth.Action) (bool, error) {
	if s.open() {
		return true, nil
	}
	if r.user.token != nil && !r.user.token.Allows(repository, a) {
		return false, nil
	}
	if r.user.foreign {
		return true, nil
	}
	if s.Policy.Free() { // only somebody else's tokens count
		return false, nil
	}
	return s.Policy.Allows(r.user.name, repository, a)
}

// need is an error unless a client may do something.
func (s *core) need(r *request, repository string, a auth.Action) error {
	ok, err := s.may(r, repository, a)
	if err != nil || ok {
		return err
	}
	if r.user.known && r.user.token == nil {
		return repo.NewFault(errs.Denied, repo.Denied, "requested access to the resource is denied")
	}
	scope := "registry:catalog:*"
	if repository != "" {
		scope = "repository:" + repository + ":" + string(a)
		if a == auth.Push {
			scope = "repository:" + repository + ":pull,push"
		}
	}
	return s.challenge(r, scope)
}

// challenge is the error that tells a client how to show who it is.
func (s *core) challenge(r *request, scope string) error {
	why := ""
	if r.user.token != nil {
		why = "insufficient_scope"
	}
	s.setChallenge(r, scope, why)
	return repo.NewFault(errs.Unauthenticated, repo.Unauthorized, "authentication required")
}

// service is the name of the registry that tokens are for.
func (s *core) service() string {
	if s.Tokens != nil {
		return s.Tokens.Name
	}
	return s.Foreign.Service
}

// setChallenge says how to show who one is.
// Format: RFC 9110, 11.6.1; RFC 6750, 3.
func (s *core) setChallenge(r *request, scope, why string) {
	browsing := strings.HasPrefix(r.URL.Path, "/browse") || r.URL.Path == "/" || r.URL.Path == "/token" || r.URL.Path == "/metrics"
	if s.Tokens == nil && s.Foreign == nil || browsing && !s.Policy.Free() {
		r.w.Header().Set("WWW-Authenticate", `Basic realm="gantry registry"`)
		return
	}
	realm := s.Realm
	if realm == "" {
		realm = here(r.Request) + "/token"
	}
	text := `Bearer realm="` + quote(realm) + `",service="` + quote(s.service()) + `"`
	if scope != "" {
		text += `,scope="` + quote(scope) + `"`
	}
	if why != "" {
		text += `,error="` + why + `"`
	}
	r.w.Header().Set("WWW-Authenticate", text)
}

// here is the address that a client has reached this server by.
func here(r *http.Request) string {
	u := url.URL{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	return u.String()
}

// quote makes a text fit between double quotes.
func quote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", "", "\n", "").Replace(s)
}

// visible returns the names that a client may pull.
func (s *core) visible(r *request, names []string) ([]string, error) {
	if s.open() || r.user.foreign {
		return names, nil
	}
	list := []string{}
	for _, n := range names {
		ok, err := s.Policy.Allows(r.user.name, n, auth.Pull)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, n)
		}
	}
	return list, nil
}

// tokenGet gives a token to who shows a password, or nothing.
func (s *tokens) tokenGet(r *request) error {
	if s.Tokens == nil {
		return notFound(r)
	}
	q := r.URL.Query()
	return s.giveToken(r, r.user.name, q["scope"], q.Get("offline_token") == "true" && r.user.known)
}

// tokenPost gives a token for a password or a refresh token.
// Format: Docker's token authentication by OAuth 2 (RFC 6749, 4.3 and 6).
func (s *tokens) tokenPost(r *request) error {
	if s.Tokens == nil {
		return notFound(r)
	}
	r.Request.Body = http.MaxBytesReader(r.w, r.Request.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return errs.New(errs.Invalid, "%w", err)
	}
	f := r.PostForm
	switch f.Get("grant_type") {
	case "password":
		if err := s.Policy.Password(f.Get("username"), f.Get("password")); err != nil {
			return err
		}
		r.user = identity{name: f.Get("username"), known: true}
		return s.giveToken(r, r.user.name, f["scope"], f.Get("access_type") == "offline")
	case "refresh_token":
		user, err := s.Tokens.RefreshUser(f.Get("refresh_token"), time.Now())
		if err != nil {
			return err
		}
		r.user = identity{name: user, known: true}
		return s.giveToken(r, user, f["scope"], false)
	}
	return errs.New(errs.Invalid, "grant type %.40q is not supported", f.Get("grant_type"))
}

func (s *tokens) giveToken(r *request, user string, scopes []string, refresh bool) error {
	now := time.Now()
	access, err := s.Tokens.Grant(user, auth.ParseScope(scopes))
	if err != nil {
		return err
	}
	text, err := s.Tokens.Token(user, access, now)
	if err != nil {
		return err
	}
	out := map[string]any{"token": text, "access_token": text, "expires_in": int(s.Tokens.Life.Seconds()), "issued_at": now.UTC().Format(time.RFC3339)}
	if refresh {
		if out["refresh_token"], err = s.Tokens.Refresh(user, now); err != nil {
			return err
		}
	}
	r.w.Header().Set("Cache-Control", "no-store")
	return r.w.json(http.StatusOK, out)
}
