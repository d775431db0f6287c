package container

import (
	"context"
	"strconv"
	"strings"

	"gantry/internal/plan"
)

// LogShips is what the engine needs of package logs/ship: it sends logs to where
// remote drivers want them. path is the current file of a container's record.
type LogShips interface {
	Check(info plan.LogInfo) error
	Begin(info plan.LogInfo, path string) error
	Resume(info plan.LogInfo, path string) error
	Ended(id string)
	Forget(ctx context.Context, id string)
}

// shipped reports whether a container's log goes elsewhere.
func (c *core) shipped(rec *Record) bool { return c.o.Logs != nil && rec.Plan.Log.Record().Ship }

func (rec *Record) logInfo() plan.LogInfo {
	info := rec.Plan.LogInfo(rec.ID, rec.Name)
	info.Created, info.ImageDigest = rec.CreatedAt, rec.Image.ID
	return info
}

// checkLog fails a start whose log driver could not be used.
func (c *core) checkLog(rec *Record) error {
	if !c.shipped(rec) {
		return nil
	}
	if err := c.o.Logs.Check(rec.logInfo()); err != nil {
		return plan.LogError(err)
	}
	return nil
}

// shipLog sends the log of a container that runs.
func (c *core) shipLog(rec *Record) {
	if !c.shipped(rec) {
		return
	}
	if err := c.o.Logs.Begin(rec.logInfo(), c.logPath(rec)); err != nil {
		c.log.Error("a container's log is not sent", "id", rec.ID, "error", err)
	}
}

// shipRest sends what is left of the log of a container that is down.
func (c *core) shipRest(rec *Record) {
	if !c.shipped(rec) {
		return
	}
	if err := c.o.Logs.Resume(rec.logInfo(), c.logPath(rec)); err != nil {
		c.log.Error("the rest of a container's log is not sent", "id", rec.ID, "error", err)
	}
}

// logEnded says that a container's log is complete for now.
func (c *core) logEnded(rec *Record) {
	if c.shipped(rec) {
		c.o.Logs.Ended(rec.ID)
	}
}

// forgetLog gives what is left of a log a last chance to be sent.
func (c *core) forgetLog(ctx context.Context, rec *Record) {
	if c.shipped(rec) {
		c.o.Logs.Forget(ctx, rec.ID)
	}
}

// logFact deals with what a shim says of its container's log.
func (a *actor) logFact(fact string) {
	text, lost := strings.CutPrefix(fact, "log-lost ")
	n, why, _ := strings.Cut(strings.TrimPrefix(text, "log-back "), ": ")
	if _, err := strconv.Atoi(n); err != nil {
		return
	}
	if !lost {
		a.core.log.Info("a container's log is written again", "id", a.id, "entries_lost", n)
		a.announce("log-back", "entries", n)
		return
	}
	a.core.log.Error("a container's log can't be written; the container goes on", "id", a.id, "entries_lost", n, "error", why)
	a.announce("log-lost", "entries", n, "error", why)
}
