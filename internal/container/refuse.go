package container

import (
	"context"

	"gantry/internal/errs"
	"gantry/internal/id"
)

// refuse gives a refusal its text and kind, in Docker's words where clients
// match them.
func refuse(r Refusal, s *snapshot) error {
	rec := s.rec
	switch r {
	case IsRunning:
		return errs.New(errs.NoChange, "container %s is already running", rec.ID)
	case IsPaused:
		return errs.New(errs.Conflict, "cannot start a paused container, try unpause instead")
	case AlreadyPaused:
		return errs.New(errs.Conflict, "container %s is already paused", rec.ID)
	case NotRunning:
		return errs.New(errs.Conflict, "container %s is not running", rec.ID)
	case NotPaused:
		return errs.New(errs.Unknown, "Container %s is not paused", rec.ID)
	case NotStopped:
		return errs.New(errs.Conflict, "%s", notStopped(s.state))
	case IsRemoving:
		return errs.New(errs.Conflict, "removal of container %s is already in progress", rec.ID)
	case MarkedRemoval:
		return errs.New(errs.Conflict, "container is marked for removal and cannot be started")
	case GoneAlready:
		return errs.New(errs.NotFound, "No such container: %s", id.Short(rec.ID))
	case Interrupted:
		return errs.With(errs.Conflict, &interrupted{rec.ID})
	}
	return nil
}

// interrupted is why a start did not happen: stop, kill or remove came first.
type interrupted struct{ id string }

func (e *interrupted) Error() string {
	return "the start of container " + e.id + " was interrupted"
}

func (e *interrupted) Unwrap() error { return context.Canceled }

// notStopped says why a container can't be removed without force.
func notStopped(s State) string {
	switch {
	case s.Phase == Paused, s.Frozen:
		return "container is paused and must be unpaused first"
	case s.Phase == Restarting:
		return "container is restarting: stop the container before removing or force remove"
	}
	return "container is running: stop the container before removing or force remove"
}
