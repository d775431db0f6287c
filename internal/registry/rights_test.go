package registry_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gantry/internal/registry"
	"gantry/internal/registry/auth"
	"gantry/internal/registry/repo"
)

// guarded serves a registry with users ann, bob and root.
func guarded(t *testing.T, tokens bool) (s *site, rights string) {
	dir := t.TempDir()
	users, rights := filepath.Join(dir, "htpasswd"), filepath.Join(dir, "rights.yml")
	lines := ""
	for _, u := range []string{"ann", "bob", "root"} {
		h, err := bcrypt.GenerateFromPassword([]byte("pw-"+u), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		lines += u + ":" + string(h) + "\n"
	}
	text := `rights:
- {users: ["*"], repositories: ["home/$user/**"], actions: [pull, push, delete]}
- {users: [anonymous], repositories: ["public/*"], actions: [pull]}
- {users: [ann], repositories: ["public/**"], actions: [push]}
- {users: [root], repositories: ["**"], actions: ["*"]}
`
	for f, data := range map[string]string{users: lines, rights: text} {
		if err := os.WriteFile(f, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return start(t, local(t, dir), dir, func(o *registry.Options, _ *repo.Options) {
		p, err := auth.Open(auth.Options{Htpasswd: users, Rights: rights})
		if err != nil {
			t.Fatal(err)
		}
		o.Policy = p
		if tokens {
			signer, err := auth.OpenSigner(filepath.Join(dir, "key"))
			if err != nil {
				t.Fatal(err)
			}
			o.Tokens = &auth.Service{Policy: p, Signer: signer, Issuer: "me", Name: "reg", Life: time.Minute}
		}
	}), rights
}

func TestBasicRights(t *testing.T) {
	s, rights := guarded(t, false)
	if r := s.want(401, "UNAUTHORIZED", "GET", "/v2/", ""); !strings.HasPrefix(r.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("%v", r.Header)
	}
	s.user = "ann:wrong"
	s.want(401, "UNAUTHORIZED", "GET", "/v2/", "")
	s.user = "nobody:pw-ann"
	s.want(401, "UNAUTHORIZED", "GET", "/v2/", "")
	s.user = "ann:pw-ann"
	s.want(200, "", "GET", "/v2/", "")
	s.push("public/app", "v1", "layer")
	s.push("home/ann/app", "v1", "secret")
	s.want(403, "DENIED", "DELETE", "/v2/public/app/manifests/v1", "")
	s.want(403, "DENIED", "POST", "/v2/home/bob/app/blobs/uploads/", "")
	s.want(403, "DENIED", "POST", "/v2/home/annex/app/blobs/uploads/", "")
	if r := s.want(200, "", "GET", "/v2/_catalog", ""); r.body != `{"repositories":["home/ann/app","public/app"]}` {
		t.Errorf("%s", r.body)
	}
	s.want(403, "DENIED", "POST", "/gc", "")
	s.want(403, "DENIED", "GET", "/metrics", "")
	s.user = "bob:pw-bob"
	s.want(200, "", "GET", "/v2/public/app/manifests/v1", "")
	s.want(403, "DENIED", "GET", "/v2/home/ann/app/manifests/v1", "")
	if r := s.want(200, "", "GET", "/v1/search?q=app", ""); strings.Contains(r.body, "ann") {
		t.Errorf("%s", r.body)
	}
	// A mount is no way to read what one may not pull.
	secret := "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
	s.want(202, "", "POST", "/v2/home/bob/x/blobs/uploads/?from=home/ann/app&mount="+secret, "")
	s.want(202, "", "POST", "/v2/home/bob/x/blobs/uploads/?mount="+secret, "")
	s.want(403, "DENIED", "GET", "/browse/r/home/ann/app", "")
	if r := s.want(200, "", "GET", "/browse/", ""); strings.Contains(r.body, "ann") || !strings.Contains(r.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%s %v", r.body, r.Header)
	}
	s.user = ""
	s.want(200, "", "GET", "/v2/public/app/manifests/v1", "")
	s.want(401, "UNAUTHORIZED", "GET", "/v2/home/ann/app/manifests/v1", "")
	s.user = "root:pw-root"
	s.want(200, "", "POST", "/gc", "")
	if r := s.want(200, "", "GET", "/metrics", ""); !strings.Contains(r.body, `gantry_registry_requests_total{route="manifest",method="PUT",code="201"} 2`) {
		t.Errorf("%s", r.body)
	}
	s.want(202, "", "DELETE", "/v2/public/app/manifests/v1", "")
	// A change of the file counts at once; a wrong one opens nothing.
	if err := os.WriteFile(rights, []byte("rights: [{users: [ann], actions: [fly]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.do("GET", "/v2/home/ann/app/manifests/v1", ""); r.status < 400 {
		t.Errorf("%d", r.status)
	}
}

// token asks for a token as s.user.
func (s *site) ask(scope string) string {
	s.t.Helper()
	r := s.want(200, "", "GET", "/token?service=reg&scope="+scope, "")
	var t struct{ Token string }
	if err := json.Unmarshal([]byte(r.body), &t); err != nil || t.Token == "" {
		s.t.Fatal(r.body, err)
	}
	return t.Token
}

func TestTokens(t *testing.T) {
	s, rights := guarded(t, true)
	r := s.want(401, "UNAUTHORIZED", "GET", "/v2/home/ann/app/tags/list", "")
	if want := fmt.Sprintf(`Bearer realm="%s/token",service="reg",scope="repository:home/ann/app:pull"`, s.url); r.Get("WWW-Authenticate") != want {
		t.Errorf("%s", r.Get("WWW-Authenticate"))
	}
	s.user = "ann:pw-ann"
	full := s.ask("repository:home/ann/app:pull,push&scope=repository:home/bob/app:pull")
	s.user, s.token = "", full
	s.push("home/ann/app", "v1", "layer")
	r = s.want(401, "UNAUTHORIZED", "GET", "/v2/home/bob/app/tags/list", "")
	if !strings.Contains(r.Get("WWW-Authenticate"), `error="insufficient_scope"`) {
		t.Errorf("%v", r.Header)
	}
	s.want(401, "", "DELETE", "/v2/home/ann/app/manifests/v1", "")
	// What is not signed by the key is nothing.
	parts := strings.Split(full, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	for _, bad := range []string{none, parts[0] + "." + parts[1] + ".AAAA", full + "x", "x", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"aud":"reg","exp":99999999999}`)) + "." + parts[2]} {
		s.token = bad
		s.want(401, "UNAUTHORIZED", "GET", "/v2/home/ann/app/tags/list", "")
	}
	s.token = ""
	anon := s.ask("repository:public/x:pull,push")
	s.token = anon
	s.want(401, "", "POST", "/v2/public/x/blobs/uploads/", "")
	// Refresh tokens give tokens, and nothing else.
	s.token = ""
	r = s.want(200, "", "POST", "/token", "grant_type=password&username=ann&password=pw-ann&access_type=offline&scope=repository:home/ann/app:pull", "Content-Type", "application/x-www-form-urlencoded")
	var got struct {
		Refresh string `json:"refresh_token"`
	}
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || got.Refresh == "" {
		t.Fatal(r.body)
	}
	s.want(200, "", "POST", "/token", "grant_type=refresh_token&refresh_token="+got.Refresh, "Content-Type", "application/x-www-form-urlencoded")
	s.want(401, "", "POST", "/token", "grant_type=refresh_token&refresh_token="+full, "Content-Type", "application/x-www-form-urlencoded")
	s.token = got.Refresh
	s.want(401, "", "GET", "/v2/home/ann/app/tags/list", "")
	// A right that is taken away ends with the tokens that give it.
	s.token = full
	s.want(200, "", "GET", "/v2/home/ann/app/tags/list", "")
	if err := os.WriteFile(rights, []byte("rights: []"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(401, "", "GET", "/v2/home/ann/app/tags/list", "")
}

// Tokens of somebody else's service are good if its key has signed them.
func TestForeignTokens(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := start(t, local(t, dir), dir, func(o *registry.Options, _ *repo.Options) {
		o.Foreign, o.Realm = &auth.Verifier{Service: "reg", Issuer: "them"}, "https://tokens.example/t"
		o.Foreign.Keys = append(o.Foreign.Keys, pub)
	})
	if r := s.want(401, "", "GET", "/v2/", ""); !strings.HasPrefix(r.Get("WWW-Authenticate"), `Bearer realm="https://tokens.example/t",service="reg"`) {
		t.Errorf("%v", r.Header)
	}
	sign := func(claims string) string {
		enc := base64.RawURLEncoding
		text := enc.EncodeToString([]byte(`{"alg":"EdDSA"}`)) + "." + enc.EncodeToString([]byte(claims))
		return text + "." + enc.EncodeToString(ed25519.Sign(key, []byte(text)))
	}
	now := time.Now().Unix()
	claims := func(iss, aud string, exp int64) string {
		return fmt.Sprintf(`{"iss":%q,"aud":[%q],"exp":%d,"access":[{"type":"repository","name":"x","actions":["pull","push"]}]}`, iss, aud, exp)
	}
	s.token = sign(claims("them", "reg", now+60))
	s.push("x", "v1", "layer")
	s.want(401, "", "GET", "/v2/y/tags/list", "")
	s.want(401, "", "DELETE", "/v2/x/manifests/v1", "")
	for _, bad := range []string{claims("us", "reg", now+60), claims("them", "other", now+60), claims("them", "reg", now-3600)} {
		s.token = sign(bad)
		s.want(401, "UNAUTHORIZED", "GET", "/v2/x/tags/list", "")
	}
}
