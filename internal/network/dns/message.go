package dns

import (
	"encoding/binary"
	"net/netip"
)

// Numbers of the protocol (RFC 1035 section 3.2 and 4.1.1, 3596, 6891).
const (
	typeA    = 1
	typeSOA  = 6
	typePTR  = 12
	typeAAAA = 28
	typeOPT  = 41
	typeIXFR = 251
	typeAXFR = 252
	typeANY  = 255

	classIN  = 1
	classANY = 255

	flagQR = 0x8000
	flagTC = 0x0200
	flagRD = 0x0100
	flagRA = 0x0080
	flagCD = 0x0010
	opcode = 0x7800

	rcodeOK       = 0
	rcodeFormat   = 1
	rcodeServer   = 2
	rcodeNoName   = 3
	rcodeNotImpl  = 4
	rcodeRefused  = 5
	rcodeBadVers  = 16
	headerLen     = 12
	maxName       = 255
	questionFixed = 4
)

const (
	// maxQuery is the most bytes of a question with all its options.
	maxQuery = 4096
	// maxUDP is the most that is sent in one datagram, and what we say that we
	// take.
	maxUDP = 4096
	minUDP = 512
	maxTCP = 65535
)

var be = binary.BigEndian

// query is a question that has been read. It refers to the bytes it was read
// from.
type query struct {
	raw    []byte
	end    int    // of the question section
	name   string // in lower case without the last dot; "" is the root
	flags  uint16
	qtype  uint16
	class  uint16
	edns   bool
	do     bool
	option bool // it has EDNS options
	size   int  // the largest datagram that the client takes
}

// trouble is why a message is not answered: with an error code, or at all.
type trouble int

const (
	fine   trouble = -1
	ignore trouble = -2 // not a question: an answer could start a loop
)

// parseQuery reads a question. What can't be read gets the answer that trouble
// says; then only the header of the query is valid.
func parseQuery(b []byte) (query, trouble) {
	q := query{raw: b, size: minUDP}
	if len(b) < headerLen {
		return q, ignore
	}
	q.flags = be.Uint16(b[2:])
	switch {
	case q.flags&flagQR != 0:
		return q, ignore
	case q.flags&opcode != 0:
		return q, rcodeNotImpl
	case be.Uint16(b[4:]) != 1, be.Uint16(b[6:]) != 0, be.Uint16(b[8:]) != 0, len(b) > maxQuery:
		return q, rcodeFormat
	}
	name, at, ok := questionName(b)
	if !ok || at+questionFixed > len(b) {
		return q, rcodeFormat
	}
	q.name, q.qtype, q.class, q.end = name, be.Uint16(b[at:]), be.Uint16(b[at+2:]), at+questionFixed
	at = q.end
	for range be.Uint16(b[10:]) {
		r, next, ok := readRecord(b, at)
		if !ok {
			q.end = 0
			return q, rcodeFormat
		}
		if r.kind == typeOPT {
			if q.edns || b[at] != 0 { // one, of the root (RFC 6891, 6.1.1)
				q.end = 0
				return q, rcodeFormat
			}
			q.edns, q.do, q.option = true, r.ttl&0x8000 != 0, next > r.data
			q.size = min(max(int(r.class), minUDP), maxUDP)
			if r.ttl>>16&0xff != 0 {
				return q, rcodeBadVers
			}
		}
		at = next
	}
	if q.qtype == typeAXFR || q.qtype == typeIXFR {
		return q, rcodeRefused
	}
	return q, fine
}

// questionName reads the name of the first question, which has nothing before it
// to refer to.
func questionName(b []byte) (name string, end int, ok bool) {
	var text [maxName]byte
	n, at := 0, headerLen
	for {
		if at >= len(b) {
			return "", 0, false
		}
		l := int(b[at])
		at++
		if l == 0 {
			break
		}
		// A dot, a length and the label; the root has one byte more.
		if l > 63 || at+l > len(b) || at+l-headerLen >= maxName {
			return "", 0, false
		}
		if n > 0 {
			text[n] = '.'
			n++
		}
		for _, c := range b[at : at+l] {
			if c == '.' {
				c = 0 // part of a label: it must not look like a separator
			}
			text[n] = lower(c)
			n++
		}
		at += l
	}
	return string(text[:n]), at, true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// record is the fixed part of a resource record, and where things are.
type record struct {
	kind, class uint16
	ttl         uint32
	ttlAt       int
	data        int // where its data begins
}

// readRecord reads the record at a place and returns where the next one is.
func readRecord(b []byte, at int) (record, int, bool) {
	at, ok := skipName(b, at)
	if !ok || at+10 > len(b) {
		return record{}, 0, false
	}
	r := record{kind: be.Uint16(b[at:]), class: be.Uint16(b[at+2:]), ttl: be.Uint32(b[at+4:]), ttlAt: at + 4, data: at + 10}
	next := r.data + int(be.Uint16(b[at+8:]))
	return r, next, next <= len(b)
}

// skipName returns where the name at a place ends. A reference ends a name; it
// is not followed.
func skipName(b []byte, at int) (int, bool) {
	for at < len(b) {
		switch l := int(b[at]); {
		case l == 0:
			return at + 1, true
		case l >= 0xc0:
			return at + 2, at+2 <= len(b)
		case l > 63:
			return 0, false
		default:
			at += 1 + l
		}
	}
	return 0, false
}

// ttl is how long clients may keep the address of a container, in seconds: one
// that is started anew may have another.
const ttl = 5

// answers is what an answer of our own says.
type answers struct {
	rcode int
	addrs []netip.Addr
	ptr   string // with dots, no last one
}

// reply renders an answer of at most limit bytes into dst. If it does not fit
// the truncation flag says so.
func (q *query) reply(dst []byte, a answers, limit int) []byte {
	dst = dst[:0]
	var h [headerLen]byte
	copy(h[:2], q.raw)
	be.PutUint16(h[2:], flagQR|flagRA|q.flags&(opcode|flagRD|flagCD)|uint16(a.rcode&0xf))
	dst = append(dst, h[:]...)
	if q.end > 0 {
		be.PutUint16(dst[4:], 1)
		dst = append(dst, q.raw[headerLen:q.end]...)
	}
	room := limit
	if q.edns {
		room -= 11
	}
	count := uint16(0)
	add := func(kind uint16, data []byte) {
		if len(dst)+12+len(data) > room {
			be.PutUint16(dst[2:], be.Uint16(dst[2:])|flagTC)
			room = 0 // none of those that follow either
			return
		}
		count++
		dst = be.AppendUint16(dst, 0xc000|headerLen) // the question's name
		dst = be.AppendUint16(dst, kind)
		dst = be.AppendUint16(dst, classIN)
		dst = be.AppendUint32(dst, ttl)
		dst = be.AppendUint16(dst, uint16(len(data)))
		dst = append(dst, data...)
	}
	for _, addr := range a.addrs {
		if addr.Is4() {
			d := addr.As4()
			add(typeA, d[:])
		} else {
			d := addr.As16()
			add(typeAAAA, d[:])
		}
	}
	if a.ptr != "" {
		if d, ok := appendName(nil, a.ptr); ok {
			add(typePTR, d)
		}
	}
	be.PutUint16(dst[6:], count)
	if q.edns {
		be.PutUint16(dst[10:], 1)
		dst = append(dst, 0)
		dst = be.AppendUint16(dst, typeOPT)
		dst = be.AppendUint16(dst, maxUDP)
		flags := uint32(a.rcode>>4) << 24
		if q.do {
			flags |= 0x8000
		}
		dst = be.AppendUint32(dst, flags)
		dst = be.AppendUint16(dst, 0)
	}
	return dst
}

// appendName appends the wire form of a name.
func appendName(b []byte, name string) ([]byte, bool) {
	begin := len(b)
	for len(name) > 0 {
		l := 0
		for l < len(name) && name[l] != '.' {
			l++
		}
		if l == 0 || l > 63 {
			return b, false
		}
		b = append(append(b, byte(l)), name[:l]...)
		name = name[min(l+1, len(name)):]
	}
	b = append(b, 0)
	return b, len(b)-begin <= maxName
}

// parseReverse returns the address that a name below in-addr.arpa or ip6.arpa is
// for.
func parseReverse(name string) (netip.Addr, bool) {
	const v4, v6 = ".in-addr.arpa", ".ip6.arpa"
	switch {
	case len(name) > len(v4) && name[len(name)-len(v4):] == v4:
		a, err := netip.ParseAddr(name[:len(name)-len(v4)])
		if err != nil || !a.Is4() {
			return netip.Addr{}, false
		}
		d := a.As4()
		return netip.AddrFrom4([4]byte{d[3], d[2], d[1], d[0]}), true
	case len(name) == 63+len(v6) && name[63:] == v6:
		var d [16]byte
		for i := range 32 {
			c, n := name[2*i], byte(0)
			switch {
			case '0' <= c && c <= '9':
				n = c - '0'
			case 'a' <= c && c <= 'f':
				n = c - 'a' + 10
			default:
				return netip.Addr{}, false
			}
			if i < 31 && name[2*i+1] != '.' {
				return netip.Addr{}, false
			}
			at := 31 - i // of the nibble, from the left
			d[at/2] |= n << (4 * (1 - at%2))
		}
		return netip.AddrFrom16(d), true
	}
	return netip.Addr{}, false
}
