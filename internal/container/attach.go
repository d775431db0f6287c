package container

import (
	"context"
	"encoding/binary"
	"io"

	"gantry/internal/errs"
	"gantry/internal/logs"
	"gantry/internal/plan"
	"gantry/internal/shim"
)

// parseDetachKeys reads keys such as "ctrl-p,ctrl-q".
func parseDetachKeys(s string) ([]byte, error) {
	keys, err := plan.ParseDetachKeys(s)
	if err != nil {
		return nil, errs.New(errs.Invalid, "Invalid detach keys (%s) provided", s)
	}
	return keys, nil
}

// Attach opens a stream to a container's process. On a container that is down
// it is live from the moment the next start has prepared the process, so that
// nothing is missed.
func (c *Streams) Attach(ctx context.Context, ref string, o AttachOptions) (*Attached, error) {
	spelt := o.DetachKeys
	if spelt == "" {
		spelt = c.o.DetachKeys
	}
	keys, err := parseDetachKeys(spelt)
	if err != nil {
		return nil, err
	}
	a, err := c.table.find(ref)
	if err != nil {
		return nil, err
	}
	s := a.view()
	switch {
	case s.status() == "paused":
		return nil, errs.New(errs.Conflict, "container %s is paused, unpause the container before attach", s.rec.Name)
	case s.state.Phase == Restarting:
		return nil, errs.New(errs.Conflict, "container %s is restarting, wait until the container is running", s.rec.Name)
	}
	want, tty := o.Streams, s.rec.Plan.Process.TTY
	want.Stdin = want.Stdin && s.rec.Plan.Process.OpenStdin
	var stream shim.Stream = ended{}
	if o.Stream && (o.Stdin || o.Stdout || o.Stderr) {
		if stream, err = a.late.attach(ctx, want); errs.Is(err, errs.Unavailable) {
			stream, err = ended{}, nil // it has just ended
		}
		if err != nil {
			return nil, err
		}
	}
	if o.Logs {
		stream = &replayed{stream, c.replay(ctx, s.rec, o.Streams)}
	}
	if tty && want.Stdin {
		stream = newDetachable(stream, keys, func() { a.tellOf("detach") })
	}
	a.tellOf("attach")
	return &Attached{Stream: stream, TTY: tty}, nil
}

// tellOf publishes an event about something that does not change the container.
func (a *actor) tellOf(action string, extra ...string) {
	a.post(letter{run: func() { a.announce(action, extra...) }})
}

// replay gives what the log holds, in the form of a live stream: frames
// without a terminal, bytes with one. A log that can't be read is empty.
func (c *core) replay(ctx context.Context, rec *Record, want shim.Streams) io.Reader {
	reader := c.logReader(rec)
	if reader == nil {
		return eof{}
	}
	r, w := io.Pipe()
	c.tasks.Go(func() {
		var err error
		for e, failure := range reader.Entries(ctx, logs.ReadOptions{Tail: -1}) {
			if failure != nil {
				break
			}
			if e.Stream == logs.Stdout && !want.Stdout || e.Stream == logs.Stderr && !want.Stderr {
				continue
			}
			if !rec.Plan.Process.TTY {
				_, err = w.Write(frameHead(e.Stream, len(e.Line)))
			}
			if err == nil {
				_, err = w.Write(e.Line)
			}
			if err != nil {
				break
			}
		}
		w.Close()
	})
	context.AfterFunc(ctx, func() { r.Close() })
	return r
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// frameHead is the head of a frame as shim.Stream describes them.
func frameHead(stream string, n int) []byte {
	h := make([]byte, 8)
	h[0] = 1
	if stream == logs.Stderr {
		h[0] = 2
	}
	binary.BigEndian.PutUint32(h[4:], uint32(n))
	return h
}

// Resize sets the size of a container's terminal. Without a terminal it does
// nothing, as in Docker.
func (c *Streams) Resize(ctx context.Context, ref string, height, width uint16) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	client := a.late.process()
	if client == nil {
		return refuse(NotRunning, a.view())
	}
	if !a.view().rec.Plan.Process.TTY {
		return nil
	}
	if err := client.Resize(ctx, height, width); err != nil {
		return err
	}
	a.tellOf("resize", "height", itoa(height), "width", itoa(width))
	return nil
}
