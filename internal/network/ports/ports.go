// Package ports decides which host port a published port gets, and holds it.
//
// It is called by package network. It keeps, for each port given out, a bound
// but not listening socket, so that no other program of the host takes the port
// while a container has it; packets never reach that socket, they are
// translated before. The sockets belong to the daemon: after a restart the
// ports are claimed again with Claim.
package ports

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// Key is one port of the host.
type Key struct {
	Proto string // tcp, udp or sctp
	IP    netip.Addr
	Port  uint16
}

// Range is the host ports that will do: all of them if First is 0.
type Range struct{ First, Last uint16 }

// Parse reads the host port of a port binding: empty or "0" for any, a number,
// or a range "8000-8010".
func Parse(s string) (Range, error) {
	if s == "" {
		return Range{}, nil
	}
	first, last, isRange := strings.Cut(s, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return Range{}, errs.New(errs.Invalid, "invalid port specification: %q", s)
	}
	b := a
	if isRange {
		if b, err = strconv.ParseUint(last, 10, 16); err != nil || b < a || a == 0 {
			return Range{}, errs.New(errs.Invalid, "invalid port specification: %q", s)
		}
	}
	return Range{uint16(a), uint16(b)}, nil
}

// number is a port without its address: what is at other addresses of the same
// version of IP decides whether it can be had.
type number struct {
	proto string
	six   bool
	port  uint16
}

func (k Key) number() number { return number{k.Proto, k.IP.Is6(), k.Port} }

// holding is an address at which a port is held, by a socket, or -1 where none
// could be had.
type holding struct {
	ip netip.Addr
	fd int
}

func (h holding) close() {
	if h.fd >= 0 {
		unix.Close(h.fd)
	}
}

// holdings are found by number, of which few have more than one: what one more
// port costs does not depend on how many there are.
type holdings map[number][]holding

func (m holdings) index(k Key) int {
	return slices.IndexFunc(m[k.number()], func(h holding) bool { return h.ip == k.IP })
}

func (m holdings) get(k Key) (fd int, ok bool) {
	if i := m.index(k); i >= 0 {
		return m[k.number()][i].fd, true
	}
	return 0, false
}

func (m holdings) put(k Key, fd int) { m[k.number()] = append(m[k.number()], holding{k.IP, fd}) }

func (m holdings) take(k Key) (fd int, ok bool) {
	n, i := k.number(), m.index(k)
	if i < 0 {
		return 0, false
	}
	fd = m[n][i].fd
	if m[n] = slices.Delete(m[n], i, i+1); len(m[n]) == 0 {
		delete(m, n)
	}
	return fd, true
}

// A Table is the host ports that are given out.
type Table struct {
	ephemeral Range

	mu   sync.Mutex
	held holdings
	lent holdings // of ports that may be reserved again
	next uint16   // where the search for an ephemeral port goes on
}

// New returns an empty table that takes ephemeral ports from r.
func New(r Range) *Table {
	if r.First == 0 {
		r = Range{32768, 60999} // Linux's own default
	}
	return &Table{ephemeral: r, held: holdings{}, lent: holdings{}, next: r.First}
}

// ParseEphemeral reads net.ipv4.ip_local_port_range.
func ParseEphemeral(s string) Range {
	f := strings.Fields(s)
	if len(f) != 2 {
		return Range{}
	}
	a, err1 := strconv.ParseUint(f[0], 10, 16)
	b, err2 := strconv.ParseUint(f[1], 10, 16)
	if err1 != nil || err2 != nil || a > b {
		return Range{}
	}
	return Range{uint16(a), uint16(b)}
}

// Close lets go of every socket.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, at := range t.held {
		for _, h := range at {
			h.close()
		}
		delete(t.held, n)
	}
}

// Reserve holds a port of range r at ip and returns its number. A port that is
// held here or used by a program of the host is errs.Unknown with Docker's text:
// the API answers 500.
func (t *Table) Reserve(proto string, ip netip.Addr, r Range) (uint16, error) {
	return t.ReserveAll(proto, []netip.Addr{ip}, r)
}

// ReserveAll is Reserve for one number at all of ips, of which there is at least
// one.
func (t *Table) ReserveAll(proto string, ips []netip.Addr, r Range) (uint16, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.First == 0 {
		return t.any(proto, ips)
	}
	var last error
	var at netip.Addr
	for p := int(r.First); p <= int(r.Last); p++ {
		if at, last = t.takeAll(proto, ips, uint16(p)); last == nil {
			return uint16(p), nil
		}
		if !inUse(last) {
			break
		}
	}
	if inUse(last) && r.First != r.Last {
		return 0, fmt.Errorf("Bind for %s:%d-%d failed: all ports are allocated", host(at), r.First, r.Last)
	}
	return 0, bindError(Key{proto, at, r.First}, last)
}

// any takes the next free ephemeral port. The lock is held.
func (t *Table) any(proto string, ips []netip.Addr) (uint16, error) {
	n := int(t.ephemeral.Last) - int(t.ephemeral.First) + 1
	for i := range n {
		p := int(t.next) + i
		if p > int(t.ephemeral.Last) {
			p -= n
		}
		at, err := t.takeAll(proto, ips, uint16(p))
		if err == nil {
			t.next = uint16(p) + 1
			if t.next > t.ephemeral.Last || t.next < t.ephemeral.First {
				t.next = t.ephemeral.First
			}
			return uint16(p), nil
		}
		if !inUse(err) {
			return 0, bindError(Key{proto, at, uint16(p)}, err)
		}
	}
	return 0, fmt.Errorf("Bind for %s:0 failed: all ports are allocated", host(ips[0]))
}

// takeAll holds one number at all of ips, or says at which it could not.
func (t *Table) takeAll(proto string, ips []netip.Addr, port uint16) (netip.Addr, error) {
	for i, ip := range ips {
		if err := t.take(Key{proto, ip, port}); err != nil {
			for _, got := range ips[:i] {
				t.release(Key{proto, got, port})
			}
			return ip, err
		}
	}
	return netip.Addr{}, nil
}

// ErrTaken says that somebody has the one port that was asked for.
var ErrTaken = errors.New("port is already allocated")

func inUse(err error) bool { return errors.Is(err, unix.EADDRINUSE) }

func bindError(k Key, err error) error {
	if inUse(err) {
		return fmt.Errorf("Bind for %s:%d failed: %w", host(k.IP), k.Port, ErrTaken)
	}
	return fmt.Errorf("Bind for %s:%d failed: %w", host(k.IP), k.Port, err)
}

func host(ip netip.Addr) string {
	if ip.Is6() {
		return "[" + ip.String() + "]"
	}
	return ip.String()
}

// Claim holds a port that was given out before, by a daemon that is gone. If
// another program has bound it meanwhile it is still ours in the packet rules,
// so that is no error.
func (t *Table) Claim(k Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.held.get(k); ok || k.Port == 0 {
		return
	}
	fd, err := bind(k)
	if err != nil {
		fd = -1
	}
	t.held.put(k, fd)
}

// Release gives ports back. One that is not held is no error.
func (t *Table) Release(keys ...Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		t.release(k)
	}
}

func (t *Table) release(k Key) {
	if fd, ok := t.held.take(k); ok {
		holding{fd: fd}.close()
	}
}

// Lend makes ports that are held free to be reserved, by the same sockets,
// until Return. For one who exchanges the ports of a container at once.
func (t *Table) Lend(keys ...Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		if fd, ok := t.held.take(k); ok {
			t.lent.put(k, fd)
		}
	}
}

// Return holds the ports again that were lent, whether they were reserved
// meanwhile or not.
func (t *Table) Return(keys ...Key) {
	for _, k := range keys {
		t.mu.Lock()
		if fd, ok := t.lent.take(k); ok {
			t.held.put(k, fd)
		}
		t.mu.Unlock()
		t.Claim(k)
	}
}

// take holds exactly k, or says unix.EADDRINUSE. The versions of IP do not
// concern each other.
func (t *Table) take(k Key) error {
	for _, h := range t.held[k.number()] {
		if h.ip == k.IP || h.ip.IsUnspecified() || k.IP.IsUnspecified() {
			return unix.EADDRINUSE
		}
	}
	if fd, ok := t.lent.take(k); ok {
		t.held.put(k, fd)
		return nil
	}
	for _, l := range t.lent[k.number()] { // the port at another address is in the way
		l.close()
	}
	delete(t.lent, k.number())
	fd, err := bind(k)
	if err != nil {
		return err
	}
	t.held.put(k, fd)
	return nil
}

// ErrNoSocket says that a port is held without a socket: another program has it
// bound, or the kernel lacks the protocol.
var ErrNoSocket = errors.New("no socket of this daemon has the port")

// Socket returns a copy of the bound socket that holds k, for one who serves the
// port. ErrNoSocket if there is none.
func (t *Table) Socket(k Key) (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd, ok := t.held.get(k)
	if !ok || fd < 0 {
		return nil, fmt.Errorf("%s:%d/%s: %w", host(k.IP), k.Port, k.Proto, ErrNoSocket)
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s:%d/%s: %w", host(k.IP), k.Port, k.Proto, err)
	}
	return os.NewFile(uintptr(dup), "port"), nil
}

// bind returns a socket bound to k, or -1 without an error where this kernel
// has no such protocol.
func bind(k Key) (int, error) {
	family, typ, proto := unix.AF_INET, unix.SOCK_STREAM, 0
	if k.IP.Is6() {
		family = unix.AF_INET6
	}
	switch k.Proto {
	case "udp":
		typ = unix.SOCK_DGRAM
	case "sctp":
		proto = unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	reuse := typ == unix.SOCK_STREAM
	if reuse {
		// Connections of a former listener that linger in TIME-WAIT are no
		// reason to refuse the port …
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	var sa unix.Sockaddr
	if k.IP.Is6() {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		sa = &unix.SockaddrInet6{Port: int(k.Port), Addr: k.IP.As16()}
	} else {
		sa = &unix.SockaddrInet4{Port: int(k.Port), Addr: k.IP.As4()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		return 0, err
	}
	if reuse {
		// … but once we have it nobody shall share it.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	} else {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
	}
	return fd, nil
}
