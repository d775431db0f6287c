package security

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// rss returns the memory of a process that is in use, in bytes.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kb int64
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(rest, &kb); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kb << 10
}

// CVE-2021-21285, GO-2022-0482, CVE-2023-2253: a registry that sends without end,
// and what unpacks without end, are errors; the daemon goes on, and stays small.
func TestHostileRegistry(t *testing.T) {
	d, r := testkit.StartDaemon(t, "--bridge", "none", "--max-download-attempts", "1"), registry.New(t, registry.Options{})
	var bomb bytes.Buffer
	z, _ := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	if _, err := io.CopyN(z, zeros{}, 2<<30); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	r.Put("bomb", "1", registry.Image{Layers: [][]byte{bomb.Bytes()}, Packing: "none"})
	r.Put("endless", "1", registry.Image{Layers: [][]byte{registry.Noise(1, 1000)}, Packing: "none"})
	refused := func(name string) {
		t.Helper()
		if out, err := d.Gantry("pull", "-q", r.Host+"/"+name); err == nil {
			t.Errorf("%s was pulled: %s", name, out)
		}
	}
	refused("bomb:1")
	for _, part := range []string{"/blobs/", "/manifests/", "/tags/"} {
		r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
			if q.Method != http.MethodGet || !strings.Contains(q.URL.Path, part) {
				return false
			}
			_, _ = io.CopyN(w, zeros{}, 1<<30)
			return true
		}})
		refused("endless:1")
		if _, err := d.Gantry("pull", "-a", "-q", r.Host+"/endless"); err == nil {
			t.Error("all tags were pulled")
		}
	}
	if got := rss(t, d.Pid()); got > 128<<20 {
		t.Errorf("the daemon took %d MB", got>>20)
	}
	if out := d.OK(t, "images", "-aq"); out != "" {
		t.Errorf("there are images: %s", out)
	}
}

// zeros are without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// CVE-2020-15157, CVE-2026-33540: credentials of a request go to the registry
// that they are for, and to nobody that it names.
func TestCredentialsGoNowhereElse(t *testing.T) {
	d := testkit.StartDaemon(t, "--bridge", "none")
	const secret = "very-s3cret"
	var mu sync.Mutex
	var seen []string
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(q.Body, 1<<20))
		user, pass, _ := q.BasicAuth()
		mu.Lock()
		seen = append(seen, fmt.Sprint(q.URL, q.Header, string(body), user, pass))
		mu.Unlock()
		_, _ = io.WriteString(w, `{"token":"x"}`)
	}))
	defer thief.Close()
	other := strings.Replace(thief.URL, "127.0.0.1", "localhost", 1) // another site
	auth := func(host string) string {
		return base64.URLEncoding.EncodeToString([]byte(`{"username":"user","password":"` + secret + `","serveraddress":"` + host + `"}`))
	}
	pull := func(host, header string) {
		t.Helper()
		q, err := http.NewRequest(http.MethodPost, "http://gantry/images/create?"+url.Values{"fromImage": {host + "/secret"}, "tag": {"1"}}.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("X-Registry-Auth", header)
		resp, err := d.Client().Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	realm := registry.New(t, registry.Options{Auth: registry.Token, User: "user", Password: secret, Realm: other + "/token"})
	realm.Put("secret", "1", registry.Image{})
	pull(realm.Host, auth(realm.Host))
	pull(realm.Host, "")
	moved := registry.New(t, registry.Options{Auth: registry.Basic, User: "user", Password: secret})
	moved.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		if _, _, ok := q.BasicAuth(); ok {
			http.Redirect(w, q, other+q.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}})
	pull(moved.Host, auth(moved.Host))
	plain := registry.New(t, registry.Options{Auth: registry.Basic, User: "user", Password: secret})
	pull(plain.Host, auth("elsewhere.test"))
	for _, q := range plain.Requests() {
		if q.Authorization != "" {
			t.Errorf("credentials for another registry were sent: %+v", q)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) == 0 {
		t.Error("nobody asked the thief: the test tests nothing")
	}
	for _, s := range seen {
		if strings.Contains(s, secret) || strings.Contains(s, "Authorization") {
			t.Errorf("another host saw %s", s)
		}
	}
}
