package keyed_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gantry/internal/keyed"
)

func TestMutexExcludesPerKey(t *testing.T) {
	var m keyed.Mutex[string]
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			unlock, err := m.Lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			if n := inside.Add(1); n > most.Load() {
				most.Store(n)
			}
			inside.Add(-1)
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d holders at once", most.Load())
	}
}

func TestMutexOtherKeyIsFree(t *testing.T) {
	var m keyed.Mutex[int]
	unlock, _ := m.Lock(t.Context(), 1)
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	other, err := m.Lock(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	other()
}

func TestMutexGivesUpWithContext(t *testing.T) {
	var m keyed.Mutex[int]
	unlock, _ := m.Lock(t.Context(), 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Lock(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want canceled", err)
	}
	unlock()
	unlock() // a second call is harmless
	again, err := m.Lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestFlightRunsOnce(t *testing.T) {
	var f keyed.Flight[string, int]
	var runs atomic.Int32
	gate := make(chan struct{})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			v, err := f.Do(t.Context(), "k", func(context.Context) (int, error) {
				runs.Add(1)
				<-gate
				return 7, nil
			})
			if v != 7 || err != nil {
				t.Errorf("Do = %d, %v", v, err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	close(gate)
	wg.Wait()
	if runs.Load() != 1 {
		t.Errorf("ran %d times", runs.Load())
	}
}

func TestFlightIsCancelledByTheLastWaiter(t *testing.T) {
	var f keyed.Flight[string, int]
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := f.Do(ctx, "k", func(run context.Context) (int, error) {
			<-run.Done()
			ended <- run.Err()
			return 0, run.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v", err)
		}
	}()
	cancel()
	<-done
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("flight ended with %v", err)
	}
}
