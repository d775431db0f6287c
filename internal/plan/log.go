package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/docker/go-units"

	"gantry/internal/errs"
	"gantry/internal/wire"
)

// The forms in which the shim keeps output.
const (
	LogJSON  = "json-file" // Docker's, for programs that collect log files
	LogLocal = "local"     // compact, and with places
	LogNone  = "none"
)

// fillLog takes the daemon's log driver and options where the user has none,
// and checks them. Values that bound files are checked at start, as Docker does.
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
	return CheckLog(c.Type, opts)
}

// A LogRecord says what the shim keeps of a container's output here. Every
// driver but "none" has one: it is what `docker logs` reads, and what a remote
// driver is sent from.
type LogRecord struct {
	Form string // LogJSON, LogLocal or LogNone
	// Ship says that a driver sends the record elsewhere; Hold that nothing
	// may be dropped before it is sent.
	Ship, Hold bool
	// Unreadable says that the user wants no `docker logs`.
	Unreadable bool
}

// Record returns what is kept of the output.
func (l Log) Record() LogRecord {
	switch l.Driver {
	case LogJSON, LogLocal, LogNone:
		return LogRecord{Form: l.Driver}
	}
	off, _ := strconv.ParseBool(l.Options["cache-disabled"])
	return LogRecord{Form: LogLocal, Ship: true, Hold: l.Options["mode"] != "non-blocking", Unreadable: off}
}

// File returns the name of the record's current file in the container's directory.
func (r LogRecord) File(id string) string {
	if r.Form == LogJSON {
		return id + "-json.log"
	}
	return id + "-local.log"
}

// LogLimits are the bounds of a container's log files.
type LogLimits struct {
	MaxSize  int64 // bytes at which a file is rotated; -1 for never
	MaxFile  int   // number of files kept, at least 1
	Compress bool  // rotated files
}

// logBudget is how many bytes the log of a container may have in all if the
// user says nothing.
const logBudget = 100_000_000

// LogError makes err the one that a start fails with.
func LogError(err error) error {
	return fmt.Errorf("failed to create task for container: failed to initialize logging driver: %w", err)
}

// Limits reads the values of the options that bound files. The error is what
// Docker answers at start. Without any a log has five files of 20 MB; with
// max-size alone one, as in Docker.
func (l Log) Limits() (LogLimits, error) {
	out := LogLimits{MaxSize: logBudget / 5, MaxFile: 5, Compress: true}
	prefix := ""
	switch r := l.Record(); {
	case r.Ship:
		prefix = "cache-"
	case r.Form == LogJSON:
		out.Compress = false
	}
	size, sized := l.Options[prefix+"max-size"]
	switch {
	case sized && size == "-1":
		out.MaxSize = -1
	case sized:
		n, err := units.FromHumanSize(size)
		if err != nil {
			return LogLimits{}, LogError(err)
		}
		if n <= 0 {
			return LogLimits{}, LogError(fmt.Errorf("max-size must be a positive number"))
		}
		out.MaxSize = n
	}
	number, numbered := l.Options[prefix+"max-file"]
	switch {
	case numbered:
		n, err := strconv.Atoi(number)
		if err != nil {
			return LogLimits{}, LogError(err)
		}
		if n < 1 {
			return LogLimits{}, LogError(fmt.Errorf("max-file cannot be less than 1"))
		}
		if out.MaxFile = n; !sized {
			out.MaxSize = logBudget / int64(n)
		}
	case sized && l.Driver == LogJSON, out.MaxSize < 0:
		out.MaxFile = 1
	}
	out.Compress = out.Compress && out.MaxFile > 1
	if v, ok := l.Options[prefix+"compress"]; ok {
		on, err := strconv.ParseBool(v)
		switch {
		case err != nil:
			return LogLimits{}, LogError(err)
		case on && l.Driver == LogJSON && (out.MaxFile < 2 || out.MaxSize < 0):
			return LogLimits{}, LogError(fmt.Errorf("compress cannot be true when max-file is less than 2 or max-size is not set"))
		case on && out.MaxFile < 2:
			return LogLimits{}, LogError(fmt.Errorf("compression cannot be enabled when max file count is 1"))
		}
		out.Compress = on
	}
	return out, nil
}
