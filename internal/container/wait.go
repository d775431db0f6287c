package container

import (
	"context"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// Wait registers for a container's end and returns the channel that will give
// one answer: when it does not run ("" or "not-running", at once if so), at its
// next exit ("next-exit"), or when it is removed ("removed").
func (c *Query) Wait(ctx context.Context, ref, condition string) (<-chan wire.WaitResponse, error) {
	switch condition {
	case "", "not-running", "next-exit", "removed":
	default:
		return nil, errs.New(errs.Invalid, "invalid condition: %q", condition)
	}
	a, err := c.table.find(ref)
	if err != nil {
		return nil, err
	}
	if condition == "removed" {
		ch := a.exit.gone()
		if a.view().state.Phase == Removed {
			a.exit.removed(a.view().state.ExitCode)
		}
		return ch, nil
	}
	// Registering before looking leaves no gap in which an exit is missed.
	ch := a.exit.nextExit()
	s := a.view().state
	if condition != "next-exit" && !s.up() {
		a.exit.drop(ch)
		now := make(chan wire.WaitResponse, 1)
		w := wire.WaitResponse{StatusCode: int64(s.ExitCode)}
		if s.Error != "" {
			w.Error = &wire.WaitError{Message: s.Error}
		}
		now <- w
		return now, nil
	}
	context.AfterFunc(ctx, func() { a.exit.drop(ch) })
	return ch, nil
}
