package container

import (
	"context"
	"io"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/shim"
)

// A gate connects clients that attach to the container's process: at once if it
// exists, or else, before its first instruction, when it does. So a client that
// attached to a created container loses nothing of what it prints.
type gate struct {
	mu      sync.Mutex
	client  shim.Client // while there is a process
	waiting map[*lateStream]shim.Streams
}

// attach returns a stream to the process that runs or will run.
func (g *gate) attach(ctx context.Context, want shim.Streams) (shim.Stream, error) {
	g.mu.Lock()
	c := g.client
	if c == nil {
		if g.waiting == nil {
			g.waiting = map[*lateStream]shim.Streams{}
		}
		s := &lateStream{gate: g, bound: make(chan struct{})}
		g.waiting[s] = want
		g.mu.Unlock()
		return s, nil
	}
	g.mu.Unlock()
	return c.Attach(ctx, want)
}

// process returns the connection to the process, or nil if there is none.
func (g *gate) process() shim.Client {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.client
}

// settle is how long after something has failed the process's end may take to
// become known.
const settle = time.Second

// over reports whether the process has ended, also if nobody has said so yet.
func (g *gate) over(ctx context.Context) bool {
	c := g.process()
	if c == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	_, err := c.Wait(ctx)
	return ctx.Err() == nil && (err == nil || errs.Is(err, errs.Unavailable) || errs.Is(err, errs.NotFound))
}

// open connects those who wait, and lets the others through from now on. The
// process must not run yet.
func (g *gate) open(ctx context.Context, c shim.Client) error {
	g.mu.Lock()
	waiting := g.waiting
	g.waiting, g.client = nil, c
	g.mu.Unlock()
	for s, want := range waiting {
		stream, err := c.Attach(ctx, want)
		s.bind(stream, err)
		if err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// end says that the process has gone. Streams that it had end by themselves.
func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.client = nil
}

// fail ends the streams of those who wait: the start has failed.
func (g *gate) fail() {
	g.mu.Lock()
	waiting := g.waiting
	g.waiting, g.client = nil, nil
	g.mu.Unlock()
	for s := range waiting {
		s.bind(nil, io.EOF)
	}
}

// lateStream is a stream to a process that does not exist yet.
type lateStream struct {
	gate *gate
	// bound is closed when stream or err is set.
	bound  chan struct{}
	once   sync.Once
	stream shim.Stream
	err    error
}

func (s *lateStream) bind(stream shim.Stream, err error) {
	done := false
	s.once.Do(func() {
		s.stream, s.err, done = stream, err, true
		close(s.bound)
	})
	if !done && stream != nil {
		stream.Close() // the client has gone in the meantime
	}
}

func (s *lateStream) wait() (shim.Stream, error) {
	<-s.bound
	return s.stream, s.err
}

func (s *lateStream) Read(p []byte) (int, error) {
	stream, err := s.wait()
	if err != nil {
		return 0, err
	}
	return stream.Read(p)
}

// Write waits for the process: what a client types early is not lost, and it
// can't type more than its connection buffers.
func (s *lateStream) Write(p []byte) (int, error) {
	stream, err := s.wait()
	if err != nil {
		return 0, err
	}
	return stream.Write(p)
}

func (s *lateStream) CloseWrite() error {
	stream, err := s.wait()
	if err != nil {
		return err
	}
	return stream.CloseWrite()
}

func (s *lateStream) Close() error {
	s.gate.mu.Lock()
	delete(s.gate.waiting, s)
	s.gate.mu.Unlock()
	s.bind(nil, errs.New(errs.Unavailable, "stream is closed"))
	if s.stream != nil {
		return s.stream.Close()
	}
	return nil
}
