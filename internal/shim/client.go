package shim

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim/protocol"
)

// client is the Client over a socket. One goroutine reads the connection and
// hands every answer to the call that waits for it.
type client struct {
	conn  *net.UnixConn
	dir   string
	hello protocol.Hello
	facts chan string
	// lost is closed when the connection has ended, for why.
	lost chan struct{}

	writing sync.Mutex

	mu  sync.Mutex
	why error
	// closed: by our own side, and not for a failure.
	closed bool
	last   uint32
	calls  map[uint32]chan<- answer
}

type answer struct {
	op      protocol.Op
	payload []byte
}

func newClient(conn *net.UnixConn, dir string, hello protocol.Hello) *client {
	c := &client{
		conn: conn, dir: dir, hello: hello,
		facts: make(chan string, 8), lost: make(chan struct{}), calls: map[uint32]chan<- answer{},
	}
	go c.read()
	return c
}

// read ends with the connection.
func (c *client) read() {
	defer close(c.facts)
	defer close(c.lost)
	in := bufio.NewReaderSize(c.conn, 512)
	for {
		id, op, payload, err := protocol.ReadFrame(in)
		if err != nil {
			c.conn.Close()
			c.mu.Lock()
			c.why = err
			c.mu.Unlock()
			return
		}
		if op == protocol.OpFact {
			select {
			case c.facts <- string(payload):
			default: // nobody looks, and a fact says only that it happened
			}
			continue
		}
		c.mu.Lock()
		to := c.calls[id]
		delete(c.calls, id)
		c.mu.Unlock()
		if to != nil {
			to <- answer{op, payload} // has room for one
		}
	}
}

// sendWithin is how long a live shim may take to read a message; it does
// nothing else in the goroutine that reads.
const sendWithin = 30 * time.Second

// send writes one message. A connection on which one could not be written whole
// is of no more use.
func (c *client) send(id uint32, op protocol.Op, payload []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(sendWithin))
	err := protocol.WriteFrame(c.conn, id, op, payload)
	if err == nil || errs.Is(err, errs.Invalid) {
		return err
	}
	c.conn.Close()
	return gone(err)
}

// call sends one request and waits for its answer.
func (c *client) call(ctx context.Context, op protocol.Op, payload []byte) (*protocol.Reader, error) {
	got := make(chan answer, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.calls[id] = got
	c.mu.Unlock()
	forget := func() {
		c.mu.Lock()
		delete(c.calls, id)
		c.mu.Unlock()
	}
	if err := c.send(id, op, payload); err != nil {
		forget()
		return nil, err
	}
	select {
	case a := <-got:
		return result(a)
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	case <-c.lost:
	}
	select {
	case a := <-got: // it was the last that came
		return result(a)
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return nil, gone(c.why)
}

func result(a answer) (*protocol.Reader, error) {
	r := protocol.NewReader(a.payload)
	if a.op != protocol.OpAnswer {
		return nil, r.Error()
	}
	return r, nil
}

// do is call for answers without content.
func (c *client) do(ctx context.Context, op protocol.Op, payload []byte) error {
	_, err := c.call(ctx, op, payload)
	return err
}

func target(execID string) []byte { return protocol.AppendString(nil, execID) }

func (c *client) Pid() int { return c.hello.Pid }

func (c *client) Facts() <-chan string { return c.facts }

func (c *client) Start(ctx context.Context) error { return c.do(ctx, protocol.OpStart, target("")) }

func (c *client) Wait(ctx context.Context) (Exit, error) {
	e, err := c.wait(ctx, "")
	if !errs.Is(err, errs.Unavailable) {
		return e, err
	}
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed { // that tells nothing of the shim
		return e, err
	}
	<-c.lost // soon: a connection that failed to write is closed
	return ReadExit(c.dir)
}

func (c *client) wait(ctx context.Context, execID string) (Exit, error) {
	r, err := c.call(ctx, protocol.OpWait, target(execID))
	if err != nil {
		return Exit{}, err
	}
	e := r.Exit()
	return e, r.Done()
}

func (c *client) Signal(ctx context.Context, sig int) error { return c.signal(ctx, "", sig) }

func (c *client) signal(ctx context.Context, execID string, sig int) error {
	return c.do(ctx, protocol.OpSignal, protocol.AppendU32(target(execID), uint32(sig)))
}

func (c *client) Resize(ctx context.Context, height, width uint16) error {
	return c.resize(ctx, "", height, width)
}

func (c *client) resize(ctx context.Context, execID string, height, width uint16) error {
	return c.do(ctx, protocol.OpResize, protocol.AppendU16(protocol.AppendU16(target(execID), height), width))
}

func (c *client) Attach(ctx context.Context, want Streams) (Stream, error) {
	s, err := c.stream(ctx, "", want)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// stream opens a connection of its own for bytes. It is a plain socket, so that
// io.Copy between it and a client's connection stays in the kernel (splice(2)).
func (c *client) stream(ctx context.Context, execID string, want Streams) (*net.UnixConn, error) {
	conn, err := connect(ctx, c.dir)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	g := protocol.Greeting{Kind: protocol.Stream, Target: execID, Streams: want}
	err = protocol.WriteFrame(conn, 0, 0, g.Encode())
	var op protocol.Op
	var payload []byte
	if err == nil {
		_, op, payload, err = protocol.ReadFrame(conn)
	}
	switch {
	case !stop():
		err = ctx.Err()
	case err != nil:
		err = gone(err)
	case op != protocol.OpAnswer:
		err = protocol.NewReader(payload).Error()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (c *client) Shutdown(ctx context.Context) error {
	return c.do(ctx, protocol.OpShutdown, target(""))
}

func (c *client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	err := c.conn.Close()
	<-c.lost
	return err
}

func (c *client) Exec(ctx context.Context, execID string, p *job.Process, want Streams) (Exec, error) {
	wire := p.Encode()
	b := protocol.AppendU32(target(execID), uint32(len(wire)))
	b = protocol.AppendStreams(append(b, wire...), want)
	if err := c.do(ctx, protocol.OpExec, b); err != nil {
		return nil, err
	}
	e := &execution{c: c, id: execID}
	if want != (Streams{}) {
		s, err := c.stream(ctx, execID, want)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.stream = s
	}
	return e, nil
}

func (c *client) Resume(execID string, pid int) Exec {
	return &execution{c: c, id: execID, pid: pid}
}

// execution is the Exec over a client's connection.
type execution struct {
	c      *client
	id     string
	stream *net.UnixConn

	mu  sync.Mutex
	pid int
}

func (e *execution) Stream() Stream {
	if e.stream == nil {
		return nil
	}
	return e.stream
}

func (e *execution) Start(ctx context.Context) error {
	r, err := e.c.call(ctx, protocol.OpStart, target(e.id))
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pid = int(r.U32())
	return r.Done()
}

func (e *execution) Pid() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pid
}

func (e *execution) Wait(ctx context.Context) (Exit, error) { return e.c.wait(ctx, e.id) }

func (e *execution) Signal(ctx context.Context, sig int) error { return e.c.signal(ctx, e.id, sig) }

func (e *execution) Resize(ctx context.Context, height, width uint16) error {
	return e.c.resize(ctx, e.id, height, width)
}

func (e *execution) Close() error {
	if e.stream != nil {
		e.stream.Close()
	}
	// Call 0: no answer is wanted.
	return e.c.send(0, protocol.OpForget, target(e.id))
}
