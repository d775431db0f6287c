package clients_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// TestImageRepairWithCredentials is of an image that the registry gives only to who
// has logged in, and of a mirror that has it without.
func TestImageRepairWithCredentials(t *testing.T) {
	r := registry.New(t, registry.Options{Auth: registry.Basic, User: "ursel", Password: "secret"})
	m := r.Put("tool", "1", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 1, 10000)}, Cmd: []string{"/f"}})
	ref := r.Host + "/tool:1"
	d := testkit.StartDaemon(t)
	d.OK(t, "login", "-u", "ursel", "-p", "secret", r.Host)
	d.OK(t, "pull", "-q", ref)
	id := d.OK(t, "image", "inspect", "-f", "{{.Id}}", ref)
	d.OK(t, "logout", r.Host)
	blob := manifestOf(t, r, "tool", m.Digest).Layers[0].Digest
	damage(t, blobFile(d, blob))
	out, err := d.Gantry("image", "verify", "--repair", ref)
	if err == nil || !strings.Contains(out, "not repaired") {
		t.Errorf("without credentials: %s %v", out, err)
	}
	d.OK(t, "login", "-u", "ursel", "-p", "secret", r.Host)
	if out, err := d.Gantry("image", "verify", "--repair", id); err != nil || !strings.Contains(out, blob.String()) || !strings.Contains(out, "; repaired") {
		t.Errorf("with credentials: %s %v", out, err)
	}
	d.OK(t, "logout", r.Host)

	mirror := registry.New(t, registry.Options{})
	mirror.Put("tool", "1", registry.Image{Layers: [][]byte{registry.NoiseLayer("f", 1, 10000)}, Cmd: []string{"/f"}})
	rules := filepath.Join(filepath.Dir(d.Socket), "daemon.json")
	if err := os.WriteFile(rules, []byte(`{"registries": {"`+r.Host+`": {"mirrors": ["`+mirror.URL+`"]}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Stop(t)
	d.Reconfigure("--config-file", rules)
	d.Start(t)
	damage(t, blobFile(d, blob))
	if out, err := d.Gantry("image", "verify", "--repair"); err != nil || !strings.Contains(out, "; repaired") || mirror.Sent() == 0 {
		t.Errorf("by the mirror: %s %v", out, err)
	}
}

// TestImageRepairErofs damages layers of the driver erofs: a file in one, and the whole
// of it while no daemon runs.
func TestImageRepairErofs(t *testing.T) {
	r := registry.New(t, registry.Options{})
	busybox, err := testkit.BusyboxImage("")
	if err != nil {
		t.Fatal(err)
	}
	r.Put("tool", "1", registry.Image{Cmd: []string{"sleep", "600"},
		Layers: append(busybox.Layers, testkit.Layer(testkit.File{Name: "data/"}, testkit.File{Name: "data/x", Data: bytes.Repeat([]byte("good"), 3000)}))})
	ref := r.Host + "/tool:1"
	d := testkit.StartDaemon(t, "--storage-driver", "erofs")
	d.OK(t, "pull", "-q", ref)
	d.OK(t, "run", "-d", "--name", "user", ref)
	want := strings.Repeat("good", 3000)
	image := ""
	list, err := filepath.Glob(filepath.Join(d.Root, "drivers", "erofs", "snapshots", "*", "layer.erofs"))
	if err != nil || len(list) != 2 {
		t.Fatalf("%v %v", list, err)
	}
	for _, f := range list {
		if data, err := os.ReadFile(f); err == nil && bytes.Contains(data, []byte("goodgood")) {
			image = f
		}
	}
	spoil := func(change func(data []byte)) {
		t.Helper()
		data, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		change(data)
		f, err := os.OpenFile(image, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
	}
	repaired := func(what string) {
		t.Helper()
		if out, err := d.Gantry("image", "verify", ref); err == nil || !strings.Contains(out, "repair was not asked for") {
			t.Errorf("%s is not found: %s %v", what, out, err)
		}
		if out, err := d.Gantry("image", "verify", "--repair", ref); err != nil || strings.Count(out, "; repaired") != 1 {
			t.Errorf("%s: %s %v", what, out, err)
		}
		if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, " 0 faults") {
			t.Errorf("%s, afterwards: %s", what, got)
		}
		if got := d.OK(t, "run", "--rm", ref, "cat", "/data/x"); got != want {
			t.Errorf("%s: a new container reads %.40q", what, got)
		}
	}
	spoil(func(data []byte) { copy(data[bytes.Index(data, []byte("goodgood")):], "evil") })
	repaired("a changed file")
	d.OK(t, "exec", "user", "true")
	d.OK(t, "rm", "-f", "user")

	d.Stop(t)
	spoil(func(data []byte) { clear(data[:4096]) })
	d.Start(t)
	if out, err := d.Gantry("run", "--rm", ref, "true"); err == nil {
		t.Errorf("a container starts without its files: %s", out)
	}
	repaired("what is no file system any more")
	d.OK(t, "rmi", ref)
}
