package clients_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/lazy"
	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// TestConvertPlatforms converts an image for two platforms, that share a layer, and
// pushes what comes of it.
func TestConvertPlatforms(t *testing.T) {
	r := registry.New(t, registry.Options{})
	shared := registry.NoiseLayer("shared", 1, 300000)
	var list []ocispec.Descriptor
	for n, arch := range []string{"amd64", "arm64", "s390x"} {
		p := &ocispec.Platform{OS: "linux", Architecture: arch}
		d := r.Put("many", "", registry.Image{Platform: p, Layers: [][]byte{shared, registry.NoiseLayer("own", uint64(n+2), 200000)}, Cmd: []string{"/own"}})
		d.Platform = p
		list = append(list, d)
	}
	r.PutIndex("many", "1", list...)
	d := testkit.StartDaemon(t, "--bridge", "none")
	many, to := r.Host+"/many:1", r.Host+"/lazy:1"
	d.OK(t, "pull", "-q", "--platform", "linux/amd64", many)
	d.OK(t, "pull", "-q", "--platform", "linux/arm64", many)

	for platforms, want := range map[string]string{"all": "amd64 arm64", "linux/arm64,linux/amd64": "arm64 amd64", "linux/arm64": "arm64"} {
		out := d.OK(t, "image", "convert", "--estargz", "--platform", platforms, many, to)
		layers := "3 of 3"
		if platforms == "linux/arm64" {
			layers = "2 of 2"
		}
		if !strings.Contains(out, layers+" layers converted") || !strings.Contains(out, ": Converted\n") || strings.Contains(out, "\x1b") || strings.Contains(out, "Converting") {
			t.Errorf("%s: %s", platforms, out)
		}
		d.OK(t, "push", "-q", to)
		_, data, ok := r.Manifest("lazy", "1")
		if !ok {
			t.Fatal("it was not pushed")
		}
		var index ocispec.Index
		var m ocispec.Manifest
		fromJSON(t, data, &index)
		fromJSON(t, data, &m)
		var got []string
		for _, i := range index.Manifests {
			got = append(got, i.Platform.Architecture)
			fromJSON(t, manifest(t, r, "lazy", i.Digest.String()), &m)
			for _, l := range m.Layers {
				if !lazy.Packed(l) {
					t.Errorf("%s: layer %+v", platforms, l)
				}
			}
		}
		if index.Manifests == nil {
			got = append(got, "arm64")
			if len(m.Layers) != 2 || !lazy.Packed(m.Layers[1]) {
				t.Errorf("of one platform: %s", data)
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s", platforms, s)
		}
		d.OK(t, "rmi", to)
	}
	if _, err := d.Gantry("image", "convert", "--estargz", "--platform", "linux/amd64", "--platform", "linux/s390x", many, to); err == nil || !strings.Contains(err.Error(), "does not provide the specified platform (linux/s390x)") {
		t.Errorf("of what is not here: %v", err)
	}
	d.OK(t, "rmi", many)
	if left := blobs(t, d); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func manifest(t *testing.T, r *registry.Server, name, ref string) json.RawMessage {
	t.Helper()
	_, data, ok := r.Manifest(name, ref)
	if !ok {
		t.Fatalf("the registry has no %s", ref)
	}
	return data
}

// blobs are the files of the store's blobs and of those that are being written.
func blobs(t *testing.T, d *testkit.Daemon) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"content/blobs/sha256/*", "content/ingest/*"} {
		list, err := filepath.Glob(filepath.Join(d.Root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

// TestConvertInterrupted ends a conversion as ctrl-c does.
func TestConvertInterrupted(t *testing.T) {
	r := registry.New(t, registry.Options{})
	r.Put("big", "1", registry.Image{Packing: "zstd", Layers: [][]byte{registry.NoiseLayer("f", 1, 100<<20)}, Cmd: []string{"/f"}})
	d := testkit.StartDaemon(t, "--bridge", "none")
	d.OK(t, "pull", "-q", r.Host+"/big:1")
	before := blobs(t, d)
	cmd := exec.Command(d.Program("gantry"), "image", "convert", "--estargz", r.Host+"/big:1", "made:1")
	cmd.Env = append(os.Environ(), "GANTRY_HOST=unix://"+d.Socket, "DOCKER_HOST=", "DOCKER_CONTEXT=", "DOCKER_CONFIG="+filepath.Dir(d.Socket))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the conversion begins", func() bool { return len(blobs(t, d)) > len(before) })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ends well")
	}
	testkit.Eventually(t, "nothing is left", func() bool { return len(blobs(t, d)) == len(before) })
	if got := d.OK(t, "images", "-q"); strings.Count(got, "\n") != 0 {
		t.Errorf("images: %s", got)
	}
}
