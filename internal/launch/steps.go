package launch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gantry/internal/errs"
)

// A step is one part of a launch, and what undoes it. undo may be called when
// do has failed half-way, and must then undo what there is.
type step struct {
	name string
	do   func(context.Context) error
	undo func(context.Context) error
}

// run does the steps in order. When one fails, or ctx ends, it and those before
// it are undone in reverse order, whatever becomes of ctx.
func run(ctx context.Context, steps []step, fail func(string) error) ([]Timing, error) {
	timings := make([]Timing, 0, len(steps)+1)
	for i, s := range steps {
		began := time.Now()
		err := context.Cause(ctx)
		if err == nil && fail != nil {
			err = fail(s.name)
		}
		if err == nil {
			err = s.do(ctx)
		}
		timings = append(timings, Timing{s.name, time.Since(began)})
		if err != nil {
			return timings, undo(context.WithoutCancel(ctx), steps[:i+1], err, fail)
		}
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
