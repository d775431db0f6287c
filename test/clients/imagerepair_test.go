package clients_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// TestImageRepairFromRegistry damages what is kept of an image that a container runs
// from: layer and configuration blobs, a manifest, and the unpacked tree. All of it
// comes back from the registry, under the container, which goes on.
func TestImageRepairFromRegistry(t *testing.T) {
	r := registry.New(t, registry.Options{})
	busybox, err := testkit.BusyboxImage("")
	if err != nil {
		t.Fatal(err)
	}
	m := r.Put("tool", "1", registry.Image{Cmd: []string{"sleep", "600"},
		Layers: append(busybox.Layers, testkit.Layer(testkit.File{Name: "data/"}, testkit.File{Name: "data/x", Data: []byte("good\n")}))})
	ref := r.Host + "/tool:1"
	d := testkit.StartDaemon(t)
	d.OK(t, "pull", "-q", ref)
	d.OK(t, "run", "-d", "--name", "user", ref)
	imageID := d.OK(t, "image", "inspect", "-f", "{{.Id}}", ref)
	good := func(what string) {
		t.Helper()
		if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, " 0 faults") {
			t.Errorf("%s: %s", what, got)
		}
		if got := d.OK(t, "run", "--rm", ref, "cat", "/data/x"); got != "good" {
			t.Errorf("%s, a new container reads %q", what, got)
		}
		if got := d.OK(t, "exec", "user", "cat", "/data/x"); got != "good" {
			t.Errorf("%s, the container that ran reads %q", what, got)
		}
		if got := d.OK(t, "image", "inspect", "-f", "{{.Id}} {{len .RepoTags}} {{len .RepoDigests}}", ref); got != imageID+" 1 1" {
			t.Errorf("%s, the image is %s", what, got)
		}
	}
	body := manifestOf(t, r, "tool", m.Digest)
	for name, blob := range map[string]digest.Digest{"layer": body.Layers[1].Digest, "lowest layer": body.Layers[0].Digest, "configuration": body.Config.Digest, "manifest": m.Digest} {
		damage(t, blobFile(d, blob))
		if out, err := d.Gantry("image", "verify", ref); err == nil || !strings.Contains(out, blob.String()) || !strings.Contains(out, "repair was not asked for") {
			t.Errorf("a damaged %s: %s %v", name, out, err)
		}
		r.Forget()
		if out, err := d.Gantry("image", "verify", "--repair", ref); err != nil || !strings.Contains(out, "blob "+blob.String()) || strings.Count(out, "; repaired") != 1 {
			t.Errorf("repair of a %s: %s %v", name, out, err)
		}
		if n := r.Sent(); n > 2<<20 || n == 0 && name != "manifest" {
			t.Errorf("repair of a %s has fetched %d bytes", name, n)
		}
		good("after the repair of the " + name)
	}
	if err := os.Remove(blobFile(d, body.Layers[0].Digest)); err != nil {
		t.Fatal(err)
	}
	tree := treeFile(t, d, "data/x")
	damage(t, tree)
	if out, err := d.Gantry("image", "verify", "--repair"); err != nil || strings.Count(out, "; repaired") != 2 || !strings.Contains(out, "  /data/x") {
		t.Errorf("repair of a missing blob and a damaged layer: %s %v", out, err)
	}
	if got := d.OK(t, "run", "--rm", ref, "cat", "/data/x"); got != "good" {
		t.Errorf("a new container reads %q", got)
	}
	d.OK(t, "restart", "-t", "0", "user")
	good("after both")
	d.OK(t, "rm", "-f", "user")
	d.OK(t, "rmi", ref)
}

// TestImageRepairWithoutRegistry is of images that nobody has any more: what is wrong
// and why it stays so is said, nothing else is lost, and the registry's return helps.
func TestImageRepairWithoutRegistry(t *testing.T) {
	r := registry.New(t, registry.Options{})
	m := r.Put("tool", "1", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 1, 10000)}, Cmd: []string{"/f"}})
	ref := r.Host + "/tool:1"
	d := testkit.StartDaemon(t)
	d.OK(t, "pull", "-q", ref)
	blob := manifestOf(t, r, "tool", m.Digest).Layers[0].Digest
	damage(t, blobFile(d, blob))
	r.Set(registry.Faults{Before: func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusNotFound)
		return true
	}})
	for range 2 { // the second time it is missing
		out, err := d.Gantry("image", "verify", "--repair", ref)
		if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "images are damaged") {
			t.Errorf("ends with %v", err)
		}
		if !strings.Contains(out, blob.String()) || !strings.Contains(out, "not repaired: it could not be fetched (load or pull the image again): ") {
			t.Errorf("says %s", out)
		}
	}
	d.OK(t, "image", "inspect", ref)
	r.Set(registry.Faults{})
	if out, err := d.Gantry("image", "verify", "--repair", ref); err != nil || !strings.Contains(out, "; repaired") {
		t.Errorf("with the registry: %s %v", out, err)
	}
	if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, " 0 faults") {
		t.Errorf("afterwards: %s", got)
	}
	damage(t, blobFile(d, m.Digest)) // which a pull notices by itself
	d.OK(t, "pull", "-q", ref)
	if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, " 0 faults") {
		t.Errorf("after a pull over a damaged manifest: %s", got)
	}
}

// manifestOf reads a manifest out of a registry.
func manifestOf(t *testing.T, r *registry.Server, name string, d digest.Digest) ocispec.Manifest {
	t.Helper()
	var m ocispec.Manifest
	_, data, ok := r.Manifest(name, d.String())
	if !ok {
		t.Fatalf("the registry has no %s", d)
	}
	fromJSON(t, data, &m)
	return m
}

func blobFile(d *testkit.Daemon, blob digest.Digest) string {
	return filepath.Join(d.Root, "content", "blobs", blob.Algorithm().String(), blob.Encoded())
}

// treeFile finds a file in the unpacked layers of the default driver.
func treeFile(t *testing.T, d *testkit.Daemon, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(d.Root, "snapshots", "snapshots", "*", "fs", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s in the unpacked layers: %v %v", name, found, err)
	}
	return found[0]
}

// damage flips a bit in the middle of a file, and leaves its time.
func damage(t *testing.T, file string) {
	t.Helper()
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, st.Mode().Perm()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func fromJSON(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}
