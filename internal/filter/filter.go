// Package filter reads the `filters` query parameter of the Docker Engine API
// and holds its matching rules, for every list, prune and event endpoint.
//
// The API server parses and checks; the engine, the images, the networks and
// the volumes ask whether an object matches. The package is pure: it knows
// strings, not what they name.
//
// Rules, as recorded against Docker Engine 29: keys are joined by AND, the
// values of one key by OR, except that the values of `label` and `label!` are
// joined by AND. A key without values matches nothing.
package filter

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/errs"
)

// Args is a parsed filter: key → set of values. Whether a value is mapped to
// true or false means nothing; it is there.
type Args map[string]map[string]bool

// Parse reads the parameter in either of its two encodings,
// {"key":{"value":true}} and the older {"key":["value"]}. Empty text and null
// are an empty filter. What can't be read is errs.Invalid.
func Parse(text string) (Args, error) {
	if text == "" {
		return nil, nil
	}
	var a Args
	if json.Unmarshal([]byte(text), &a) == nil {
		return a, nil
	}
	var old map[string][]string
	if json.Unmarshal([]byte(text), &old) != nil {
		return nil, errs.New(errs.Invalid, "invalid filter")
	}
	a = make(Args, len(old))
	for key, values := range old {
		set := make(map[string]bool, len(values))
		for _, v := range values {
			set[v] = true
		}
		a[key] = set
	}
	return a, nil
}

// Check returns errs.Invalid if a has a key that is not allowed.
func (a Args) Check(allowed Keys) error {
	for _, key := range slices.Sorted(maps.Keys(a)) {
		if !slices.Contains(allowed, key) {
			return errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
	}
	return nil
}

// Has reports whether key was given, with or without values.
func (a Args) Has(key string) bool { _, ok := a[key]; return ok }

// With returns a copy of a in which key has just the values given.
func (a Args) With(key string, values ...string) Args {
	b := maps.Clone(a)
	if b == nil {
		b = Args{}
	}
	b[key] = map[string]bool{}
	for _, v := range values {
		b[key][v] = true
	}
	return b
}

// Values returns the values of key in order, nil if it was not given.
func (a Args) Values(key string) []string {
	if !a.Has(key) {
		return nil
	}
	return slices.Sorted(maps.Keys(a[key]))
}

// Exact reports whether key was not given or has value v.
func (a Args) Exact(key, v string) bool {
	if !a.Has(key) {
		return true
	}
	_, ok := a[key][v]
	return ok
}

// Prefix reports whether key was not given or one of its values, not an empty
// one, begins v. Identifiers are matched so.
func (a Args) Prefix(key, v string) bool {
	return a.any(key, func(want string) bool { return want != "" && strings.HasPrefix(v, want) })
}

// Contains reports whether key was not given or one of its values is part of v.
func (a Args) Contains(key, v string) bool {
	return a.any(key, func(want string) bool { return strings.Contains(v, want) })
}

// Pattern reports whether key was not given or one of its values, read as a
// regular expression, is found in v. An expression that can't be read finds
// only itself. Names are matched so.
func (a Args) Pattern(key, v string) bool {
	return a.any(key, func(want string) bool {
		if want == v {
			return true
		}
		re, err := regexp.Compile(want)
		return err == nil && re.MatchString(v)
	})
}

func (a Args) any(key string, match func(want string) bool) bool {
	if !a.Has(key) {
		return true
	}
	for want := range a[key] {
		if match(want) {
			return true
		}
	}
	return false
}

// Labels reports whether labels satisfies every value of `label` (a key, or
// key=value) and of `label!` (none of which may hold).
func (a Args) Labels(labels map[string]string) bool {
	if a.Has("label") {
		if len(a["label"]) == 0 {
			return false
		}
		for want := range a["label"] {
			if !hasLabel(labels, want) {
				return false
			}
		}
	}
	for not := range a["label!"] {
		if hasLabel(labels, not) {
			return false
		}
	}
	return true
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, whole := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!whole || got == value)
}

// Bool returns the one truth value of key, or otherwise if key was not given.
// 1 and true are true, 0 and false are false; anything else, and both at once,
// is errs.Invalid.
func (a Args) Bool(key string, otherwise Otherwise) (bool, error) {
	if !a.Has(key) {
		return otherwise == OtherwiseTrue, nil
	}
	yes := a.has(key, "1") || a.has(key, "true")
	no := a.has(key, "0") || a.has(key, "false")
	if yes == no {
		return false, errs.New(errs.Invalid, "invalid filter '%s=%v'", key, a.Values(key))
	}
	return yes, nil
}

func (a Args) has(key, v string) bool { _, ok := a[key][v]; return ok }

// Otherwise is what Bool returns for a key that was not given.
type Otherwise uint8

// The two values of Otherwise.
const (
	OtherwiseFalse Otherwise = iota
	OtherwiseTrue
)

// All returns the truth value of the `all` key of a volume prune, which is read
// by strconv.ParseBool and false if it was not given.
func (a Args) All() (bool, error) {
	for v := range a["all"] {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return false, errs.New(errs.Invalid, "invalid filter 'all': %w", err)
		}
		if b {
			return true, nil
		}
	}
	return false, nil
}
