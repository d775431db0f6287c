package server

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
	"gantry/internal/shim/protocol"
)

// A control is one connection for calls.
type control struct {
	s *server
	c *conn

	mu sync.Mutex // one message at a time
}

// answerWithin is how long a client may take to read an answer. Answers are
// small: one that blocks comes from a client that is stuck.
const answerWithin = 30 * time.Second

func (s *server) newControl(c *conn) *control {
	k := &control{s: s, c: c}
	s.mu.Lock()
	s.ctls[k] = struct{}{}
	s.mu.Unlock()
	return k
}

// send writes one message; a connection that does not take it is closed.
func (k *control) send(call uint32, op protocol.Op, payload []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.c.f.SetWriteDeadline(time.Now().Add(answerWithin))
	if protocol.WriteFrame(k.c.f, call, op, payload) != nil {
		k.c.close()
	}
}

func (k *control) fail(call uint32, err error) {
	k.send(call, protocol.OpFail, protocol.AppendError(nil, err))
}

// reply answers a call that gives nothing but an error.
func (k *control) reply(call uint32, err error) {
	if err != nil {
		k.fail(call, err)
		return
	}
	k.send(call, protocol.OpAnswer, nil)
}

// serve reads calls until the client goes. Those that take their time get a
// goroutine.
func (k *control) serve() {
	k.s.settle()
	for {
		call, op, payload, err := protocol.ReadFrame(k.c.f)
		if err != nil {
			break
		}
		k.dispatch(call, op, payload)
	}
	k.c.close()
	k.s.leave(k)
}

func (k *control) dispatch(call uint32, op protocol.Op, payload []byte) {
	r := protocol.NewReader(payload)
	id := r.String()
	if op == protocol.OpExec {
		p, want := r.Bytes(), r.Streams()
		if err := r.Done(); err != nil {
			k.fail(call, err)
			return
		}
		go func() { k.reply(call, k.s.exec(k, id, p, want)) }()
		return
	}
	if op == protocol.OpMount || op == protocol.OpUnmount || op == protocol.OpMounts {
		go k.changeMounts(call, op, r)
		return
	}
	if op == protocol.OpCheckpoint {
		c := r.Checkpoint()
		if err := r.Done(); err != nil {
			k.fail(call, err)
			return
		}
		go func() {
			err := k.s.checkpoint(c)
			k.reply(call, err)
			if err == nil && !c.LeaveRunning {
				k.s.reaper.signal(k.s.main.task.Pid(), unix.SIGKILL)
			}
		}()
		return
	}
	p, err := k.s.find(id)
	if err != nil {
		if op != protocol.OpForget {
			k.fail(call, err)
		}
		return
	}
	var a, b uint32
	switch op {
	case protocol.OpSignal:
		a = r.U32()
	case protocol.OpResize:
		a, b = uint32(r.U16()), uint32(r.U16())
	}
	if err := r.Done(); err != nil {
		k.fail(call, err)
		return
	}
	switch op {
	case protocol.OpStart:
		go k.start(call, p)
	case protocol.OpWait:
		p.wait(waiter{k, call})
	case protocol.OpSignal:
		k.reply(call, k.s.reaper.signal(p.task.Pid(), syscall.Signal(a)))
	case protocol.OpResize:
		k.reply(call, p.resize(uint16(a), uint16(b)))
	case protocol.OpForget:
		p.forget()
	case protocol.OpShutdown:
		go k.shutdown(call)
	default:
		k.fail(call, errs.New(errs.Unsupported, "the shim knows no call %d", op))
	}
}

func (k *control) start(call uint32, p *process) {
	if err := p.start(); err != nil {
		k.fail(call, err)
		return
	}
	k.send(call, protocol.OpAnswer, protocol.AppendU32(nil, uint32(p.task.Pid())))
}

func (k *control) shutdown(call uint32) {
	err := k.s.shutdown()
	k.reply(call, err)
	if err == nil {
		k.s.mu.Lock()
		k.s.endLocked()
		k.s.mu.Unlock()
	}
}

// leave forgets a client that has gone, and with it its execs that have not been
// started: nobody else knows them. How the others end is written down, for the
// next client.
func (s *server) leave(k *control) {
	s.mu.Lock()
	delete(s.ctls, k)
	var orphans []*process
	for _, p := range s.execs {
		if p != nil && p.owner == k {
			orphans = append(orphans, p)
		}
	}
	s.mu.Unlock()
	s.main.leave(k)
	for _, p := range orphans {
		p.leave(k)
		p.orphaned()
	}
	s.settle()
}

// leave drops the waiters of a client.
func (p *process) leave(k *control) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.waiters[:0]
	for _, w := range p.waiters {
		if w.k != k {
			kept = append(kept, w)
		}
	}
	clear(p.waiters[len(kept):])
	p.waiters = kept
}

// fact tells all clients.
func (s *server) fact(name string) {
	s.mu.Lock()
	all := make([]*control, 0, len(s.ctls))
	for k := range s.ctls {
		all = append(all, k)
	}
	s.mu.Unlock()
	for _, k := range all {
		k.send(0, protocol.OpFact, []byte(name))
	}
}

// exec prepares a further process.
func (s *server) exec(k *control, id string, wire []byte, want protocol.Streams) error {
	j, err := job.DecodeProcess(wire)
	if err != nil {
		return err
	}
	if started, exited := s.main.status(); !started || exited {
		return errs.New(errs.Conflict, "container %s is not running", s.id)
	}
	if id == "" {
		return errs.New(errs.Invalid, "an exec needs an ID")
	}
	p := s.newProcess(id, j)
	p.feedOnce, p.owner = true, k
	s.mu.Lock()
	if s.execs[id] != nil {
		s.mu.Unlock()
		return errs.New(errs.Conflict, "exec %s exists", id)
	}
	s.execs[id] = nil // taken, but nobody finds it yet
	s.mu.Unlock()
	err = p.prepare(want, func(stdio [3]*os.File) (task, error) { return s.runtime.exec(j, stdio) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.execs, id)
		return err
	}
	s.execs[id] = p
	if _, there := s.ctls[k]; !there {
		go p.orphaned() // the client went in the meantime
	}
	return nil
}

// orphaned says that the owner of an exec has gone without forgetting it.
func (p *process) orphaned() {
	p.mu.Lock()
	started, exited, e := p.started, p.exited, p.exit
	p.orphan = true
	p.mu.Unlock()
	switch {
	case !started:
		p.forget()
	case exited:
		p.record(e)
		p.s.forget(p)
	}
}

// record writes down how an exec has ended whose owner has gone.
func (p *process) record(e protocol.Exit) {
	if err := protocol.WriteExecExit(p.s.dir, p.id, e); err != nil {
		fmt.Fprintln(os.Stderr, "write exit record of an exec:", err)
	}
}

// forget says that no call on an exec will come any more. One that has not been
// started never will be.
func (p *process) forget() {
	p.mu.Lock()
	again := p.forgotten
	p.forgotten = true
	started, exited := p.started, p.exited
	p.mu.Unlock()
	if again {
		return
	}
	switch {
	case exited:
		p.s.forget(p)
	case started:
	case p.task.Pid() == 0:
		go p.reaped(syscall.WaitStatus(syscall.SIGKILL)) // there is no process
	default:
		p.s.reaper.signal(p.task.Pid(), unix.SIGKILL)
	}
}

func (s *server) forget(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.execs[p.id] == p {
		delete(s.execs, p.id)
	}
}
