package dns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// site is where one container is served.
type site struct {
	s        *Server
	sockets  Sockets
	udp, tcp syscall.RawConn
	view     atomic.Pointer[View]

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	forwards, conns atomic.Int32
	// own keeps answers that came by way of the container's network: whoever
	// is in there can forge them, so nobody else gets to see them.
	own     *cache
	ownOnce sync.Once
}

const ownCache = 128 << 10 // bytes

func newSite(s *Server, sockets Sockets) (*site, error) {
	at := &site{s: s, sockets: sockets}
	var err error
	if at.udp, err = sockets.UDP.SyscallConn(); err != nil {
		return nil, fmt.Errorf("name server's socket: %w", err)
	}
	if at.tcp, err = sockets.TCP.SyscallConn(); err != nil {
		return nil, fmt.Errorf("name server's socket: %w", err)
	}
	at.ctx, at.cancel = context.WithCancel(s.ctx)
	return at, nil
}

func (t *site) start() {
	t.work.Go(t.datagrams)
	t.work.Go(t.accept)
}

// stop returns when nothing of the site is left.
func (t *site) stop() {
	t.cancel()
	_ = t.sockets.Close() // which nobody writes to a disk
	t.work.Wait()
}

// buffers lends memory for messages: a socket that waits has none.
var buffers = lender{sync.Pool{New: func() any { b := make([]byte, maxUDP+1); return &b }}}

type lender struct{ pool sync.Pool }

func (l *lender) get() *[]byte  { return l.pool.Get().(*[]byte) }
func (l *lender) put(b *[]byte) { l.pool.Put(b) }

// turns is how many datagrams of one container are answered before others get
// the processor.
const turns = 64

// datagrams answers what comes by UDP until the socket is closed.
func (t *site) datagrams() {
	for {
		if err := t.udp.Read(t.drain); err != nil {
			return
		}
		runtime.Gosched()
	}
}

// drain answers what is there; false if nothing is.
func (t *site) drain(fd uintptr) bool {
	in, out := buffers.get(), buffers.get()
	defer buffers.put(in)
	defer buffers.put(out)
	for i := range turns {
		n, from, err := unix.Recvfrom(int(fd), *in, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			return i > 0
		case err == unix.EINTR:
			continue
		case err != nil: // of an earlier answer that could not be delivered
			continue
		}
		reply := t.answer((*in)[:n], *out, udpLimit, func(q []byte) { t.forwardUDP(q, from) })
		if reply != nil {
			_ = unix.Sendto(int(fd), reply, unix.MSG_DONTWAIT, from) // it may ask again
		}
	}
	return true
}

func udpLimit(q *query) int { return q.size }
func tcpLimit(*query) int   { return maxTCP }

// answer returns the answer to a message if it can be given at once; it may be
// in dst. Else later gets the message, which it must copy, unless it deserves no
// answer at all.
func (t *site) answer(msg, dst []byte, limit func(*query) int, later func([]byte)) []byte {
	q, wrong := parseQuery(msg)
	switch wrong {
	case fine:
	case ignore:
		return nil
	default:
		return q.reply(dst, answers{rcode: int(wrong)}, limit(&q))
	}
	v := t.view.Load()
	a, known := v.resolve(&q)
	if !known {
		a, known = v.unknown(&q)
	}
	if known {
		return q.reply(dst, a, limit(&q))
	}
	if !t.claim() {
		return q.reply(dst, answers{rcode: rcodeServer}, limit(&q))
	}
	later(msg)
	return nil
}

// claim takes one of the container's places for questions to others; false if
// there is none.
func (t *site) claim() bool {
	mine, all := t.forwards.Add(1), t.s.forwards.Add(1)
	if mine <= int32(t.s.o.Forwards) && all <= maxForwards {
		return true
	}
	t.release()
	return false
}

func (t *site) release() {
	t.forwards.Add(-1)
	t.s.forwards.Add(-1)
}

// forwardUDP answers a question, which others must be asked, when they have.
func (t *site) forwardUDP(msg []byte, from unix.Sockaddr) {
	msg = append([]byte(nil), msg...)
	t.work.Go(func() {
		defer t.release()
		reply := t.elsewhere(msg, udpLimit)
		if reply == nil {
			return
		}
		_ = t.udp.Control(func(fd uintptr) {
			_ = unix.Sendto(int(fd), reply, unix.MSG_DONTWAIT, from)
		})
	})
}

// elsewhere answers a question from what others have said or say now.
func (t *site) elsewhere(msg []byte, limit func(*query) int) []byte {
	q, wrong := parseQuery(msg)
	v := t.view.Load()
	if wrong != fine || v.Upstreams == nil {
		return nil
	}
	us := v.Upstreams()
	key, c := questionKey(&q, us), t.s.cache
	for _, u := range us {
		if !u.Host {
			t.ownOnce.Do(func() { t.own = newCache(ownCache) })
			c = t.own
			break
		}
	}
	r, age, ok := c.get(key, time.Now())
	switch {
	case ok && !q.option:
	case q.option: // a cookie, a client's subnet: the answer is for this one alone
		age = 0
		r, ok = exchange(t.ctx, t.dial, &t.s.sick, us, &q)
	default:
		r, ok = c.once(t.ctx, key, func() (response, bool) { return exchange(t.ctx, t.dial, &t.s.sick, us, &q) })
	}
	if t.ctx.Err() != nil {
		return nil
	}
	if !ok {
		return q.reply(nil, answers{rcode: rcodeServer}, limit(&q))
	}
	return r.render(nil, &q, age, limit(&q))
}

// questionKey tells questions apart whose answers differ: what is asked, with
// which flags, and of whom.
func questionKey(q *query, us []Upstream) string {
	var b strings.Builder
	for _, c := range q.raw[headerLen : q.end-questionFixed] {
		b.WriteByte(lower(c))
	}
	b.Write(q.raw[q.end-questionFixed : q.end])
	b.WriteByte(byte(q.flags >> 8 & 1))   // recursion desired
	b.WriteByte(byte(q.flags & 0x30))     // data authenticated, checking disabled
	fmt.Fprintf(&b, "%t%t", q.edns, q.do) // what has no EDNS must get none
	for _, u := range us {
		fmt.Fprintf(&b, " %v%t", u.Addr, u.Host)
	}
	return b.String()
}

// dial opens a connection to an upstream from where that is reached.
func (t *site) dial(ctx context.Context, network string, u Upstream) (c net.Conn, err error) {
	var d net.Dialer
	if u.Host || t.s.o.Inside == nil {
		return d.DialContext(ctx, network, u.Addr.String())
	}
	err2 := t.s.o.Inside(t.udp, func() error {
		c, err = d.DialContext(ctx, network, u.Addr.String())
		return err
	})
	if err2 != nil && c != nil {
		c.Close()
	}
	return c, errors.Join(err2)
}

// accept takes connections until the socket is closed.
func (t *site) accept() {
	for {
		fd := -1
		err := t.tcp.Read(func(l uintptr) bool {
			var err error
			fd, _, err = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return err != unix.EAGAIN
		})
		if err != nil {
			return
		}
		if fd < 0 { // it is gone already, or there are no descriptors
			select {
			case <-t.ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		if t.conns.Add(1) > int32(t.s.o.Conns) {
			t.conns.Add(-1)
			unix.Close(fd)
			continue
		}
		conn := os.NewFile(uintptr(fd), "name server's connection")
		t.work.Go(func() {
			defer t.conns.Add(-1)
			defer conn.Close()
			defer context.AfterFunc(t.ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
			t.stream(conn)
		})
	}
}

// idleTime is how long a connection may be silent, or not take an answer.
const idleTime = 10 * time.Second

// stream answers the questions on a connection, one after the other.
func (t *site) stream(conn *os.File) {
	var size [2]byte
	for t.ctx.Err() == nil {
		conn.SetDeadline(time.Now().Add(idleTime))
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		n := be.Uint16(size[:])
		if n < headerLen || n > maxQuery {
			return
		}
		msg := make([]byte, n)
		if _, err := io.ReadFull(conn, msg); err != nil {
			return
		}
		var late []byte
		reply := t.answer(msg, nil, tcpLimit, func(q []byte) {
			defer t.release()
			late = t.elsewhere(q, tcpLimit)
		})
		if reply == nil {
			reply = late
		}
		if reply == nil {
			return
		}
		conn.SetDeadline(time.Now().Add(idleTime))
		if _, err := conn.Write(append(be.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}
