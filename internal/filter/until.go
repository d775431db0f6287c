package filter

import (
	"strconv"
	"strings"
	"time"

	"gantry/internal/errs"
)

// untilForms are the times that users write, the most exact first.
var untilForms = [...]string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"}

// Until returns the moment of the key until, before which something must have
// been made: a duration before now, a time, or seconds since 1970 with an
// optional fraction. It is zero if the key was not given, and errs.Invalid if
// there are several values or one that can't be read.
func (a Args) Until(now time.Time) (time.Time, error) {
	values := a.Values("until")
	if len(values) == 0 {
		return time.Time{}, nil
	}
	if len(values) > 1 {
		return time.Time{}, errs.New(errs.Invalid, "more than one until filter specified")
	}
	v := values[0]
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	for _, form := range untilForms {
		if t, err := time.ParseInLocation(form, v, now.Location()); err == nil {
			return t, nil
		}
	}
	const bad = "failed to parse value as time or duration: invalid %s %q: invalid syntax"
	whole, frac, _ := strings.Cut(v, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, errs.New(errs.Invalid, bad, "seconds", whole)
	}
	nano, err := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	if err != nil || nano < 0 {
		return time.Time{}, errs.New(errs.Invalid, bad, "nanoseconds", frac)
	}
	return time.Unix(sec, nano), nil
}
