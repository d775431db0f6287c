package solve

import (
	"net"
	"sync"
	"time"
)

// gathered is a connection whose small writes, right after each other, become one:
// a context is told to the daemon file by file, each in a message that would be a
// write of its own, and wake the daemon up.
type gathered struct {
	net.Conn

	mu      sync.Mutex
	changed sync.Cond // of all below
	buf     []byte    // to be written
	err     error     // that writing has met
	ending  bool

	done chan struct{} // closed when nothing writes any more
	once sync.Once
}

const (
	gatherTime  = 200 * time.Microsecond // between two writes
	gatherBytes = 1 << 20                // that wait at most
	gatherEnd   = 2 * time.Second        // for what is left when the connection is closed
)

// gather makes small writes to c fewer. What is closed has been written, unless the
// other side does not read.
func gather(c net.Conn) *gathered {
	g := &gathered{Conn: c, done: make(chan struct{})}
	g.changed.L = &g.mu
	go g.run()
	return g
}

// Write takes p to be written soon.
func (g *gathered) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.buf) > gatherBytes && g.err == nil && !g.ending {
		g.changed.Wait()
	}
	switch {
	case g.err != nil:
		return 0, g.err
	case g.ending:
		return 0, net.ErrClosed
	}
	g.buf = append(g.buf, p...)
	g.changed.Broadcast()
	return len(p), nil
}

// run writes: the first bytes at once, those after it together.
func (g *gathered) run() {
	defer close(g.done)
	var spare []byte
	for {
		g.mu.Lock()
		for len(g.buf) == 0 && !g.ending {
			g.changed.Wait()
		}
		out := g.buf
		g.buf = spare[:0]
		g.changed.Broadcast()
		g.mu.Unlock()
		if len(out) == 0 {
			return
		}
		if _, err := g.Conn.Write(out); err != nil {
			g.mu.Lock()
			g.err, g.buf = err, nil
			g.changed.Broadcast()
			g.mu.Unlock()
			return
		}
		spare = out
		time.Sleep(gatherTime)
	}
}

// Close writes what is left and closes the connection.
func (g *gathered) Close() error {
	g.mu.Lock()
	g.ending = true
	g.changed.Broadcast()
	g.mu.Unlock()
	g.once.Do(func() {
		late := time.AfterFunc(gatherEnd, func() { _ = g.Conn.Close() })
		<-g.done
		late.Stop()
	})
	return g.Conn.Close()
}
