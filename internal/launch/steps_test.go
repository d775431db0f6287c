package launch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/shim"
)

// recorder makes steps that note what is done to them.
type recorder struct{ log []string }

func (r *recorder) step(name string, err, undoErr error) step {
	return step{
		name: name,
		do:   func(context.Context) error { r.log = append(r.log, name); return err },
		undo: func(ctx context.Context) error {
			if ctx.Err() != nil {
				r.log = append(r.log, "cancelled!")
			}
			r.log = append(r.log, "undo "+name)
			return undoErr
		},
	}
}

func TestFailedStepIsUndoneWithThoseBefore(t *testing.T) {
	var r recorder
	why := errs.New(errs.Invalid, "why")
	steps := []step{r.step("a", nil, nil), r.step("b", nil, errors.New("stuck")), {name: "c", do: func(context.Context) error { return nil }}, r.step("d", why, nil), r.step("e", nil, nil)}
	_, err := run(t.Context(), steps, nil)
	if !errors.Is(err, why) || errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "undo b: stuck") {
		t.Errorf("error %v", err)
	}
	if want := []string{"a", "b", "d", "undo d", "undo b", "undo a"}; !slices.Equal(r.log, want) {
		t.Errorf("did %v, want %v", r.log, want)
	}
}

func TestEndOfContextUndoes(t *testing.T) {
	var r recorder
	ctx, cancel := context.WithCancel(t.Context())
	first := r.step("a", nil, nil)
	do := first.do
	first.do = func(ctx context.Context) error { cancel(); return do(ctx) }
	_, err := run(ctx, []step{first, r.step("b", nil, nil)}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	// b was not begun. The undoing is not interrupted.
	if want := []string{"a", "undo a"}; !slices.Equal(r.log, want) {
		t.Errorf("did %v, want %v", r.log, want)
	}
}

func TestEveryStepIsTimedAndCanFail(t *testing.T) {
	names := []string{"a", "b", "c"}
	for i, at := range names {
		var r recorder
		var steps []step
		for _, n := range names {
			steps = append(steps, r.step(n, nil, nil))
		}
		boom := errors.New("boom")
		timings, err := run(t.Context(), steps, func(p string) error {
			if p == at {
				return boom
			}
			return nil
		})
		if !errors.Is(err, boom) || len(timings) != i+1 || timings[i].Step != at {
			t.Errorf("%s: %v, %v", at, timings, err)
		}
	}
}

func TestStartErrorWords(t *testing.T) {
	err := startError(&shim.StartError{ExitCode: 127, Text: `exec: "x": executable file not found in $PATH`})
	const want = `failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "x": executable file not found in $PATH`
	if err.Error() != want || !errs.Is(err, errs.Invalid) {
		t.Errorf("%v %v", errs.KindOf(err), err)
	}
	if err := startError(context.Canceled); !errors.Is(err, context.Canceled) || err.Error() != context.Canceled.Error() {
		t.Errorf("%v", err)
	}
}

// TestStepsBeside: what follows a step that is beside the others does not wait
// for it, but the end does, and its failure undoes everything.
func TestStepsBeside(t *testing.T) {
	for _, why := range []error{nil, errors.New("boom")} {
		var r recorder
		arrived, ended := make(chan struct{}), false
		steps := []step{
			r.step("a", nil, nil),
			{name: "b", beside: true, do: func(context.Context) error { <-arrived; ended = true; return why }, undo: r.step("b", nil, nil).undo},
			{name: "c", undo: r.step("c", nil, nil).undo, do: func(ctx context.Context) error {
				close(arrived)
				if why == nil {
					return nil
				}
				<-ctx.Done() // b's failure interrupts it
				return ctx.Err()
			}},
		}
		timings, err := run(t.Context(), steps, nil)
		if !errors.Is(err, why) || !ended || len(timings) != 3 {
			t.Errorf("%v: error %v, ended %v, %v", why, err, ended, timings)
		}
		want := []string{"a"}
		if why != nil {
			want = []string{"a", "undo c", "undo b", "undo a"}
		}
		if !slices.Equal(r.log, want) {
			t.Errorf("%v: did %v, want %v", why, r.log, want)
		}
	}
}
