package errs_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"gantry/internal/errs"
)

func TestKindSurvivesWrapping(t *testing.T) {
	err := fmt.Errorf("start c1: %w", errs.New(errs.NotFound, "No such image: %s: %w", "x", io.EOF))
	if got := errs.KindOf(err); got != errs.NotFound {
		t.Errorf("KindOf = %v, want not found", got)
	}
	if !errors.Is(err, io.EOF) {
		t.Error("the wrapped cause is lost")
	}
	if got, want := err.Error(), "start c1: No such image: x: EOF"; got != want {
		t.Errorf("text = %q, want %q", got, want)
	}
}

func TestOutermostKindWins(t *testing.T) {
	err := errs.With(errs.Conflict, errs.New(errs.NotFound, "x"))
	if got := errs.KindOf(err); got != errs.Conflict {
		t.Errorf("KindOf = %v, want conflict", got)
	}
}

func TestNil(t *testing.T) {
	if errs.With(errs.Invalid, nil) != nil {
		t.Error("With(nil) is not nil")
	}
	if errs.Is(nil, errs.Unknown) {
		t.Error("nil has a kind")
	}
}

func TestUnclassed(t *testing.T) {
	if got := errs.KindOf(io.EOF); got != errs.Unknown {
		t.Errorf("KindOf(EOF) = %v, want unknown", got)
	}
}
