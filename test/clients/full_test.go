package clients_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/testkit"
	"gantry/internal/testkit/cutdisk"
	"gantry/internal/testkit/registry"
)

// TestImagesOnAFullDisk: a pull and a load that do not fit say so and leave nothing; with
// a budget, what was not used for longest makes room for them.
func TestImagesOnAFullDisk(t *testing.T) {
	const mb = 1 << 20
	disk := cutdisk.New(t, 96*mb)
	d := testkit.StartDaemon(t, "--bridge", "none", "--data-root", filepath.Join(disk.At, "lib"))
	r := registry.New(t, registry.Options{})
	put := func(name string, layers ...int) string {
		i := registry.Image{Packing: "none", Cmd: []string{"/f"}}
		for n, size := range layers {
			i.Layers = append(i.Layers, registry.NoiseLayer("f", uint64(len(name)*10+n), size))
		}
		r.Put(name, "1", i)
		return r.Host + "/" + name + ":1"
	}
	large, old, fresh := put("large", 30*mb, 30*mb), put("older", 25*mb), put("fresh1", 10*mb, 12*mb)
	archive := filepath.Join(t.TempDir(), "large.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	i := testkit.Image{Ref: "packed:1", Layers: [][]byte{registry.NoiseLayer("f", 99, 60*mb)}}
	if err := i.DockerArchive(f); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	free := func() int64 {
		var fs unix.Statfs_t
		if err := unix.Statfs(disk.At, &fs); err != nil {
			t.Fatal(err)
		}
		return int64(fs.Bfree) * fs.Bsize
	}
	before := free()
	rootfs := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := os.WriteFile(rootfs, registry.NoiseLayer("f", 98, 60*mb), 0o600); err != nil {
		t.Fatal(err)
	}
	files := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(rootfs))))
	t.Cleanup(files.Close)
	huge := filepath.Join(t.TempDir(), "huge.tar") // not even its blob has room
	if err := os.WriteFile(huge, registry.NoiseLayer("f", 97, 110*mb), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"pull", large}, {"load", "-i", archive}, {"import", rootfs, "rootfs:1"}, {"import", files.URL + "/rootfs.tar"}, {"import", huge}} {
		out, err := d.Gantry(args...)
		if err == nil || !strings.Contains(err.Error(), "the disk of the images is full") || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
		if out := d.OK(t, "images", "-aq"); out != "" {
			t.Errorf("after the %s there is %s", args[0], out)
		}
		end := time.Now().Add(20 * time.Second)
		for free() < before-2*mb && time.Now().Before(end) {
			time.Sleep(20 * time.Millisecond)
		}
		if now := free(); now < before-2*mb {
			t.Errorf("the %s has left %d bytes", args[0], before-now)
		}
	}
	if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, "0 faults") {
		t.Errorf("afterwards: %s", got)
	}

	d.Stop(t)
	d.Reconfigure("--disk-budget", "100%")
	d.Start(t)
	d.OK(t, "pull", "-q", old)
	d.OK(t, "tag", old, "kept")
	d.OK(t, "pull", "-q", put("small", mb))
	d.OK(t, "pull", "-q", fresh)
	if got := d.OK(t, "images", "--format", "{{.Repository}}"); strings.Contains(got, "older") || strings.Contains(got, "kept") || !strings.Contains(got, "fresh1") || !strings.Contains(got, "small") {
		t.Errorf("of the budget's images there are %q", got)
	}
	if got := d.OK(t, "image", "verify"); !strings.HasSuffix(got, "0 faults") {
		t.Errorf("with a budget: %s", got)
	}
}
