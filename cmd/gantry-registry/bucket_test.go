package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"gantry/internal/registry/storage/s3/s3fake"
)

// Two servers on one bucket: the second is told who has it, and takes over what
// the first has kept when that has ended.
func TestOneServerForABucket(t *testing.T) {
	f := s3fake.Start(t)
	conf := func(lease string) string {
		return fmt.Sprintf("data: %s\ns3: {endpoint: %q, bucket: %s, access-key: %s, secret-key: %q}\ns3-lease: %s\n", filepath.Join(t.TempDir(), "data"), f.URL, s3fake.Bucket, s3fake.Key, s3fake.Secret, lease)
	}
	first := serve(t, conf("12s"))
	const text = "kept"
	resp, err := http.Post("http://"+first.address+"/v2/x/blobs/uploads/?digest="+string(digest.FromString(text)), "application/octet-stream", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
	// Patient enough to hear the first one, however slow the machine is.
	other := conf("20s")
	file := filepath.Join(t.TempDir(), "c.yml")
	put(t, file, other)
	err = serveCommand(t.Context(), flag.NewFlagSet("serve", flag.ContinueOnError), []string{"--config", file, "--listen", "127.0.0.1:0"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "one server at a time") {
		t.Errorf("a second server: %v", err)
	}
	if err := first.end(); err != nil {
		t.Fatal(err)
	}
	second := serve(t, other)
	resp, err = http.Get("http://" + second.address + "/v2/x/blobs/" + string(digest.FromString(text)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if data, err := io.ReadAll(resp.Body); err != nil || string(data) != text {
		t.Errorf("%s %q, %v", resp.Status, data, err)
	}
}
