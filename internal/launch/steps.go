package launch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gantry/internal/errs"
)

// A step is one part of a launch, and what undoes it. undo may be called when
// do has failed half-way, and must then undo what there is.
type step struct {
	name string
	do   func(context.Context) error
	undo func(context.Context) error
	// beside: the steps after it need not wait for it.
	beside bool
}

// run does the steps in order, those that are beside the others at the same time
// as what follows them. When one fails, or ctx ends, it and those before it are
// undone in reverse order, whatever becomes of ctx. A failure beside ends the
// context of the others.
func run(ctx context.Context, steps []step, fail func(string) error) ([]Timing, error) {
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timings := make([]Timing, len(steps))
	var beside sync.WaitGroup
	begun := 0
	for i, s := range steps {
		begun++
		timings[i].Step = s.name
		began := time.Now()
		do := func() {
			if err := s.do(ctx); err != nil {
				cancel(err)
			}
			timings[i].Took = time.Since(began)
		}
		err := context.Cause(ctx)
		if err == nil && fail != nil {
			err = fail(s.name)
		}
		switch {
		case err != nil:
			cancel(err)
		case s.beside:
			beside.Go(do)
		default:
			do()
		}
		if ctx.Err() != nil {
			break
		}
	}
	beside.Wait()
	if err := context.Cause(ctx); err != nil {
		return timings[:begun], undo(context.WithoutCancel(outer), steps[:begun], err, fail)
	}
	return timings, nil
}

// undo undoes steps in reverse order and returns err with what could not be
// undone. The kind stays err's.
func undo(ctx context.Context, steps []step, err error, fail func(string) error) error {
	all := []error{err}
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i].undo == nil {
			continue
		}
		name := "undo " + steps[i].name
		if fail != nil {
			if e := fail(name); e != nil {
				all = append(all, e)
				continue
			}
		}
		if e := steps[i].undo(ctx); e != nil {
			all = append(all, fmt.Errorf("%s: %w", name, e))
		}
	}
	if len(all) == 1 {
		return err
	}
	return errs.With(errs.KindOf(err), errors.Join(all...))
}
