package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// logOptions are the options of each driver that writes files here.
var logOptions = map[string][]string{
	"json-file": {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"},
	"local":     {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"},
}

// fillLog takes the daemon's log driver and options where the user has none,
// and checks the names. Values are checked at start.
func fillLog(hc *wire.HostConfig, d Defaults) error {
	c := &hc.LogConfig
	if c.Type == "" {
		c.Type = d.LogDriver
	}
	opts := maps.Clone(c.Config)
	if opts == nil {
		opts = map[string]string{}
	}
	if c.Type == d.LogDriver {
		opts = under(opts, d.LogOptions)
	}
	c.Config = opts
	if !slices.Contains(d.LogDrivers, c.Type) {
		return errs.New(errs.Invalid, "error looking up logging plugin %s: plugin %q not found", c.Type, c.Type)
	}
	known, ok := logOptions[c.Type]
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if ok && !slices.Contains(known, k) {
			return errs.New(errs.Invalid, "unknown log opt '%s' for %s log driver", k, c.Type)
		}
	}
	switch m := opts["mode"]; m {
	case "", "blocking", "non-blocking":
	default:
		return errs.New(errs.Invalid, "logger: logging mode not supported: %s", m)
	}
	return nil
}

// LogLimits are the bounds of a container's log files.
type LogLimits struct {
	MaxSize  int64 // bytes at which a file is rotated; -1 for never
	MaxFile  int   // number of files kept, at least 1
	Compress bool  // rotated files
}

// Limits reads the values of the options that bound files. The error is what
// Docker answers at start.
func (l Log) Limits() (LogLimits, error) {
	out := LogLimits{MaxSize: -1, MaxFile: 1}
	if l.Driver == "local" {
		out = LogLimits{MaxSize: 20 << 20, MaxFile: 5, Compress: true}
	}
	fail := func(format string, args ...any) (LogLimits, error) {
		return LogLimits{}, fmt.Errorf("failed to create task for container: failed to initialize logging driver: "+format, args...)
	}
	if v, ok := l.Options["max-size"]; ok && v != "-1" {
		n, err := units.FromHumanSize(v)
		if err != nil {
			return fail("%w", err)
		}
		if n <= 0 {
			return fail("max-size must be a positive number")
		}
		out.MaxSize = n
	}
	if v, ok := l.Options["max-file"]; ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			return fail("%w", err)
		}
		if n < 1 {
			return fail("max-file cannot be less than 1")
		}
		out.MaxFile = n
	}
	if v, ok := l.Options["compress"]; ok {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return fail("%w", err)
		}
		if on && l.Driver == "json-file" && (out.MaxFile < 2 || out.MaxSize < 0) {
			return fail("compress cannot be true when max-file is less than 2 or max-size is not set")
		}
		out.Compress = on
	}
	return out, nil
}

// LogAttrs are the labels and variables that the user wants with each line: the
// names listed in the options "labels" and "env".
func (p *Plan) LogAttrs() map[string]string {
	out := map[string]string{}
	for _, k := range split(p.Log.Options["labels"]) {
		if v, ok := p.Labels[k]; ok {
			out[k] = v
		}
	}
	env := map[string]string{}
	for _, kv := range p.Process.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	for _, k := range split(p.Log.Options["env"]) {
		if v, ok := env[k]; ok {
			out[k] = v
		}
	}
	return out
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}
