package dns

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// patience is how long a client is kept waiting: less than the 5 seconds
	// after which resolvers ask again (resolv.conf(5)).
	patience = 4 * time.Second
	// headStart is how long a name server has before the next one is asked
	// beside it; again, how long before all are asked once more.
	headStart = 300 * time.Millisecond
	again     = 1200 * time.Millisecond
)

var errMismatch = errors.New("what came is no answer to the question")

// dialer opens a connection to an upstream.
type dialer func(ctx context.Context, network string, u Upstream) (net.Conn, error)

// exchange asks the upstreams and returns the first good answer; if there is
// none, one that says what is wrong. They are asked one after the other, each
// when the one before has failed or had its head start, and all of them twice.
func exchange(ctx context.Context, dial dialer, sick *sickList, us []Upstream, q *query) (response, bool) {
	if len(us) == 0 {
		return response{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	type result struct {
		u   Upstream
		r   response
		err error
	}
	us = sick.order(us)
	results := make(chan result, 2*len(us))
	next, running := 0, 0
	var best response
	var have bool
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return best, have
		case <-timer.C:
			if next >= 2*len(us) {
				continue // the last ones are awaited
			}
			u := us[next%len(us)]
			next++
			running++
			asking.Go(func() {
				r, err := askOne(ctx, dial, u, q)
				results <- result{u, r, err}
			})
			wait := headStart
			if next%len(us) == 0 {
				wait = again
			}
			timer.Reset(wait)
		case got := <-results:
			running--
			if got.err == nil && (got.r.rcode == rcodeOK || got.r.rcode == rcodeNoName) {
				sick.clear(got.u)
				for _, u := range us[:min(next, len(us))] {
					if u == got.u {
						break
					}
					sick.note(u) // it was asked earlier and has not answered well
				}
				return got.r, true
			}
			sick.note(got.u)
			if got.err == nil {
				best, have = got.r, true
			}
			if next < len(us) {
				timer.Reset(0)
			} else if running == 0 && have {
				return best, true // each has answered, and none well
			} else if running == 0 && next >= 2*len(us) {
				return best, have
			}
		}
	}
}

// askOne asks one upstream, by datagram, and by stream if the answer is too long
// for that. The number is a fresh random one, the port the kernel's choice of a
// socket that is used once and takes datagrams from the upstream alone.
func askOne(ctx context.Context, dial dialer, u Upstream, q *query) (response, error) {
	var number [2]byte
	if _, err := rand.Read(number[:]); err != nil {
		return response{}, err
	}
	id := be.Uint16(number[:])
	msg := append([]byte(nil), q.raw...)
	be.PutUint16(msg, id)
	r, err := askUDP(ctx, dial, u, msg, id, q)
	if err != nil || !r.cut {
		return r, err
	}
	whole, err := askTCP(ctx, dial, u, msg, id, q)
	if err != nil {
		return r, nil // the client is told that it was cut
	}
	return whole, nil
}

func open(ctx context.Context, dial dialer, network string, u Upstream) (net.Conn, func() bool, error) {
	c, err := dial(ctx, network, u)
	if err != nil {
		return nil, nil, err
	}
	return c, context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) }), nil
}

func askUDP(ctx context.Context, dial dialer, u Upstream, msg []byte, id uint16, q *query) (response, error) {
	c, stop, err := open(ctx, dial, "udp", u)
	if err != nil {
		return response{}, err
	}
	defer c.Close()
	defer stop()
	if _, err := c.Write(msg); err != nil {
		return response{}, err
	}
	buf := buffers.get()
	defer buffers.put(buf)
	for tries := 0; tries < 64; tries++ {
		n, err := c.Read(*buf)
		if err != nil {
			return response{}, err
		}
		if n > maxUDP { // and there was more
			(*buf)[2] |= flagTC >> 8
		}
		// Anything else is a late answer to another question, or a forgery.
		if r, ok := readResponse((*buf)[:n], id, q); ok {
			r.raw = append([]byte(nil), r.raw...)
			return r, nil
		}
	}
	return response{}, errMismatch
}

func askTCP(ctx context.Context, dial dialer, u Upstream, msg []byte, id uint16, q *query) (response, error) {
	c, stop, err := open(ctx, dial, "tcp", u)
	if err != nil {
		return response{}, err
	}
	defer c.Close()
	defer stop()
	if _, err := c.Write(append(be.AppendUint16(nil, uint16(len(msg))), msg...)); err != nil {
		return response{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return response{}, err
	}
	b := make([]byte, be.Uint16(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return response{}, err
	}
	r, ok := readResponse(b, id, q)
	if !ok {
		return response{}, errMismatch
	}
	return r, nil
}
