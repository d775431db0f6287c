package remote

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const exampleTable = `server = "https://real.test:5000"
ca = "ca.pem"

[host."https://near.test"]
  capabilities = ["pull", "resolve"]
  client = [["cert.pem", "/keys/key.pem"], ["both.pem", ""]]
  skip_verify = true
  [host."https://near.test".header]
    x-team = "storage"

[host."https://push.test"]
  capabilities = ["push"]

[host."http://far.test:8080/cache/api"]
  override_path = true
  ca = ["/a.pem", "b.pem"]
`

// TestHostTable reads a table like those of containerd.
func TestHostTable(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "registry.test")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, tableName), []byte(exampleTable), 0o600); err != nil {
		t.Fatal(err)
	}
	name, err := ParseName("registry.test/team/app:1", "")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{CertDirs: []string{"/nonexistent", dir}, Registries: map[string]Registry{"registry.test": {Rewrite: map[string]string{"^team/": "ours/"}}}}
	list, err := endpoints(name, c)
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	near, far, own := list[0], list[1], list[2]
	if near.host != "near.test" || near.path != "/v2" || !near.mirror || near.insecure || !near.unverified || near.repo != "ours/app" || near.header.Get("X-Team") != "storage" ||
		!slices.Equal(near.tls.pairs, [][2]string{{filepath.Join(at, "cert.pem"), "/keys/key.pem"}, {filepath.Join(at, "both.pem"), filepath.Join(at, "both.pem")}}) {
		t.Errorf("near: %+v", near)
	}
	if far.scheme != "http" || far.host != "far.test:8080" || far.path != "/cache/api" || !far.insecure || !slices.Equal(far.tls.ca, []string{"/a.pem", filepath.Join(at, "b.pem")}) {
		t.Errorf("far: %+v", far)
	}
	if own.host != "real.test:5000" || own.mirror || own.insecure || own.unverified || own.repo != "team/app" || own.header != nil || !slices.Equal(own.tls.ca, []string{filepath.Join(at, "ca.pem")}) {
		t.Errorf("the registry: %+v", own)
	}
	for text, want := range map[string]string{
		"server = ": "", "server = 7": "", `server = "ftp://x"`: "invalid mirror", "ca = 7\nserver = \"https://x\"": "neither a text",
		"[host.\"https://x\"]\nclient = [[\"a\", \"b\", \"c\"]]": "a pair is", "[host.\"https://u@x\"]": "invalid mirror",
	} {
		if _, err := parseHostTable([]byte(text), "/"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
