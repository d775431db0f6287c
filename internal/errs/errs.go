// Package errs gives every error of the project one of a few kinds.
//
// It owns the list of kinds and nothing else. A function that knows why it
// failed wraps the reason with a kind; everything in between wraps with %w;
// the edges (HTTP API, command line) translate a kind once, into a status code
// or an exit code. It must not know HTTP.
package errs

import (
	"errors"
	"fmt"
)

// Kind is the class of an error, as the edges need to tell it apart.
type Kind uint8

// The kinds. Unknown is the kind of an error that nobody has classed: a defect
// or a failure of the host.
const (
	Unknown         Kind = iota
	Invalid              // the request is wrong and will stay wrong
	Unauthenticated      // who are you
	Denied               // known, but not allowed
	NotFound             // the named object does not exist
	Conflict             // the object is in a state that forbids it
	NoChange             // nothing to do
	Unsupported          // not built, or not possible on this host
	Unavailable          // try again later
	Corrupt              // what is stored can't be right
)

var names = [...]string{"unknown", "invalid", "unauthenticated", "denied", "not found", "conflict", "no change", "unsupported", "unavailable", "corrupt"}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if int(k) < len(names) {
		return names[k]
	}
	return names[Unknown]
}

type kinded struct {
	kind Kind
	err  error
}

func (e *kinded) Error() string { return e.err.Error() }
func (e *kinded) Unwrap() error { return e.err }

// New returns an error of kind k. The format is that of fmt.Errorf, %w included.
func New(k Kind, format string, args ...any) error {
	return &kinded{kind: k, err: fmt.Errorf(format, args...)}
}

// With returns err with kind k, or nil if err is nil. The text stays.
func With(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kinded{kind: k, err: err}
}

// KindOf returns the outermost kind in err's chain, or Unknown.
func KindOf(err error) Kind {
	var e *kinded
	if errors.As(err, &e) {
		return e.kind
	}
	return Unknown
}

// Is reports whether the outermost kind of err is k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }
