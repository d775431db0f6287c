package daemon

import (
	"io"
	"log/slog"
	"strings"
)

// newLog returns the daemon's logger and the level that a reload may change.
func newLog(w io.Writer, format, level string) (*slog.Logger, *slog.LevelVar) {
	v := new(slog.LevelVar)
	v.Set(levelOf(level))
	o := &slog.HandlerOptions{Level: v}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), v
	}
	return slog.New(slog.NewTextHandler(w, o)), v
}

// levelOf turns dockerd's names of levels into slog's.
func levelOf(name string) slog.Level {
	switch strings.ToLower(name) {
	case "debug", "trace":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error", "fatal", "panic":
		return slog.LevelError
	}
	return slog.LevelInfo
}
