package crash

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// TestImageStoreSurvivesCuts kills the daemon at random moments while images are
// loaded, pulled, tagged, committed and removed. After each return
// every image that is listed is right, blob by blob and layer by layer, and
// nothing is left over. GANTRY_CRASH_ROUNDS=200 is the long form.
func TestImageStoreSurvivesCuts(t *testing.T) {
	for _, driver := range []string{"overlayfs", "vfs", "erofs"} {
		t.Run(driver, func(t *testing.T) { cutStore(t, driver) })
	}
}

func cutStore(t *testing.T, driver string) {
	d := testkit.StartBusybox(t, "--storage-driver", driver)
	rounds := 4
	if n, err := strconv.Atoi(os.Getenv("GANTRY_CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	d.OK(t, "run", "--name", "box", "busybox", "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=2; rm /bin/vi")
	archive := twoImage(t)
	r := manyImages(t)
	seen := map[string]int{}
	for round := range rounds {
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for n := rand.IntN(6); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				change(d, n, round, archive, r.Host)
			}
		}()
		time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
		d.Kill()
		close(stop)
		<-done
		d.Start(t)
		if out, err := d.Gantry("image", "verify"); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, out)
		}
		if out, err := d.Gantry("doctor"); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, out)
		}
		for _, name := range strings.Fields(d.OK(t, "images", "--format", "{{.Repository}}:{{.Tag}}")) {
			seen[name[strings.LastIndexByte(name, '/')+1:]]++
		}
	}
	t.Logf("images that were there after a cut: %v", seen)
	d.OK(t, "run", "--rm", "busybox", "true")
}

// twoImage returns the path of an archive of two:1, a busybox with four layers more.
func twoImage(t *testing.T) string {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "two.tar")
	var tar bytes.Buffer
	image, err := testkit.BusyboxImage("two:1")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		image.Layers = append(image.Layers, testkit.Layer(testkit.File{Name: "d/"}, testkit.File{Name: fmt.Sprintf("d/%d", i), Data: bytes.Repeat([]byte{byte(i)}, 1<<20)}))
	}
	if err := image.DockerArchive(&tar); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, tar.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return archive
}

// pulls is how many images manyImages has.
const pulls = 3

// manyImages starts a registry with images that share a layer, in all packings.
func manyImages(t *testing.T) *registry.Server {
	r := registry.New(t, registry.Options{})
	shared := registry.NoiseLayer("shared", 1, 1<<20)
	for n, packing := range []string{"gzip", "zstd", "none"} {
		i := registry.Image{Packing: packing, Cmd: []string{"/f0"}, Layers: [][]byte{shared}}
		for k := range 3 {
			i.Layers = append(i.Layers, registry.NoiseLayer(fmt.Sprintf("f%d", k), uint64(10*n+k+2), 1<<20))
		}
		r.Put("many", fmt.Sprint(n), i)
	}
	return r
}

// change does the next of a series of changes to the images. That the daemon is
// gone meanwhile is the point: errors are nothing.
func change(d *testkit.Daemon, n, round int, archive, registry string) {
	name := fmt.Sprintf("%s/many:%d", registry, (n/6+round)%pulls)
	switch n % 6 {
	case 5:
		post(d, "/images/create?fromImage="+name)
		if n%4 == 1 {
			remove(d, name)
		}
	case 0:
		f, err := os.Open(archive)
		if err != nil {
			return
		}
		defer f.Close()
		if resp, err := d.Client().Post("http://gantry/images/load", "application/x-tar", f); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	case 1:
		post(d, fmt.Sprintf("/commit?container=box&repo=made&tag=%d", round%3))
	case 2:
		post(d, "/images/two:1/tag?repo=other&tag=1")
	case 3:
		remove(d, "two:1")
		if round%4 == 3 {
			post(d, "/images/prune")
		}
	case 4:
		remove(d, "other:1")
		remove(d, fmt.Sprintf("made:%d", (round+1)%3))
	}
}

func post(d *testkit.Daemon, path string) {
	if resp, err := d.Client().Post("http://gantry"+path, "application/json", nil); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

func remove(d *testkit.Daemon, name string) {
	req, err := http.NewRequest(http.MethodDelete, "http://gantry/images/"+name, nil)
	if err != nil {
		return
	}
	if resp, err := d.Client().Do(req); err == nil {
		resp.Body.Close()
	}
}
