package dns

import "bytes"

// response is an answer of a name server elsewhere that has been looked through.
type response struct {
	raw   []byte
	ttls  []uint16 // where the times to live are
	ttl   uint32   // for how long it may be kept, in seconds; 0: not at all
	rcode int
	cut   bool // it did not fit
}

// The longest times to live that are believed, in seconds.
const (
	maxTTL         = 3600
	maxNegativeTTL = 300 // RFC 2308, 5: one to three hours at most
)

// readResponse looks an answer to q through. What is no answer to it, by its
// number id and its question, is not ok.
func readResponse(b []byte, id uint16, q *query) (response, bool) {
	r := response{raw: b}
	if len(b) < q.end || len(b) > maxTCP || be.Uint16(b) != id {
		return r, false
	}
	flags := be.Uint16(b[2:])
	if flags&flagQR == 0 || flags&opcode != 0 || be.Uint16(b[4:]) != 1 || !sameQuestion(b, q) {
		return r, false
	}
	r.rcode, r.cut = int(flags&0xf), flags&flagTC != 0
	an, ns, ar := int(be.Uint16(b[6:])), int(be.Uint16(b[8:])), int(be.Uint16(b[10:]))
	at, least, negative := q.end, uint32(maxTTL), uint32(0)
	for i := range an + ns + ar {
		rec, next, ok := readRecord(b, at)
		if !ok {
			return r, r.cut // whoever gets it asks again by TCP
		}
		at = next
		if rec.kind == typeOPT {
			continue // its place for a time to live has something else
		}
		r.ttls = append(r.ttls, uint16(rec.ttlAt))
		t := rec.ttl
		if t > 1<<31-1 { // RFC 2181, 8
			t = 0
		}
		if i < an+ns {
			least = min(least, t)
		}
		if rec.kind == typeSOA && i >= an && i < an+ns && next-rec.data >= 4 {
			negative = min(t, be.Uint32(b[next-4:]), maxNegativeTTL)
		}
	}
	switch {
	case r.cut:
	case r.rcode == rcodeOK && an > 0:
		r.ttl = least
	case r.rcode == rcodeOK || r.rcode == rcodeNoName:
		r.ttl = min(least, negative)
	}
	return r, true
}

// sameQuestion compares the questions, names without regard to case.
func sameQuestion(b []byte, q *query) bool {
	name := q.end - questionFixed
	for i := headerLen; i < name; i++ {
		if lower(b[i]) != lower(q.raw[i]) {
			return false
		}
	}
	return bytes.Equal(b[name:q.end], q.raw[name:q.end])
}

// render makes the answer to q of it, age seconds later, into dst: the number,
// the flags and the letters of the question are the client's. If it has more
// than limit bytes only that is said.
func (r *response) render(dst []byte, q *query, age uint32, limit int) []byte {
	dst = append(dst[:0], r.raw...)
	copy(dst, q.raw[:2])
	flags := be.Uint16(dst[2:])&^uint16(flagRD|flagCD) | flagRA | q.flags&(flagRD|flagCD)
	copy(dst[headerLen:], q.raw[headerLen:q.end])
	for _, at := range r.ttls {
		be.PutUint32(dst[at:], max(be.Uint32(dst[at:]), age)-age)
	}
	if len(dst) > limit || r.cut {
		dst = q.reply(dst, answers{rcode: r.rcode}, limit)
		flags = be.Uint16(dst[2:]) | flagTC
	}
	be.PutUint16(dst[2:], flags)
	return dst
}
