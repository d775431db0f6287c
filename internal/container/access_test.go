package container

import (
	"context"
	"errors"
	"testing"
	"time"

	"gantry/internal/errs"
)

// TestAccess: one writer has the layers, a start waits for him, and those who
// write into a container that ends are told.
func TestAccess(t *testing.T) {
	var x access
	unlock, err := x.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := x.claim(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a start did not wait: %v", err)
	}
	unlock()
	unlock()
	again, err := x.claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again()

	ctx, stop := context.WithCancelCause(t.Context())
	gone := x.write(stop)
	x.ended(errs.New(errs.Conflict, "it ended"))
	if got := context.Cause(ctx); got == nil || got.Error() != "it ended" {
		t.Errorf("the writer was told %v", got)
	}
	began := time.Now()
	time.AfterFunc(50*time.Millisecond, gone)
	last, err := x.claim(t.Context())
	if err != nil || time.Since(began) < 40*time.Millisecond || time.Since(began) > writerWait {
		t.Errorf("a start came after %v: %v", time.Since(began), err)
	}
	last()
}

// TestAsideLeavesWhatHangs: a copy that hangs holds up nobody, and there can't be
// any number of such.
func TestAsideLeavesWhatHangs(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	defer end()
	c := &core{ctx: ctx}
	a := &actor{core: c}
	hang := make(chan struct{})
	for range maxCopies {
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		err := c.aside(short, a, func(context.Context) error { <-hang; return nil })
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if err := c.aside(t.Context(), a, func(context.Context) error { return nil }); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("one more: %v", err)
	}
	close(hang)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if err := c.aside(t.Context(), a, func(context.Context) error { return nil }); err == nil {
			return
		}
	}
	t.Error("what hung counts for ever")
}
