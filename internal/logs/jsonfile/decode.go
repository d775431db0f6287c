package jsonfile

import (
	"errors"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"gantry/internal/logs"
	"gantry/internal/logs/files"
)

var errSyntax = errors.New("not a log entry")

func decodeRecord(_ *files.Head, record, buf []byte, e *logs.Entry) ([]byte, error) {
	return decodeEntry(record, buf, e)
}

// decodeEntry parses one line of a log file into e. It takes any JSON object
// of strings and objects of strings, in any order, so it also reads what
// another json-file writer has written. The line is appended to buf.
func decodeEntry(line, buf []byte, e *logs.Entry) ([]byte, error) {
	d := decoder{in: line}
	*e = logs.Entry{}
	if !d.take('{') {
		return buf, errSyntax
	}
	timed := false
	for first := true; !d.take('}'); first = false {
		if !first && !d.take(',') {
			return buf, errSyntax
		}
		key, err := d.str(d.tmp[:0])
		if err != nil || !d.take(':') {
			return buf, errSyntax
		}
		switch string(key) {
		case "log":
			from := len(buf)
			if buf, err = d.str(buf); err == nil {
				e.Line = buf[from:]
			}
		case "stream":
			var s []byte
			s, err = d.str(d.tmp[:0])
			e.Stream = streamName(s)
		case "time":
			var s []byte
			if s, err = d.str(d.tmp[:0]); err == nil {
				e.Time, err = time.Parse(time.RFC3339Nano, string(s))
				timed = err == nil
			}
		case "attrs":
			e.Attrs, err = d.object()
		default:
			_, err = d.str(d.tmp[:0])
		}
		if err != nil {
			return buf, err
		}
	}
	if !d.end() || !timed {
		return buf, errSyntax
	}
	e.Partial = len(e.Line) == 0 || e.Line[len(e.Line)-1] != '\n'
	return buf, nil
}

// streamName spares an allocation an entry.
func streamName(s []byte) string {
	switch string(s) {
	case logs.Stdout:
		return logs.Stdout
	case logs.Stderr:
		return logs.Stderr
	}
	return string(s)
}

type decoder struct {
	in  []byte
	at  int
	tmp [64]byte // for short strings that are only looked at
}

func (d *decoder) space() {
	for d.at < len(d.in) {
		switch d.in[d.at] {
		case ' ', '\t', '\r', '\n':
			d.at++
		default:
			return
		}
	}
}

func (d *decoder) take(c byte) bool {
	d.space()
	if d.at < len(d.in) && d.in[d.at] == c {
		d.at++
		return true
	}
	return false
}

func (d *decoder) end() bool {
	d.space()
	return d.at == len(d.in)
}

func (d *decoder) object() (map[string]string, error) {
	if !d.take('{') {
		return nil, errSyntax
	}
	m := map[string]string{}
	for !d.take('}') {
		if len(m) > 0 && !d.take(',') {
			return nil, errSyntax
		}
		k, err := d.str(nil)
		if err != nil || !d.take(':') {
			return nil, errSyntax
		}
		v, err := d.str(nil)
		if err != nil {
			return nil, err
		}
		m[string(k)] = string(v)
	}
	return m, nil
}

// str parses a string and appends it to b.
func (d *decoder) str(b []byte) ([]byte, error) {
	if !d.take('"') {
		return b, errSyntax
	}
	for from := d.at; d.at < len(d.in); {
		switch c := d.in[d.at]; {
		case c == '"':
			b = append(b, d.in[from:d.at]...)
			d.at++
			return b, nil
		case c < 0x20:
			return b, errSyntax
		case c != '\\':
			d.at++
		default:
			b = append(b, d.in[from:d.at]...)
			var err error
			if b, err = d.escape(b); err != nil {
				return b, err
			}
			from = d.at
		}
	}
	return b, errSyntax
}

func (d *decoder) escape(b []byte) ([]byte, error) {
	if d.at+1 >= len(d.in) {
		return b, errSyntax
	}
	c := d.in[d.at+1]
	d.at += 2
	switch c {
	case '"', '\\', '/':
		return append(b, c), nil
	case 'n':
		return append(b, '\n'), nil
	case 'r':
		return append(b, '\r'), nil
	case 't':
		return append(b, '\t'), nil
	case 'b':
		return append(b, '\b'), nil
	case 'f':
		return append(b, '\f'), nil
	case 'u':
		r, ok := d.hex4()
		if !ok {
			return b, errSyntax
		}
		if utf16.IsSurrogate(r) {
			r = d.lowSurrogate(r)
		}
		return utf8.AppendRune(b, r), nil
	}
	return b, errSyntax
}

func (d *decoder) lowSurrogate(high rune) rune {
	if d.at+1 < len(d.in) && d.in[d.at] == '\\' && d.in[d.at+1] == 'u' {
		at := d.at
		d.at += 2
		if low, ok := d.hex4(); ok {
			if r := utf16.DecodeRune(high, low); r != utf8.RuneError {
				return r
			}
		}
		d.at = at
	}
	return utf8.RuneError
}

func (d *decoder) hex4() (rune, bool) {
	if d.at+4 > len(d.in) {
		return 0, false
	}
	var r rune
	for _, c := range d.in[d.at : d.at+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	d.at += 4
	return r, true
}
