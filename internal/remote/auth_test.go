package remote_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/remote"
	"gantry/internal/testkit/registry"
	"gantry/internal/wire"
)

const password = "s3cret-pass"

func creds(host string) wire.RegistryAuth {
	return wire.RegistryAuth{Username: "user", Password: password, ServerAddress: host}
}

func TestAuthentication(t *testing.T) {
	for name, kind := range map[string]registry.Auth{"basic": registry.Basic, "token": registry.Token} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			r := registry.New(t, registry.Options{Auth: kind, User: "user", Password: password})
			r.Put("secret", "1", small("x"))
			pull := func(a wire.RegistryAuth) error {
				_, err := h.pullCtx(t.Context(), r.Host+"/secret:1", remote.PullOptions{Auth: a})
				return err
			}
			if err := pull(creds(r.Host)); err != nil {
				t.Fatal(err)
			}
			if err := pull(wire.RegistryAuth{Username: "user", Password: password}); err != nil {
				t.Error("credentials without an address are for the registry of the name:", err)
			}
			if err := pull(creds("other.test")); err == nil {
				t.Error("credentials for another registry were used")
			}
			err := pull(wire.RegistryAuth{})
			want, k := "pull access denied for "+r.Host+"/secret, repository does not exist or may require 'docker login'", errs.NotFound
			if kind == registry.Basic {
				want, k = "no basic auth credentials", errs.Denied
			}
			wantText(t, err, want)
			if !errs.Is(err, k) {
				t.Errorf("kind %v of %v", errs.KindOf(err), err)
			}
			wrong := creds(r.Host)
			wrong.Password = "wrong"
			if err := pull(wrong); err == nil {
				t.Error("a wrong password will do")
			}
			wrong.Password = ""
			if _, err := h.push(r.Host+"/secret:1", remote.PushOptions{Auth: creds(r.Host)}); err != nil {
				t.Error("push:", err)
			}
			r.Put("open", "1", small("y"))
			if kind == registry.Token {
				h.mustPull(r.Host + "/open:1")
				if err := h.images.Tag(t.Context(), r.Host+"/open:1", r.Host+"/open", "2"); err != nil {
					t.Fatal(err)
				}
				if _, err := h.push(r.Host+"/open:2", remote.PushOptions{}); err == nil {
					t.Error("anonymous clients can push")
				} else {
					wantText(t, err, "push access denied, repository does not exist or may require authorization")
				}
			}
		})
	}
}

func TestLogin(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		auth                registry.Auth
		user, pass, refused string
	}{
		{registry.Anonymous, "user", password, ""},
		{registry.Basic, "user", password, ""},
		{registry.Basic, "user", "x", "unauthorized: authentication required"},
		{registry.Token, "user", password, ""},
		{registry.Token, "user", "x", "unauthorized: incorrect username or password"},
	} {
		r := registry.New(t, registry.Options{Auth: c.auth, User: "user", Password: password})
		got, err := h.client.Login(t.Context(), wire.RegistryAuth{Username: c.user, Password: c.pass, ServerAddress: r.Host})
		if c.refused != "" {
			wantText(t, err, `Get "`+r.URL+`/v2/": `+c.refused)
			if !errs.Is(err, errs.Unauthenticated) {
				t.Errorf("kind of %v", err)
			}
			continue
		}
		if err != nil || got.Status != "Login Succeeded" || got.IdentityToken != "" {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
}

func TestIdentityToken(t *testing.T) {
	h := newHost(t)
	r := registry.New(t, registry.Options{Auth: registry.Token, User: "user", Password: password, Identity: "identity-1"})
	r.Put("secret", "1", small("x"))
	got, err := h.client.Login(t.Context(), creds("http://"+r.Host+"/v2/"))
	if err != nil || got.IdentityToken != "identity-1" {
		t.Fatalf("%+v, %v", got, err)
	}
	_, err = h.pullCtx(t.Context(), r.Host+"/secret:1", remote.PullOptions{Auth: wire.RegistryAuth{IdentityToken: got.IdentityToken, ServerAddress: r.Host}})
	if err != nil {
		t.Error(err)
	}
	_, err = h.pullCtx(t.Context(), r.Host+"/secret:1", remote.PullOptions{Auth: wire.RegistryAuth{IdentityToken: "x", ServerAddress: r.Host}})
	if err == nil {
		t.Error("a wrong identity token will do")
	}
}

// A recorder is a server that must see no secret.
type recorder struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

func newRecorder(t *testing.T) *recorder {
	r := &recorder{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_ = q.ParseForm()
		r.mu.Lock()
		defer r.mu.Unlock()
		user, pass, _ := q.BasicAuth()
		r.seen = append(r.seen, q.Method+" "+q.URL.String()+" "+q.Header.Get("Authorization")+" "+user+":"+pass+" "+q.Form.Encode()+" "+q.Header.Get("Cookie"))
		_, _ = w.Write([]byte(`{"token":"t","access_token":"t"}`))
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *recorder) check(t *testing.T, what string, asked bool) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.seen {
		if strings.Contains(s, password) || strings.Contains(s, "Basic ") || strings.Contains(s, "Bearer ") || strings.Contains(s, "identity-") {
			t.Errorf("%s: another host saw %s", what, s)
		}
	}
	if asked && len(r.seen) == 0 {
		t.Errorf("%s: nobody was asked: the test tests nothing", what)
	}
}

// CVE-2020-15157, CVE-2026-33540: credentials go to no other host.
func TestCredentialsStayHome(t *testing.T) {
	// localhost and 127.0.0.1 are two sites here.
	other := func(r *recorder) string { return strings.Replace(r.URL, "127.0.0.1", "localhost", 1) }
	t.Run("realm", func(t *testing.T) {
		h, rec := newHost(t), newRecorder(t)
		r := registry.New(t, registry.Options{Auth: registry.Token, User: "user", Password: password, Realm: other(rec) + "/token"})
		r.Put("secret", "1", small("x"))
		_, err := h.pullCtx(t.Context(), r.Host+"/secret:1", remote.PullOptions{Auth: creds(r.Host)})
		wantText(t, err, "which is another site: refused")
		if !errs.Is(err, errs.Denied) {
			t.Errorf("kind of %v", err)
		}
		_, err = h.client.Login(t.Context(), creds(r.Host))
		wantText(t, err, "which is another site: refused")
		rec.check(t, "realm", false)
		// Nobody's credentials may go anywhere.
		_, _ = h.pull(r.Host + "/secret:1")
		rec.check(t, "anonymous", true)
		// Unless the owner of this machine says so.
		h.config.Registries = map[string]remote.Registry{r.Host: {AuthHosts: []string{"localhost"}}}
		_, _ = h.pullCtx(t.Context(), r.Host+"/secret:1", remote.PullOptions{Auth: creds(r.Host)})
		rec.mu.Lock()
		defer rec.mu.Unlock()
		if !strings.Contains(strings.Join(rec.seen, "\n"), password) {
			t.Error("auth-hosts has no effect")
		}
	})
	t.Run("redirect", func(t *testing.T) {
		h, rec := newHost(t), newRecorder(t)
		r := registry.New(t, registry.Options{Auth: registry.Basic, User: "user", Password: password})
		r.Put("secret", "1", small("x"))
		r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
			if _, _, ok := q.BasicAuth(); ok && strings.Contains(q.URL.Path, "/blobs/") {
				http.Redirect(w, q, other(rec)+"/blob", http.StatusTemporaryRedirect)
				return true
			}
			return false
		}})
		h.config.Attempts = 1
		_, err := h.pullCtx(t.Context(), r.Host+"/secret:1", remote.PullOptions{Auth: creds(r.Host)})
		if err == nil {
			t.Error("pulled what the other host sent")
		}
		rec.check(t, "redirect", true)
	})
	t.Run("port", func(t *testing.T) {
		h, rec := newHost(t), newRecorder(t)
		r := registry.New(t, registry.Options{Auth: registry.Basic, User: "user", Password: password})
		r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
			if _, _, ok := q.BasicAuth(); ok {
				http.Redirect(w, q, rec.URL+q.URL.Path, http.StatusTemporaryRedirect)
				return true
			}
			return false
		}})
		_, _ = h.pullCtx(t.Context(), r.Host+"/secret:1", remote.PullOptions{Auth: creds(r.Host)})
		rec.check(t, "another port of the same host", true)
	})
	t.Run("scheme", func(t *testing.T) {
		h, rec := newHost(t), newRecorder(t)
		r := registry.New(t, registry.Options{Auth: registry.Basic, User: "user", Password: password, TLS: true})
		r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
			if _, _, ok := q.BasicAuth(); ok {
				http.Redirect(w, q, rec.URL+q.URL.Path, http.StatusFound)
				return true
			}
			return false
		}})
		_, _ = h.pullCtx(t.Context(), r.Host+"/secret:1", remote.PullOptions{Auth: creds(r.Host)})
		rec.check(t, "plain http", true)
	})
	t.Run("upload", func(t *testing.T) {
		h, rec := newHost(t), newRecorder(t)
		open := registry.New(t, registry.Options{})
		open.Put("a", "1", small("x"))
		h.mustPull(open.Host + "/a:1")
		r := registry.New(t, registry.Options{Auth: registry.Basic, User: "user", Password: password})
		if err := h.images.Tag(t.Context(), open.Host+"/a:1", r.Host+"/a", "1"); err != nil {
			t.Fatal(err)
		}
		r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
			if _, _, ok := q.BasicAuth(); ok && q.Method == http.MethodPost {
				w.Header().Set("Location", other(rec)+"/upload")
				w.WriteHeader(http.StatusAccepted)
				return true
			}
			return false
		}})
		_, _ = h.push(r.Host+"/a:1", remote.PushOptions{Auth: creds(r.Host)})
		rec.check(t, "upload location", true)
	})
	t.Run("foreign layer", func(t *testing.T) {
		h, rec := newHost(t), newRecorder(t)
		r := registry.New(t, registry.Options{Auth: registry.Basic, User: "user", Password: password})
		d := r.Put("secret", "0", small("x"))
		_, m, _ := r.Manifest("secret", d.Digest.String())
		text := strings.ReplaceAll(string(m), `"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"`, `"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","urls":["`+rec.URL+`/layer"]`)
		if text == string(m) {
			t.Fatal("no layer to replace")
		}
		r.PutManifest("secret", "1", ocispec.MediaTypeImageManifest, []byte(text))
		if _, err := h.pullCtx(t.Context(), r.Host+"/secret:1", remote.PullOptions{Auth: creds(r.Host)}); err != nil {
			t.Error("the registry has the layer:", err)
		}
		rec.mu.Lock()
		defer rec.mu.Unlock()
		if len(rec.seen) > 0 {
			t.Errorf("a foreign address was asked: %v", rec.seen)
		}
	})
	t.Run("mirror", func(t *testing.T) {
		h, rec := newHost(t), newRecorder(t)
		r := registry.New(t, registry.Options{Auth: registry.Basic, User: "user", Password: password})
		r.Put("secret", "1", small("x"))
		h.config.Registries = map[string]remote.Registry{r.Host: {Mirrors: []string{rec.URL}}}
		_, _ = h.pullCtx(context.Background(), r.Host+"/secret:1", remote.PullOptions{Auth: creds(r.Host)})
		rec.check(t, "mirror", true)
	})
}
