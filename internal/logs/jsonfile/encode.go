package jsonfile

import (
	"time"
	"unicode/utf8"
)

// A stamp renders times. Those of the lines of one read are the same, and
// rendering one costs more than the rest of a short line.
type stamp struct {
	at   time.Time
	text []byte
}

func (s *stamp) append(b []byte, at time.Time) []byte {
	if s.text == nil || at != s.at {
		s.at, s.text = at, at.UTC().AppendFormat(s.text[:0], time.RFC3339Nano)
	}
	return append(b, s.text...)
}

// appendEntry renders one entry with its newline.
func appendEntry(b []byte, stream, attrs string, line []byte, at time.Time) []byte {
	return appendStamped(b, stream, attrs, line, at, &stamp{})
}

func appendStamped(b []byte, stream, attrs string, line []byte, at time.Time, s *stamp) []byte {
	b = append(b, `{"log":`...)
	b = appendString(b, line)
	b = append(b, `,"stream":"`...)
	b = append(b, stream...)
	b = append(b, `",`...)
	b = append(b, attrs...)
	b = append(b, `"time":"`...)
	b = s.append(b, at)
	return append(b, "\"}\n"...)
}

const hex = "0123456789abcdef"

// plain says which bytes stand for themselves.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// appendString renders s as a JSON string the way Docker's json-file driver
// does: safe inside HTML, invalid UTF-8 as U+FFFD, and of the control
// characters only newline and return in their short form.
func appendString(b, s []byte) []byte {
	b = append(b, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[done:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, `\n`...)
			case '\r':
				b = append(b, `\r`...)
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			done = i
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(append(b, s[done:i]...), `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			b = append(append(b, s[done:i]...), `\u202`...)
			b = append(b, hex[r&15])
		default:
			i += n
			continue
		}
		i += n
		done = i
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}
