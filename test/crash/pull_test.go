package crash

import (
	"fmt"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// A daemon that is killed when 90 % of an image are there fetches less than 15 %
// again, and what it then has is whole.
func TestPullSurvivesTheDaemon(t *testing.T) {
	d, r := testkit.StartDaemon(t, "--bridge", "none"), registry.New(t, registry.Options{})
	i := registry.Image{Packing: "none", Cmd: []string{"/f0"}}
	const layers, size = 6, 4 << 20
	for k := range layers {
		i.Layers = append(i.Layers, registry.NoiseLayer(fmt.Sprintf("f%d", k), uint64(k+1), size))
	}
	want := r.Put("big", "1", i)
	r.Set(registry.Faults{Rate: 20 << 20})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = d.Gantry("pull", "-q", r.Host+"/big:1")
	}()
	for r.Sent() < layers*size*9/10 {
		select {
		case <-ended:
			t.Fatal("the pull ended before it was cut")
		case <-time.After(time.Millisecond):
		}
	}
	d.Kill()
	<-ended
	r.Set(registry.Faults{})
	d.Start(t)
	if out := d.OK(t, "images", "-q"); out != "" {
		t.Errorf("a part of an image is an image: %s", out)
	}
	r.Forget()
	d.OK(t, "pull", "-q", r.Host+"/big:1")
	if again := r.Sent(); again > layers*size*15/100 {
		t.Errorf("%d of %d bytes were fetched again", again, layers*size)
	}
	if id := d.OK(t, "image", "inspect", "-f", "{{.Id}}", r.Host+"/big:1"); id != want.Digest.String() {
		t.Errorf("%s, want %s", id, want.Digest)
	}
}
