package content

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// What comes during a transaction is in the next one; a change that fails takes
// nothing else with it.
func TestGroup(t *testing.T) {
	var g group
	rounds := 0
	began, wait := make(chan struct{}), make(chan struct{})
	g.update = func(fn func(*bolt.Tx) error) error {
		if rounds++; rounds == 1 {
			close(began)
			<-wait
		}
		return fn(nil)
	}
	bad := errors.New("bad")
	var mu sync.Mutex
	var made []int
	errs := make([]error, 10)
	var wg sync.WaitGroup
	do := func(i int) {
		wg.Go(func() {
			errs[i] = g.do(t.Context(), func(context.Context) error {
				if i == 5 {
					return bad
				}
				mu.Lock()
				defer mu.Unlock()
				if !slices.Contains(made, i) { // it may be done again
					made = append(made, i)
				}
				return nil
			})
		})
	}
	do(0)
	<-began
	for i := 1; i < len(errs); i++ {
		do(i)
	}
	for n := 0; n < len(errs)-1; {
		g.mu.Lock()
		n = len(g.queue)
		g.mu.Unlock()
	}
	close(wait)
	wg.Wait()
	for i, err := range errs {
		if want := i == 5; errors.Is(err, bad) != want || !want && err != nil {
			t.Errorf("change %d: %v", i, err)
		}
	}
	slices.Sort(made)
	if want := []int{0, 1, 2, 3, 4, 6, 7, 8, 9}; !slices.Equal(made, want) {
		t.Errorf("made %v, want %v", made, want)
	}
	if rounds != 3 { // the first, the others, those without the bad one
		t.Errorf("%d transactions, want 3", rounds)
	}
}

// A transaction that fails fails all that are in it.
func TestGroupFails(t *testing.T) {
	bad := errors.New("bad")
	g := group{update: func(fn func(*bolt.Tx) error) error { return errors.Join(fn(nil), bad) }}
	if err := g.do(t.Context(), func(context.Context) error { return nil }); !errors.Is(err, bad) {
		t.Errorf("error %v, want %v", err, bad)
	}
}
