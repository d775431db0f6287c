package container

import (
	"context"
	"iter"
	"strconv"

	"gantry/internal/errs"
	"gantry/internal/logs"
	"gantry/internal/logs/record"
)

func itoa(n uint16) string { return strconv.Itoa(int(n)) }

// A LogStream is a container's log as a client asked for it.
type LogStream struct {
	// TTY says that the container has a terminal: its log is one stream.
	TTY    bool
	reader logs.Reader
	o      LogOptions
	ended  func(context.Context) <-chan struct{}
}

// logReader returns the reader of a container's log, or nil if its driver keeps
// none that can be read.
func (c *core) logReader(rec *Record) logs.Reader {
	r := rec.Plan.Log.Record()
	if r.Unreadable {
		return nil
	}
	return record.Reader(r.Form, c.logPath(rec))
}

// Logs opens a container's log.
func (c *Streams) Logs(_ context.Context, ref string, o LogOptions) (*LogStream, error) {
	if !o.Stdout && !o.Stderr {
		return nil, errs.New(errs.Invalid, "must specify at least one of 'stdout' or 'stderr'")
	}
	a, err := c.table.find(ref)
	if err != nil {
		return nil, err
	}
	rec := a.view().rec
	reader := c.logReader(rec)
	if reader == nil {
		return nil, errs.New(errs.Unsupported, "configured logging driver does not support reading")
	}
	l := &LogStream{TTY: rec.Plan.Process.TTY, reader: reader, o: o}
	l.ended = func(ctx context.Context) <-chan struct{} { return c.whenDown(ctx, a) }
	return l, nil
}

// whenDown returns a channel that is closed when the container is down, or ctx
// ends.
func (c *core) whenDown(ctx context.Context, a *actor) <-chan struct{} {
	done := make(chan struct{})
	exit := a.exit.nextExit()
	if !a.view().state.up() {
		a.exit.drop(exit)
		close(done)
		return done
	}
	c.tasks.Go(func() {
		defer close(done)
		select {
		case <-exit:
		case <-ctx.Done():
			a.exit.drop(exit)
		case <-c.ctx.Done():
		}
	})
	return done
}

// Entries yields the entries, oldest first, until the log ends, which with
// Follow is when the container is down, or ctx ends.
func (l *LogStream) Entries(ctx context.Context) iter.Seq2[logs.Entry, error] {
	return func(yield func(logs.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		o := logs.ReadOptions{Since: l.o.Since, Until: l.o.Until, Tail: l.o.Tail, Follow: l.o.Follow}
		if l.o.Follow {
			o.Ended = l.ended(ctx)
		}
		for e, err := range l.reader.Entries(ctx, o) {
			if err == nil && !l.wants(e.Stream) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (l *LogStream) wants(stream string) bool {
	if stream == logs.Stderr {
		return l.o.Stderr
	}
	return l.o.Stdout
}
