package term

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrDetached is what a DetachReader returns when the keys were typed.
var ErrDetached = errors.New("read escape sequence")

// DefaultDetachKeys is ctrl-p ctrl-q.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ParseKeys turns "ctrl-p,ctrl-q" or "ctrl-@,x" into the bytes that a terminal
// sends. The grammar is the docker CLI's: keys separated by commas, each one
// character or ctrl- with a letter or one of @ [ \ ] ^ _.
func ParseKeys(s string) ([]byte, error) {
	var out []byte
	for key := range strings.SplitSeq(s, ",") {
		b, ok := keyByte(key)
		if !ok {
			return nil, fmt.Errorf("invalid detach keys (%s): Unknown character: '%s'", s, key)
		}
		out = append(out, b)
	}
	return out, nil
}

func keyByte(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	c, ok := strings.CutPrefix(key, "ctrl-")
	if !ok || len(c) != 1 {
		return 0, false
	}
	switch b := c[0]; {
	case b >= 'a' && b <= 'z':
		return b - 'a' + 1, true
	case b >= 'A' && b <= 'Z':
		return b - 'A' + 1, true
	case b == '@':
		return 0, true
	case b >= '[' && b <= '_':
		return b - '[' + 27, true
	}
	return 0, false
}

// DetachReader passes r through until keys come in a row; then it ends with
// ErrDetached. A beginning of the keys is held back until it is known not to be
// the keys.
type DetachReader struct {
	r    io.Reader
	keys []byte
	seen int    // how many of keys have come
	out  []byte // ready to be read
	err  error
	buf  [4096]byte
}

// NewDetachReader returns a reader of r that watches for keys. With no keys it
// passes everything through.
func NewDetachReader(r io.Reader, keys []byte) *DetachReader {
	return &DetachReader{r: r, keys: keys}
}

// Read reads what was typed, without the detach keys.
func (d *DetachReader) Read(p []byte) (int, error) {
	for len(d.out) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		n, err := d.r.Read(d.buf[:])
		d.take(d.buf[:n])
		if d.err == nil && err != nil {
			d.out = append(d.out, d.keys[:d.seen]...)
			d.seen, d.err = 0, err
		}
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	return n, nil
}

func (d *DetachReader) take(b []byte) {
	if len(d.keys) == 0 {
		d.out = append(d.out, b...)
		return
	}
	for _, c := range b {
		if c != d.keys[d.seen] {
			d.out = append(d.out, d.keys[:d.seen]...)
			d.seen = 0
			if c != d.keys[0] {
				d.out = append(d.out, c)
				continue
			}
		}
		if d.seen++; d.seen == len(d.keys) {
			d.seen, d.err = 0, ErrDetached
			return
		}
	}
}
