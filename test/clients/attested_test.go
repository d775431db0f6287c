package clients_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// attest puts an attestation of a manifest into a repository. It returns the
// descriptor for an index, and the statement's digest.
func attest(t *testing.T, r *registry.Server, name string, of ocispec.Descriptor, text string) (ocispec.Descriptor, digest.Digest) {
	t.Helper()
	statement := r.PutBlob(name, []byte(`{"_type":"https://in-toto.io/Statement/v0.1","says":"`+text+`"}`))
	statement.MediaType = "application/vnd.in-toto+json"
	statement.Annotations = map[string]string{"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{statement}}
	m.Config = r.PutBlob(name, []byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["`+statement.Digest.String()+`"]}}`))
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d := r.PutManifest(name, "", m.MediaType, data)
	d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of.Digest.String()}
	return d, statement.Digest
}

// TestPulledAttestations: what is attested of an image comes with it, for its
// platform alone, is told of, and goes with it through save, load and push.
func TestPulledAttestations(t *testing.T) {
	r := registry.New(t, registry.Options{})
	var list []ocispec.Descriptor
	statements := map[string]digest.Digest{}
	for n, arch := range []string{"amd64", "arm64"} {
		m := r.Put("told", "", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", uint64(n), 1000)}, Platform: &ocispec.Platform{OS: "linux", Architecture: arch}, Cmd: []string{"/f"}})
		a, s := attest(t, r, "told", m, arch)
		list, statements[arch] = append(list, m, a), s
	}
	r.PutIndex("told", "1", list...)
	one := r.PutIndex("told", "one", list[:2]...)
	d := testkit.StartDaemon(t)
	ref := r.Host + "/told:1"
	d.OK(t, "pull", "--platform", "linux/amd64", ref)
	for _, q := range r.Requests() {
		if strings.HasSuffix(q.Path, statements["arm64"].String()) {
			t.Error("what is attested of the other platform was fetched")
		}
	}
	// Available, by the index's order: image and attestation of amd64, those of arm64.
	told := func(d *testkit.Daemon, ref, want string) {
		t.Helper()
		var i struct {
			Manifests []struct {
				Available       bool
				Kind            string
				Size            struct{ Content int64 }
				AttestationData struct{ For digest.Digest }
			}
		}
		fromJSON(t, get(t, d, "/images/"+ref+"/json?manifests=1"), &i)
		got := ""
		for n, m := range i.Manifests {
			if got += m.Kind[:1]; m.Available {
				got += "+"
			}
			if m.Kind == "attestation" && m.AttestationData.For != list[n-1].Digest {
				t.Errorf("%s: attestation of %s", ref, m.AttestationData.For)
			}
			if m.Available && m.Size.Content < 100 {
				t.Errorf("%s: manifest %d has %d bytes", ref, n, m.Size.Content)
			}
		}
		if got != want {
			t.Errorf("%s has %s, not %s", ref, got, want)
		}
	}
	told(d, ref, "i+a+ia")
	d.OK(t, "pull", "--platform", "linux/arm64", ref)
	told(d, ref, "i+a+i+a+")
	if got := d.OK(t, "images", "--tree"); !strings.Contains(got, "linux/amd64") || !strings.Contains(got, "linux/arm64") {
		t.Errorf("the tree has\n%s", got)
	}
	if data := get(t, d, "/images/"+ref+"/attestations?platform="+`{"os":"linux","architecture":"arm64"}`+"&statement=1"); !bytes.Contains(data, []byte(`"says":"arm64"`)) {
		t.Errorf("attested: %s", data)
	}

	d.OK(t, "pull", "-q", r.Host+"/told:one")
	d.OK(t, "tag", r.Host+"/told:one", r.Host+"/copy:1")
	d.OK(t, "push", "-q", r.Host+"/copy:1")
	if _, data, ok := r.Manifest("copy", "1"); !ok || digest.FromBytes(data) != one.Digest {
		t.Error("the push has sent another index")
	}
	if _, _, ok := r.Manifest("copy", list[1].Digest.String()); !ok {
		t.Error("the push has not sent the attestation")
	}
	file := filepath.Join(t.TempDir(), "told.tar")
	d.OK(t, "save", "-o", file, ref)
	if data, err := os.ReadFile(file); err != nil || !bytes.Contains(data, []byte(`"says":"amd64"`)) || !bytes.Contains(data, []byte(`"says":"arm64"`)) {
		t.Errorf("the archive lacks statements: %v", err)
	}
	d.OK(t, "rmi", ref, r.Host+"/told:one", r.Host+"/copy:1")
	d.OK(t, "load", "-i", file)
	told(d, ref, "i+a+i+a+")
	if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, " 0 faults") {
		t.Errorf("verify: %s", got)
	}
}

// TestPullWithoutItsAttestations: an image whose attestation the registry has not is
// pulled all the same.
func TestPullWithoutItsAttestations(t *testing.T) {
	r, other := registry.New(t, registry.Options{}), registry.New(t, registry.Options{})
	m := r.Put("told", "", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 1, 1000)}, Cmd: []string{"/f"}})
	a, _ := attest(t, other, "told", m, "nothing")
	r.PutIndex("told", "1", m, a)
	d := testkit.StartDaemon(t)
	d.OK(t, "pull", "-q", r.Host+"/told:1")
	d.OK(t, "image", "inspect", r.Host+"/told:1")
}

// get asks the API for what must be there.
func get(t *testing.T, d *testkit.Daemon, path string) []byte {
	t.Helper()
	resp, err := d.Client().Get("http://gantry" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %s %v %s", path, resp.Status, err, b.String())
	}
	return b.Bytes()
}
