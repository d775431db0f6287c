package remote_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/remote"
	"gantry/internal/testkit/registry"
	"gantry/internal/wire"
)

func fetch(t *testing.T, c remote.Config, address string) (text string, told []string, err error) {
	t.Helper()
	client := remote.New(remote.Options{Config: func() remote.Config { return c }, Agent: "test"})
	r, err := client.Download(t.Context(), address, func(p wire.Progress) { told = append(told, p.Status) })
	if err != nil {
		return "", told, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), told, err
}

func TestDownload(t *testing.T) {
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	defer s.Close()
	secure := registry.New(t, registry.Options{TLS: true})
	release := make(chan struct{})
	defer close(release)
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "content") })
	mux.HandleFunc("/hop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/file", http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/local", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no \x1b[31mway", http.StatusForbidden)
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "part")
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "part")
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	secure.Set(registry.Faults{Before: func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, s.URL+"/file", http.StatusFound)
		return true
	}})
	stall := remote.Config{Stall: 200 * time.Millisecond}
	for _, address := range []string{s.URL + "/file", s.URL + "/hop", strings.TrimPrefix(s.URL, "http://") + "/file"} {
		text, told, err := fetch(t, stall, address)
		if err != nil || text != "content" || len(told) < 2 || !strings.HasPrefix(told[0], "Downloading from http://") || told[1] != "Importing" {
			t.Errorf("%s: %q, %v, %q", address, text, err, told)
		}
	}
	for _, x := range []struct {
		address, says string
		kind          errs.Kind
	}{
		{"ftp://h/x", "no address of http or https", errs.Invalid},
		{"file:///etc/passwd", "no address of http or https", errs.Invalid},
		{"http://127.0.0.1:1/x", "connection refused", errs.Unknown},
		{s.URL + "/none", "with status 404 Not Found: 404 page not found", errs.NotFound},
		{s.URL + "/broken", "with status 403 Forbidden: no [31mway", errs.Invalid},
		{s.URL + "/loop", "stopped after 10 redirects", errs.Unknown},
		{s.URL + "/local", "refused: ", errs.Denied},
		{s.URL + "/cut", "unexpected EOF", errs.Unknown},
		{s.URL + "/slow", "has sent nothing for 200ms", errs.Unavailable},
		{"https://" + secure.Host + "/x", "refused: ", errs.Denied},
	} {
		_, _, err := fetch(t, stall, x.address)
		if err == nil || !strings.Contains(err.Error(), x.says) || !errs.Is(err, x.kind) {
			t.Errorf("%s: %v (%v)", x.address, err, errs.KindOf(err))
		}
	}
}

// The proxy and the certificates are those that pulls use.
func TestDownloadThroughProxy(t *testing.T) {
	r := registry.New(t, registry.Options{TLS: true})
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, q *http.Request) bool {
		_, _ = io.WriteString(w, "secret way")
		return true
	}})
	c := remote.Config{HTTPSProxy: tunnel(t, r.Host), CertDirs: []string{t.TempDir()}}
	if _, _, err := fetch(t, c, "https://example.com/x.tar"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody trusts: %v", err)
	}
	dir := filepath.Join(c.CertDirs[0], "example.com")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), certificate(r), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, _, err := fetch(t, c, "https://example.com/x.tar"); err != nil || text != "secret way" {
		t.Errorf("%q, %v", text, err)
	}
}
