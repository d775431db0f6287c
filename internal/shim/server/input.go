package server

import "gantry/internal/shim/protocol"

// attach serves one stream connection until its client has gone or the output
// has ended.
func (p *process) attach(k *conn, want protocol.Streams) {
	if protocol.WriteFrame(k.f, 0, protocol.OpAnswer, nil) != nil {
		k.close()
		return
	}
	c := &client{c: k, want: want}
	if !p.out.add(c) {
		k.close()
		return
	}
	if want.Stdin {
		select {
		case <-p.ready:
		case <-p.done:
		}
	}
	if want.Stdin && p.feed != nil {
		p.input(c)
	} else {
		p.discard(c)
	}
}

// input carries what the client sends to standard input. The end of it, or of
// the client, ends the process's own where that is wanted, and else, as in
// Docker, the whole attachment.
func (p *process) input(c *client) {
	for {
		buf, n, err := p.s.spare.read(c.c.raw)
		if err != nil || n == 0 {
			break
		}
		_, err = p.feed.Write(buf[frameHeader : frameHeader+n])
		p.s.spare.put(buf)
		if err != nil {
			// The process reads no more. Its output goes on, and what
			// the client still sends has nowhere to go.
			p.discard(c)
			return
		}
	}
	if p.tty || !p.feedOnce {
		p.out.remove(c)
		return
	}
	p.closeInput()
	c.c.awaitHangUp()
	p.out.remove(c)
}

// discard reads what nobody wants, so that the end of the client is noticed.
func (p *process) discard(c *client) {
	for {
		buf, n, err := p.s.spare.read(c.c.raw)
		if err != nil {
			p.out.remove(c)
			return
		}
		if n == 0 {
			break
		}
		p.s.spare.put(buf)
	}
	c.c.awaitHangUp()
	p.out.remove(c)
}
