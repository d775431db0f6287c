package remote

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"

	apiwire "gantry/internal/wire"
)

func TestEndpoints(t *testing.T) {
	c := Config{
		Mirrors: []string{"https://mirror.test", "http://plain.test:5000/some/"}, Insecure: []string{"lab.test:5000", "10.1.0.0/16"},
		Registries: map[string]Registry{
			"big.test":      {Mirrors: []string{"https://a.test/v2/big"}},
			"big.test/team": {Mirrors: []string{"b.test"}, Rewrite: map[string]string{"^team/(.*)$": "cache/$1"}},
			"odd.test":      {Insecure: true},
		},
	}
	for name, want := range map[string]string{
		"app":             "https://mirror.test/v2 library/app, http://plain.test:5000/some/v2 library/app insecure, https://" + serverHost(defaultDomain()) + "/v2 library/app",
		"big.test/x":      "https://a.test/v2/big x, https://big.test/v2 x",
		"big.test/team/x": "https://b.test/v2 cache/x, https://big.test/v2 team/x",
		"big.test/teams":  "https://a.test/v2/big teams, https://big.test/v2 teams",
		"lab.test:5000/x": "https://lab.test:5000/v2 x insecure",
		"lab.test/x":      "https://lab.test/v2 x",
		"10.1.2.3/x":      "https://10.1.2.3/v2 x insecure",
		"10.2.2.3:80/x":   "https://10.2.2.3:80/v2 x",
		"localhost/x":     "https://localhost/v2 x insecure",
		"127.9.9.9:1/x":   "https://127.9.9.9:1/v2 x insecure",
		"[::1]:5000/x":    "https://[::1]:5000/v2 x insecure",
		"odd.test/x":      "https://odd.test/v2 x insecure",
	} {
		n, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		list, err := endpoints(n, c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, e := range list {
			s := fmt.Sprintf("%s://%s%s %s", e.scheme, e.host, e.path, e.repo)
			if e.insecure {
				s += " insecure"
			}
			got = append(got, s)
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, s, want)
		}
		if list[len(list)-1].mirror {
			t.Errorf("%s: the registry itself is taken for a mirror", name)
		}
	}
	n, _ := reference.ParseNormalizedNamed("m.test/x")
	for _, bad := range []string{"ftp://x", "https://", "https://u:p@x", "https://x?y", "://"} {
		if _, err := endpoints(n, Config{Registries: map[string]Registry{"m.test": {Mirrors: []string{bad}}}}); err == nil {
			t.Errorf("mirror %q was taken", bad)
		}
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Config{
		{Mirrors: []string{"ftp://x"}}, {Registries: map[string]Registry{"a b": {}}}, {Registries: map[string]Registry{"a.test": {Mirrors: []string{"https://"}}}},
		{Registries: map[string]Registry{"a.test": {Rewrite: map[string]string{"(": ""}}}}, {Registries: map[string]Registry{"a.test": {Cert: "x"}}},
	} {
		if err := bad.Check(); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	for _, to := range []string{"../x", "/x", "a//b", "a/../../b", ""} {
		if _, err := rewrite("x", map[string]string{"x": to}); err == nil {
			t.Errorf("rewritten to %q", to)
		}
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "r.test:5000")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(at, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.crt")
	write("client.cert")
	if _, err := certificates("r.test:5000", []string{dir}); err == nil || !strings.Contains(err.Error(), "missing key client.key for client certificate client.cert") {
		t.Error(err)
	}
	write("client.key")
	f, err := certificates("r.test:5000", []string{"/nonexistent", dir})
	if err != nil || len(f.ca) != 1 || len(f.pairs) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := certificates("other.test", []string{dir}); err != nil || len(f.ca) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestDecodeAuth(t *testing.T) {
	body := []byte(`{"username":"u","password":"p?>","serveraddress":"x"}`)
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		a, err := DecodeAuth(e.EncodeToString(body))
		if err != nil || a.Username != "u" || a.Password != "p?>" {
			t.Errorf("%+v, %v", a, err)
		}
	}
	a, err := DecodeAuth(base64.URLEncoding.EncodeToString([]byte(`{"auth":"dTpwOng="}`)))
	if err != nil || a.Username != "u" || a.Password != "p:x" || a.Auth != "" {
		t.Errorf("%+v, %v", a, err)
	}
	for _, bad := range []string{"!!!", "e30x", "eA=="} {
		if _, err := DecodeAuth(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if a, err := DecodeAuth(""); err != nil || a != (apiwire.RegistryAuth{}) {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestAuthFor finds credentials in the ways that configurations call registries.
func TestAuthFor(t *testing.T) {
	list := map[string]apiwire.RegistryAuth{
		"https://index." + defaultDomain() + "/v1/": {Username: "hub"}, "corp.test:5000": {Auth: "dTpw"}, "https://other.test/v2/": {Username: "other"}, "x": {Username: "elsewhere", ServerAddress: "there.test"},
	}
	for name, want := range map[string]string{"busybox": "hub", "corp.test:5000/a/b:1": "u", "corp.test/a": "", "other.test/a": "other", "there.test/a": "elsewhere", "x.test/a": ""} {
		n, err := ParseName(name, "")
		if err != nil {
			t.Fatal(err)
		}
		if a := AuthFor(list, n); a.Username != want {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestSameSite(t *testing.T) {
	for pair, want := range map[[2]string]bool{
		{"r.example.com", "auth.example.com"}: true, {"r.example.com", "R.EXAMPLE.COM"}: true, {"a.co.uk", "b.co.uk"}: false,
		{"x.github.io", "y.github.io"}: false, {"example.com", "example.com.evil.test"}: false, {"127.0.0.1", "127.0.0.2"}: false,
		{"127.0.0.1", "127.0.0.1"}: true, {"com", "example.com"}: false, {"localhost", "127.0.0.1"}: false, {"registry.corp", "auth.corp"}: false,
	} {
		if got := sameSite(pair[0], pair[1]); got != want {
			t.Errorf("%v: %v", pair, got)
		}
	}
}

func TestRegistryText(t *testing.T) {
	for body, want := range map[string]string{
		`{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`: "denied: requested access to the resource is denied",
		`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"},{"code":"X"}]}`:    "manifest unknown: manifest unknown\nx",
		`{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`:                         "toomanyrequests: slow down",
		`{"details":"incorrect username or password"}`:                                          "unauthorized: incorrect username or password",
		`<html>`: "", ``: "", `{"errors":"x"}`: "",
	} {
		if got := registryText([]byte(body)); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	if got := registryText([]byte(`{"errors":[{"code":"X","message":"` + strings.Repeat("y", 5000) + `"}]}`)); len(got) > 1100 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestRetryAfter(t *testing.T) {
	for v, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-1": 0, "x": 0, "Mon, 02 Jan 2006 15:04:05 GMT": 0} {
		if got := retryAfter(http.Header{"Retry-After": {v}}); got != want {
			t.Errorf("%q: %v", v, got)
		}
	}
}

func TestLimiter(t *testing.T) {
	var l limiter
	l.resize(2)
	ctx := t.Context()
	if l.acquire(ctx) != nil || l.spare(5) != 1 || l.spare(1) != 0 {
		t.Fatal("two places")
	}
	got := make(chan error, 1)
	go func() { got <- l.acquire(ctx) }()
	for {
		l.mu.Lock()
		n := len(l.waiting)
		l.mu.Unlock()
		if n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	l.release(1)
	if err := <-got; err != nil || l.spare(1) != 0 {
		t.Error(err)
	}
	l.resize(3)
	if l.spare(9) != 1 {
		t.Error("a third place")
	}
	if err := final(errors.New("x")); err {
		t.Error("any error is final")
	}
}
