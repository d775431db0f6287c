package server

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"gantry/internal/shim/protocol"
)

// The stream numbers of the Docker API's framing.
const (
	streamOut = 1
	streamErr = 2
)

// maxTail bounds what is kept for one slow client after the process has ended:
// more than what pipes hold at most by default (64 KiB each, pipe(7)) and a chunk of each.
const maxTail = 2 << 20

// A fanout gives a process's output to every attached client.
//
// While the process lives a client that does not read blocks the pump, and so
// the process. When it has ended there is nobody to slow down any more: hurry
// makes all further writes go to memory, so that the log is complete and the
// exit known at once, and finish lets every client fetch the rest at its own
// pace.
type fanout struct {
	tty bool

	mu      sync.Mutex
	clients []*client // never changed, only replaced
	hurried bool
	ended   bool
}

// A client is one attached stream connection.
type client struct {
	c    *conn
	want protocol.Streams

	mu   sync.Mutex // one frame at a time
	late bool       // what comes goes to tail
	tail []byte
	gone bool
}

// add begins to give output to c. It reports false if there will be none.
func (f *fanout) add(c *client) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	if f.hurried {
		c.hurry()
	}
	f.clients = append(slices.Clip(f.clients), c)
	return true
}

// remove forgets c and closes its connection.
func (f *fanout) remove(c *client) {
	f.mu.Lock()
	if i := slices.Index(f.clients, c); i >= 0 {
		f.clients = slices.Delete(slices.Clone(f.clients), i, i+1)
	}
	f.mu.Unlock()
	c.c.close()
}

// write gives the n bytes of a chunk, which has room for a header in front, to
// every client that wants the stream.
func (f *fanout) write(stream byte, buf []byte, n int) {
	f.mu.Lock()
	clients := f.clients
	f.mu.Unlock()
	if len(clients) == 0 {
		return
	}
	frame := buf[frameHeader : frameHeader+n]
	if !f.tty {
		frame = buf[:frameHeader+n]
		clear(frame[:frameHeader])
		frame[0] = stream
		binary.BigEndian.PutUint32(frame[4:], uint32(n))
	}
	for _, c := range clients {
		if (stream == streamOut && c.want.Stdout || stream == streamErr && c.want.Stderr) && !c.write(frame) {
			f.remove(c)
		}
	}
}

// write reports whether the client is still there.
func (c *client) write(frame []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	if !c.late {
		n, err := c.c.f.Write(frame)
		if err == nil {
			return true
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			c.gone = true
			return false
		}
		c.late = true
		frame = frame[n:]
	}
	if len(c.tail)+len(frame) > maxTail {
		c.gone, c.tail = true, nil
		return false
	}
	c.tail = append(c.tail, frame...)
	return true
}

// hurry makes a write that is blocked, and all to come, give up.
func (c *client) hurry() { c.c.f.SetWriteDeadline(time.Unix(1, 0)) }

// hurry ends the back-pressure.
func (f *fanout) hurry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hurried = true
	for _, c := range f.clients {
		c.hurry()
	}
}

// finish ends the output for all clients. Those that still have something to
// read get it in goroutines that are added to late.
func (f *fanout) finish(late *sync.WaitGroup) {
	f.mu.Lock()
	clients := f.clients
	f.clients, f.ended = nil, true
	f.mu.Unlock()
	for _, c := range clients {
		c.mu.Lock()
		tail := c.tail
		c.tail, c.gone = nil, true
		c.mu.Unlock()
		if len(tail) == 0 {
			c.c.close()
			continue
		}
		late.Go(func() {
			c.c.f.SetWriteDeadline(time.Time{})
			c.c.f.Write(tail) // a client that has gone does not matter
			c.c.close()
		})
	}
}
