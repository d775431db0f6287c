package soak

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// clients work at once.
const clients = 24

// TestSoak lasts ten seconds, or as long as GANTRY_SOAK says ("5m").
func TestSoak(t *testing.T) {
	lasts := 10 * time.Second
	if s := os.Getenv("GANTRY_SOAK"); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	d := testkit.StartBusybox(t)
	before := settled(t, d)
	deadline := time.Now().Add(lasts)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var group sync.WaitGroup
	workers := make([]*worker, clients)
	for i := range workers {
		w := &worker{client: d.Client(), rand: rand.New(rand.NewPCG(seed, uint64(i))), seen: map[string]int{}, failures: map[string]int{}}
		workers[i] = w
		all := operations()
		group.Go(func() {
			for time.Now().Before(deadline) {
				w.step(t.Context(), all)
			}
		})
	}
	group.Wait()
	report(t, workers)
	if t.Failed() {
		out, _ := d.Gantry("ps", "-a", "--no-trunc")
		t.Logf("%s\n%s", out, goroutines(d))
	}
	clear(t, d)
	after := settled(t, d)
	if after.descriptors > before.descriptors+2 {
		t.Errorf("the daemon had %d descriptors open, and has %d\n%s", before.descriptors, after.descriptors, open(d.Pid()))
	}
	if after.goroutines > before.goroutines+4 {
		t.Errorf("the daemon had %d goroutines, and has %d\n%s", before.goroutines, after.goroutines, goroutines(d))
	}
	t.Logf("descriptors %d, then %d; goroutines %d, then %d", before.descriptors, after.descriptors, before.goroutines, after.goroutines)
	// The clean-up of the daemon asks its doctor.
}

// report sums the workers' counts up and fails for what must not happen.
func report(t *testing.T, workers []*worker) {
	t.Helper()
	seen, failures, total := map[string]int{}, map[string]int{}, 0
	for _, w := range workers {
		for k, n := range w.seen {
			seen[k] += n
			total += n
		}
		for k, n := range w.failures {
			failures[k] += n
		}
	}
	for _, k := range slices.Sorted(maps.Keys(failures)) {
		t.Errorf("%d × %s", failures[k], k)
	}
	counts := ""
	for _, k := range slices.Sorted(maps.Keys(seen)) {
		counts += fmt.Sprintf("%s: %d, ", k, seen[k])
	}
	t.Logf("%d operations: %s", total, counts)
}
