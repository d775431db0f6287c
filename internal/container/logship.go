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
	Begin(info plan.LogInfo, path string, dropped func(entries uint64)) error
	Resume(info plan.LogInfo, path string, dropped func(entries uint64)) error
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
func (c shipping) begin(a *actor) {
	rec := a.now.rec
	if !c.wants(rec) {
		return
	}
	if err := c.o.Logs.Begin(rec.logInfo(), c.logPath(rec), c.dropped(a)); err != nil {
		c.log.Error("a container's log is not sent", "id", rec.ID, "error", err)
	}
}

// rest sends what is left of the log of a container that is down.
func (c shipping) rest(a *actor) {
	rec := a.view().rec
	if !c.wants(rec) {
		return
	}
	if err := c.o.Logs.Resume(rec.logInfo(), c.logPath(rec), c.dropped(a)); err != nil {
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
	entries, err := strconv.ParseUint(n, 10, 64)
	if err != nil {
		return
	}
	lose(a, entries-min(entries, a.now.lost.Unwritten), "unwritten")
	a.now.lost.Unwritten = entries
	a.save()
	if !lost {
		a.core.log.Info("a container's log is written again", "id", a.id, "entries_lost", n)
		a.announce("log-back", "entries", n)
		return
	}
	a.core.log.Error("a container's log can't be written; the container goes on", "id", a.id, "entries_lost", n, "error", why)
	a.announce("log-lost", "entries", n, "error", why)
}

// logLost counts the entries of a container's log that nobody will read.
type logLost struct {
	Entries uint64 // all of them
	// Unwritten is what the present shim has told of those that it could not write.
	Unwritten uint64 `json:",omitempty"`
}

// lose counts entries that are lost, for the reason why: they were unwritten, or
// unsent. It runs in the actor's goroutine.
func lose(a *actor, entries uint64, why string) {
	if entries == 0 {
		return
	}
	a.now.lost.Entries += entries
	a.publish()
	if told := a.core.o.LogLost; told != nil {
		told(entries, why)
	}
}

// dropped returns what is told of entries that were dropped before they could be
// sent.
func (c shipping) dropped(a *actor) func(uint64) {
	return func(entries uint64) {
		a.post(letter{run: func() { lose(a, entries, "unsent"); a.save() }})
	}
}
