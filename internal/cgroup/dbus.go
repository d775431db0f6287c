package cgroup

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
)

// The little of the D-Bus protocol that asking systemd for a scope takes:
// EXTERNAL authentication, one method call, its reply. Source: D-Bus
// Specification 0.43, "Authentication Protocol" and "Message Protocol".

// busAuth authenticates by the credentials of the socket.
func busAuth(c io.ReadWriter) error {
	uid := fmt.Sprintf("%x", fmt.Sprint(os.Getuid()))
	if _, err := io.WriteString(c, "\x00AUTH EXTERNAL "+uid+"\r\n"); err != nil {
		return err
	}
	// One byte at a time: what follows the line is not ours to buffer.
	var line []byte
	for b := make([]byte, 1); len(line) < 512; {
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		if line = append(line, b[0]); b[0] == '\n' {
			break
		}
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return fmt.Errorf("authentication refused: %q", line)
	}
	_, err := io.WriteString(c, "BEGIN\r\n")
	return err
}

const (
	busMethodCall   = 1
	busMethodReturn = 2
	busErrorReply   = 3
)

// Header field codes.
const (
	busPath, busInterface, busMember, busErrorName, busReplySerial, busDestination, busSignature = 1, 2, 3, 4, 5, 6, 8
)

// A busWriter marshals values; every type is aligned to its own size.
type busWriter struct{ b []byte }

func (w *busWriter) align(n int) {
	for len(w.b)%n != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *busWriter) u32(v uint32) {
	w.align(4)
	w.b = binary.LittleEndian.AppendUint32(w.b, v)
}

func (w *busWriter) str(s string) {
	w.u32(uint32(len(s)))
	w.b = append(append(w.b, s...), 0)
}

func (w *busWriter) sig(s string) { w.b = append(append(append(w.b, byte(len(s))), s...), 0) }

// array writes the elements that fill writes, which are aligned to n bytes.
func (w *busWriter) array(n int, fill func()) {
	w.u32(0)
	at := len(w.b) - 4
	w.align(n)
	start := len(w.b)
	fill()
	binary.LittleEndian.PutUint32(w.b[at:], uint32(len(w.b)-start))
}

// value writes one of the types that the calls here use.
func (w *busWriter) value(v any) {
	switch v := v.(type) {
	case string:
		w.str(v)
	case bool:
		n := uint32(0)
		if v {
			n = 1
		}
		w.u32(n)
	case uint32:
		w.u32(v)
	case uint64:
		w.align(8)
		w.b = binary.LittleEndian.AppendUint64(w.b, v)
	case []uint32:
		w.array(4, func() {
			for _, n := range v {
				w.u32(n)
			}
		})
	case []struct{}: // an empty array of structures
		w.array(8, func() {})
	case []property:
		w.array(8, func() {
			for _, p := range v {
				w.align(8)
				w.str(p.name)
				w.sig(p.sig)
				w.value(p.value)
			}
		})
	default:
		panic(fmt.Sprintf("cgroup: no D-Bus form for %T", v))
	}
}

// busCall builds a call of a method of systemd's manager.
func busCall(method, sig string, args []any) []byte {
	var body busWriter
	for _, a := range args {
		body.value(a)
	}
	h := busWriter{b: []byte{'l', busMethodCall, 0, 1}}
	h.u32(uint32(len(body.b)))
	h.u32(1) // serial
	h.array(8, func() {
		field := func(code byte, typ, v string) {
			h.align(8)
			h.b = append(h.b, code)
			h.sig(typ)
			if typ == "g" {
				h.sig(v)
			} else {
				h.str(v)
			}
		}
		field(busPath, "o", "/org/freedesktop/systemd1")
		field(busDestination, "s", "org.freedesktop.systemd1")
		field(busInterface, "s", "org.freedesktop.systemd1.Manager")
		field(busMember, "s", method)
		field(busSignature, "g", sig)
	})
	h.align(8)
	return append(h.b, body.b...)
}

// A busError is an error reply.
type busError struct{ name, text string }

func (e *busError) Error() string { return e.text + " (" + e.name + ")" }

// maxBusMessage bounds what is read of one message.
const maxBusMessage = 1 << 20

// busReply reads messages until the reply to the call of serial 1.
func busReply(r io.Reader) error {
	br := bufio.NewReader(r)
	for {
		typ, name, serial, body, err := readBusMessage(br)
		switch {
		case err != nil:
			return fmt.Errorf("read systemd's answer: %w", err)
		case serial != 1:
		case typ == busMethodReturn:
			return nil
		case typ == busErrorReply:
			text := name
			if len(body) >= 4 {
				if n := binary.LittleEndian.Uint32(body); uint64(n)+4 <= uint64(len(body)) {
					text = string(body[4 : 4+n])
				}
			}
			return &busError{name, text}
		}
	}
}

// readBusMessage reads one little-endian message and the fields of its header
// that a reply is told by.
func readBusMessage(r io.Reader) (typ byte, errName string, replyTo uint32, body []byte, err error) {
	fixed := make([]byte, 16)
	if _, err = io.ReadFull(r, fixed); err != nil {
		return
	}
	bodyLen, fields := binary.LittleEndian.Uint32(fixed[4:]), binary.LittleEndian.Uint32(fixed[12:])
	if fixed[0] != 'l' || bodyLen > maxBusMessage || fields > maxBusMessage {
		err = fmt.Errorf("message in a form that is not understood (%q, %d and %d bytes)", fixed[0], fields, bodyLen)
		return
	}
	rest := make([]byte, (fields+7)/8*8+bodyLen)
	if _, err = io.ReadFull(r, rest); err != nil {
		return
	}
	errName, replyTo = busFields(rest[:fields])
	return fixed[1], errName, replyTo, rest[(fields+7)/8*8:], nil
}

// busFields picks error name and reply serial out of a header's fields, each a
// code, a signature of one type, and its value. It stops at what it can't read.
func busFields(b []byte) (errName string, replyTo uint32) {
	for at := 0; at+4 <= len(b); at = (at + 7) / 8 * 8 {
		code, typ := b[at], b[at+2]
		at += 4 // code, signature's length, one character, zero
		if typ == 'g' {
			if at >= len(b) {
				return
			}
			at += int(b[at]) + 2
			continue
		}
		if at+4 > len(b) {
			return
		}
		n := binary.LittleEndian.Uint32(b[at:])
		at += 4
		switch typ {
		case 'u':
			if code == busReplySerial {
				replyTo = n
			}
		case 's', 'o':
			if uint64(at)+uint64(n) > uint64(len(b)) {
				return
			}
			if code == busErrorName {
				errName = string(b[at : at+int(n)])
			}
			at += int(n) + 1
		default:
			return
		}
	}
	return
}
