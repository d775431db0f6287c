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

// shipping is what a core does about logs that go elsewhere.
type shipping struct{ *core }

// wants reports whether a container's log goes elsewhere.
func (c shipping) wants(rec *Record) bool { return c.o.Logs != nil && rec.Plan.Log.Record().Ship }

func (rec *Record) logInfo() plan.LogInfo {
	info := rec.Plan.LogInfo(rec.ID, rec.Name)
	info.Created, info.ImageDigest = rec.CreatedAt, rec.Image.ID
	return info
}

// check fails a start whose log driver could not be used.
func (c shipping) check(rec *Record) error {
	if !c.wants(rec) {
		return nil
	}
	if err := c.o.Logs.Check(rec.logInfo()); err != nil {
		return plan.LogError(err)
	}
	return nil
}

// begin sends the log of a container that runs.
func (c shipping) begin(rec *Record) {
	if !c.wants(rec) {
		return
	}
	if err := c.o.Logs.Begin(rec.logInfo(), c.logPath(rec)); err != nil {
		c.log.Error("a container's log is not sent", "id", rec.ID, "error", err)
	}
}

// rest sends what is left of the log of a container that is down.
func (c shipping) rest(rec *Record) {
	if !c.wants(rec) {
		return
	}
	if err := c.o.Logs.Resume(rec.logInfo(), c.logPath(rec)); err != nil {
		c.log.Error("the rest of a container's log is not sent", "id", rec.ID, "error", err)
	}
}

// ended says that a container's log is complete for now.
func (c shipping) ended(rec *Record) {
	if c.wants(rec) {
		c.o.Logs.Ended(rec.ID)
	}
}

// forget gives what is left of a log a last chance to be sent.
func (c shipping) forget(ctx context.Context, rec *Record) {
	if c.wants(rec) {
		c.o.Logs.Forget(ctx, rec.ID)
	}
}

// logFact deals with what a shim says of its container's log.
func logFact(a *actor, fact string) {
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
