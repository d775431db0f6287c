package relay

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The bounds of datagram flows. A flow ends when neither side has sent for
// idle; beyond most flows of one port new clients are not served, so that
// forged sources do not eat the daemon's descriptors.
const (
	idle      = 90 * time.Second
	most      = 1024
	datagram  = 65535
	udpBuffer = 1 << 20
)

// listen makes a bound socket a listener of the runtime's.
func listen(f *os.File) (net.Listener, error) {
	fd := int(f.Fd())
	// Connections of before that linger are no reason not to listen again;
	// those to come inherit the option.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return net.FileListener(f)
}

// unlisten closes a listener. The socket below is held by somebody else, too:
// it must not go on taking connections that nobody serves.
func unlisten(l net.Listener) {
	if t, ok := l.(*net.TCPListener); ok {
		if raw, err := t.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		}
	}
	l.Close()
}

// flowKey is a client and the address of the host that it spoke to, from which
// the answers must come.
type flowKey struct {
	client netip.AddrPort
	local  netip.Addr
}

type udp struct {
	conn  *net.UDPConn
	to    netip.AddrPort
	tasks sync.WaitGroup

	mu    sync.Mutex
	flows map[flowKey]*net.UDPConn // nil once stopped
}

func startUDP(f *os.File, p Port) (*service, error) {
	level, opt := unix.IPPROTO_IP, unix.IP_PKTINFO
	if p.Host.Addr().Is6() {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	fd := int(f.Fd())
	if err := errors.Join(unix.SetsockoptInt(fd, level, opt, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, udpBuffer)); err != nil {
		return nil, err
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	u := &udp{conn: c.(*net.UDPConn), to: p.To, flows: map[flowKey]*net.UDPConn{}}
	u.tasks.Go(u.receive)
	return &service{stop: u.stop}, nil
}

func (u *udp) stop() {
	u.conn.Close()
	u.mu.Lock()
	for _, c := range u.flows {
		c.Close()
	}
	u.flows = nil
	u.mu.Unlock()
	u.tasks.Wait()
}

// receive hands datagrams of clients to their flows.
func (u *udp) receive() {
	buf, oob := make([]byte, datagram), make([]byte, 128)
	for {
		n, on, _, client, err := u.conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an answer that could not be delivered
		}
		if c := u.flow(flowKey{client, destination(oob[:on])}); c != nil {
			_, _ = c.Write(buf[:n])
		}
	}
}

// flow returns the socket of a flow, a new one if need be; nil if there can't
// be one.
func (u *udp) flow(k flowKey) *net.UDPConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.flows[k]; c != nil {
		_ = c.SetReadDeadline(time.Now().Add(idle))
		return c
	}
	if u.flows == nil || len(u.flows) >= most {
		return nil
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(u.to))
	if err != nil {
		return nil
	}
	_ = c.SetReadDeadline(time.Now().Add(idle))
	u.flows[k] = c
	u.tasks.Go(func() { u.answer(k, c) })
	return c
}

// answer sends what the container says back to the client.
func (u *udp) answer(k flowKey, c *net.UDPConn) {
	defer func() {
		c.Close()
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.flows[k] == c {
			delete(u.flows, k)
		}
	}()
	buf, from := make([]byte, datagram), source(k.local)
	for {
		n, err := c.Read(buf)
		if errors.Is(err, unix.ECONNREFUSED) {
			continue // nobody listens there yet
		}
		if err != nil {
			return
		}
		_, _, _ = u.conn.WriteMsgUDPAddrPort(buf[:n], from, k.client)
		_ = c.SetReadDeadline(time.Now().Add(idle))
	}
}

// destination reads IP_PKTINFO (ip(7)) or IPV6_PKTINFO (RFC 3542 6.1): where a
// datagram was sent to.
func destination(oob []byte) netip.Addr {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			a, _ := netip.AddrFromSlice(m.Data[8:12])
			return a
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
			a, _ := netip.AddrFromSlice(m.Data[:16])
			return a
		}
	}
	return netip.Addr{}
}

// source is the control message that sends a datagram from an address.
func source(a netip.Addr) []byte {
	switch {
	case a.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
	case a.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
	}
	return nil
}
