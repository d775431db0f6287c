package ocicli

import (
	"strings"

	"gantry/internal/errs"
)

// flags says which flags a command takes: flagOnly, flagValue, or the name that
// this one stands for.
type flags map[string]string

const (
	flagOnly  = "-"
	flagValue = "="
)

// options are the flags that were given, in their order.
type options map[string][]string

func (o options) has(name string) bool {
	v, ok := o[name]
	return ok && v[len(v)-1] != "false"
}

// get returns the last value of a flag, or "".
func (o options) get(name string) string {
	if v := o[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// parse takes flags off the front of args, up to the first that is none, or to
// "--".
func (f flags) parse(args []string) (options, []string, error) {
	o := options{}
	for len(args) > 0 {
		a := args[0]
		if a == "--" {
			return o, args[1:], nil
		}
		if len(a) < 2 || a[0] != '-' {
			break
		}
		args = args[1:]
		name, value, given := strings.Cut(strings.TrimPrefix(a[1:], "-"), "=")
		kind, ok := f[name]
		if ok && kind != flagOnly && kind != flagValue {
			name, kind = kind, f[kind]
		}
		switch {
		case !ok:
			return nil, nil, errs.New(errs.Invalid, "unknown flag: %s", a)
		case kind == flagOnly && !given:
			value = "true"
		case kind == flagValue && !given:
			if len(args) == 0 {
				return nil, nil, errs.New(errs.Invalid, "flag needs a value: %s", a)
			}
			value, args = args[0], args[1:]
		}
		o[name] = append(o[name], value)
	}
	return o, args, nil
}
