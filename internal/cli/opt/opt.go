// Package opt holds the value types of the command line's flags: lists, maps,
// sizes, CPUs, ulimits, devices, mounts, networks and filters. Each has Set,
// String and Type as pflag wants them, and the error texts of Docker, which
// scripts match. Packages cli and create use it. It reads the files that a flag
// names (--env-file) and writes nothing; it must not know the daemon.
package opt

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"gantry/internal/errs"
)

// List collects the values of a flag that may be given several times.
type List struct {
	Values []string
	Check  func(string) (string, error) // may rewrite or refuse a value; nil takes all
}

// Set adds v.
func (l *List) Set(v string) error {
	if l.Check != nil {
		var err error
		if v, err = l.Check(v); err != nil {
			return err
		}
	}
	l.Values = append(l.Values, v)
	return nil
}

// String shows the values for a usage text.
func (l *List) String() string {
	if len(l.Values) == 0 {
		return ""
	}
	return fmt.Sprintf("%v", l.Values)
}

// Type is the word in the usage text.
func (l *List) Type() string { return "list" }

// GetSlice returns the values, for shell completion.
func (l *List) GetSlice() []string { return l.Values }

// Append and Replace complete what completion wants of a list flag.
func (l *List) Append(v string) error { return l.Set(v) }

// Replace sets all values at once.
func (l *List) Replace(v []string) error {
	l.Values = nil
	for _, s := range v {
		if err := l.Set(s); err != nil {
			return err
		}
	}
	return nil
}

// Has reports whether v is one of the values.
func (l *List) Has(v string) bool {
	for _, s := range l.Values {
		if s == v {
			return true
		}
	}
	return false
}

// Map collects key=value pairs.
type Map struct {
	Values map[string]string
	Check  func(string) (string, error)
}

// Set adds one pair. A value without = has an empty value.
func (m *Map) Set(v string) error {
	if m.Check != nil {
		var err error
		if v, err = m.Check(v); err != nil {
			return err
		}
	}
	if m.Values == nil {
		m.Values = map[string]string{}
	}
	k, val, _ := strings.Cut(v, "=")
	m.Values[k] = val
	return nil
}

// String shows the pairs for a usage text.
func (m *Map) String() string { return fmt.Sprintf("%v", m.Values) }

// Type is the word in the usage text.
func (m *Map) Type() string { return "map" }

// Bytes is a size: 128m, 2g, 4096 (powers of 1024).
type Bytes int64

// Set parses v.
func (b *Bytes) Set(v string) error {
	n, err := units.RAMInBytes(v)
	*b = Bytes(n)
	return err
}

// String shows the size for a usage text; 0 is the zero value there.
func (b *Bytes) String() string {
	if *b == 0 {
		return "0"
	}
	return units.BytesSize(float64(*b))
}

// Type is the word in the usage text.
func (b *Bytes) Type() string { return "bytes" }

// SwapBytes is Bytes with -1 for unlimited.
type SwapBytes int64

// Set parses v.
func (b *SwapBytes) Set(v string) error {
	if v == "-1" {
		*b = -1
		return nil
	}
	n, err := units.RAMInBytes(v)
	*b = SwapBytes(n)
	return err
}

// String shows the size for a usage text.
func (b *SwapBytes) String() string { n := Bytes(*b); return n.String() }

// Type is the word in the usage text.
func (b *SwapBytes) Type() string { return "bytes" }

// CPUs is a number of CPUs in billionths: 0.5, 1.5, 3/4.
type CPUs int64

// Set parses v.
func (c *CPUs) Set(v string) error {
	r, ok := new(big.Rat).SetString(v)
	if !ok {
		return errs.New(errs.Invalid, "failed to parse %v as a rational number", v)
	}
	nano := r.Mul(r, big.NewRat(1e9, 1))
	if !nano.IsInt() || !nano.Num().IsInt64() {
		return errs.New(errs.Invalid, "value is too precise")
	}
	*c = CPUs(nano.Num().Int64())
	return nil
}

// String shows the number for a usage text.
func (c *CPUs) String() string {
	if *c == 0 {
		return ""
	}
	return big.NewRat(int64(*c), 1e9).FloatString(3)
}

// Type is the word in the usage text.
func (c *CPUs) Type() string { return "decimal" }

// Filter collects --filter name=value, in the form the API wants.
type Filter map[string]map[string]bool

// Set adds one term.
func (f *Filter) Set(v string) error {
	if v == "" {
		return nil
	}
	name, val, ok := strings.Cut(v, "=")
	if !ok {
		return errs.New(errs.Invalid, "bad format of filter (expected name=value)")
	}
	f.Add(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(val))
	return nil
}

// Add adds one term.
func (f *Filter) Add(name, val string) {
	if *f == nil {
		*f = Filter{}
	}
	if (*f)[name] == nil {
		(*f)[name] = map[string]bool{}
	}
	(*f)[name][val] = true
}

// String shows nothing: filters have no default.
func (f *Filter) String() string { return "" }

// Type is the word in the usage text.
func (f *Filter) Type() string { return "filter" }

// Platform splits os/arch[/variant].
func Platform(s string) (os, arch, variant string, err error) {
	parts := strings.Split(s, "/")
	switch len(parts) {
	case 1:
		switch parts[0] {
		case "linux", "windows", "freebsd", "darwin":
			return parts[0], "", "", nil
		}
		return "linux", parts[0], "", nil
	case 2, 3:
		for _, p := range parts {
			if p == "" || strings.ContainsAny(p, " \t:,") {
				return "", "", "", errs.New(errs.Invalid, "%q: invalid platform", s)
			}
		}
		parts = append(parts, "")
		return parts[0], parts[1], parts[2], nil
	}
	return "", "", "", errs.New(errs.Invalid, "%q: cannot parse platform specifier: invalid argument", s)
}

// parseBool reads the value of a boolean option; a bare key means true.
func parseBool(key, val string, has bool) (bool, error) {
	if !has {
		return true, nil
	}
	b, err := strconv.ParseBool(val)
	if err != nil {
		return false, errs.New(errs.Invalid, "invalid value for '%s': invalid boolean value (%q): must be one of \"true\", \"1\", \"false\", or \"0\" (default \"true\")", key, val)
	}
	return b, nil
}
