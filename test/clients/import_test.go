package clients_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestImportFromURL: the daemon fetches a root file system by itself, packed or not,
// over a redirect; what does not come whole makes no image.
func TestImportFromURL(t *testing.T) {
	rootfs, err := testkit.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	if _, err := zw.Write(rootfs); err != nil || zw.Close() != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/rootfs.tar", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(rootfs) })
	mux.HandleFunc("/rootfs.tar.gz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(packed.Bytes()) })
	mux.Handle("/moved", http.RedirectHandler("/rootfs.tar.gz", http.StatusFound))
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(rootfs)))
		_, _ = w.Write(rootfs[:len(rootfs)/2])
	})
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<html>not a root file system</html>"))
	})
	files := httptest.NewServer(mux)
	t.Cleanup(files.Close)
	each(t, func(s story) {
		for n, path := range []string{"/rootfs.tar", "/rootfs.tar.gz", "/moved"} {
			name := "fetched:" + strconv.Itoa(n)
			out := s.ok("import", "-c", `CMD ["cat","/etc/group"]`, "-m", "by test", files.URL+path, name)
			if !strings.Contains(out, "Downloading from "+files.URL+path) || !strings.Contains(out, "sha256:") {
				s.Errorf("import of %s: %s", path, out)
			}
			if got := s.ok("run", "--rm", "--network", "none", name); !strings.HasPrefix(got, "root:x:0:") {
				s.Errorf("%s runs as %q", path, got)
			}
			if got := s.ok("history", "--format", "{{.Comment}}", name); strings.TrimSpace(got) != "by test" {
				s.Errorf("history of %s: %q", path, got)
			}
			s.ok("rmi", name)
		}
		before := s.ok("images", "-aq")
		s.fails(1, "status 404 Not Found", "import", files.URL+"/nosuch", "fetched:no")
		s.fails(1, "unexpected EOF", "import", files.URL+"/cut", "fetched:no")
		s.fails(1, "", "import", files.URL+"/page", "fetched:no")
		if after := s.ok("images", "-aq"); after != before {
			s.Errorf("failed imports have left %s besides %s", after, before)
		}
	})
}
