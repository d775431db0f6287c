package crash

import (
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/internal/testkit/cutdisk"
)

// TestImagesSurvivePowerCuts takes the power from the disk of the data root at
// random moments while images are loaded, pulled, tagged, committed and removed:
// of what was not flushed, chance keeps some sectors and drops others. After each
// return every image that is listed is right, blob by blob and layer by layer,
// what was acknowledged is there, and nothing is left over.
// GANTRY_CRASH_ROUNDS=200 is the long form.
func TestImagesSurvivePowerCuts(t *testing.T) {
	disk := cutdisk.New(t, 256<<20)
	d := testkit.StartDaemon(t, "--bridge", "none", "--data-root", filepath.Join(disk.At, "lib"))
	d.LoadBusybox(t)
	d.OK(t, "run", "--name", "box", "--network", "none", "busybox", "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=2; rm /bin/vi")
	rounds := 4
	if n, err := strconv.Atoi(os.Getenv("GANTRY_CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	archive, r := twoImage(t), manyImages(t)
	acts := []act{
		{"POST", "/images/load", archive, "two:1", true},
		{"POST", "/commit?container=box&repo=made&tag=1", "", "made:1", true},
		{"POST", "/images/two:1/tag?repo=other&tag=1", "", "other:1", true},
		{"DELETE", "/images/two:1", "", "two:1", false},
		{"DELETE", "/images/other:1", "", "other:1", false},
		{"POST", "/images/prune?filters=" + `{"dangling":["true"]}`, "", "", false},
	}
	for n := range pulls {
		name := fmt.Sprintf("%s/many:%d", r.Host, n)
		acts = append(acts, act{"POST", "/images/create?fromImage=" + name, "", name, true}, act{"DELETE", "/images/" + name, "", name, false})
	}
	known := map[string]bool{"busybox:latest": true} // what was acknowledged: there, or not
	seen := map[string]int{}
	for round := range rounds {
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					acts[rand.IntN(len(acts))].do(d, known)
				}
			}
		}()
		select {
		case <-disk.CutAfter(int(math.Exp(8.3 * rand.Float64()))):
		case <-time.After(5 * time.Second):
			disk.Cut()
		}
		close(stop)
		d.Kill()
		<-done
		if err := disk.Restore(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		d.Start(t)
		if out, err := d.Gantry("image", "verify"); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, out)
		}
		if out, err := d.Gantry("doctor"); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, out)
		}
		have := strings.Fields(d.OK(t, "images", "--format", "{{.Repository}}:{{.Tag}}"))
		for _, name := range have {
			seen[strings.TrimPrefix(name, r.Host)]++
		}
		for name, there := range known {
			if slices.Contains(have, name) != there {
				t.Errorf("round %d: %s was acknowledged (there: %v), and it is not so", round, name, there)
			}
		}
		known = map[string]bool{}
		for _, a := range acts {
			known[a.name] = slices.Contains(have, a.name)
		}
		delete(known, "")
	}
	drops := disk.Drops()
	t.Logf("%d cuts: %d sectors were not flushed, %d of them lost; images that were there after a cut: %v", rounds, drops.Unflushed, drops.Lost, seen)
	if drops.Unflushed == 0 {
		t.Error("no cut has met a write")
	}
	d.OK(t, "run", "--rm", "--network", "none", "busybox", "true")
}

// An act changes an image. there is what it makes of the name.
type act struct {
	method, path, file string
	name               string
	there              bool
}

// do does it, and notes in known what of the name is certain: nothing from the
// beginning of the act on, and what was acknowledged at its end.
func (a act) do(d *testkit.Daemon, known map[string]bool) {
	var body io.ReadCloser
	if a.file != "" {
		f, err := os.Open(a.file)
		if err != nil {
			return
		}
		body = f
	}
	req, err := http.NewRequest(a.method, "http://gantry"+strings.ReplaceAll(a.path, `"`, "%22"), body)
	if err != nil {
		return
	}
	before := maps.Clone(known)
	delete(known, a.name)
	resp, err := d.Client().Do(req)
	if err != nil {
		return
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	switch {
	case err != nil || a.name == "":
	case resp.StatusCode == http.StatusNotFound: // nothing was done
		if there, ok := before[a.name]; ok {
			known[a.name] = there
		}
	case resp.StatusCode < 300 && !strings.Contains(string(text), `"error"`):
		known[a.name] = a.there
	}
}
