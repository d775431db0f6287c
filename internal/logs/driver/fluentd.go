package driver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"gantry/internal/plan"
)

// fluentd speaks the forward protocol, version 1, in its Forward mode:
// [tag, [[time, record], …], options], all in MessagePack.
type fluentd struct {
	link
	tag     string
	fixed   map[string]string
	ack     bool
	precise bool
	replies *bufio.Reader
}

func newFluentd(info plan.LogInfo) (Sender, error) {
	o := info.Options
	addr, err := plan.FluentdAddress(o["fluentd-address"])
	if err != nil {
		return nil, err
	}
	f := &fluentd{link: link{proto: addr.Proto, addr: addr.Addr}}
	if f.tag, err = info.Tag("{{.ID}}"); err != nil {
		return nil, err
	}
	if f.fixed, err = info.Attrs(); err != nil {
		return nil, err
	}
	f.fixed["container_id"], f.fixed["container_name"] = info.ContainerID, "/"+info.ContainerName
	f.ack, _ = strconv.ParseBool(o["fluentd-request-ack"])
	f.precise, _ = strconv.ParseBool(o["fluentd-sub-second-precision"])
	f.answers = f.ack
	if addr.Proto == "tls" {
		if f.tls, err = tlsConfig("", "", ""); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *fluentd) Doubt() time.Duration {
	if f.ack {
		return 0
	}
	return doubt
}

func (f *fluentd) Send(ctx context.Context, batch []Message) error {
	chunk := ""
	if f.ack {
		var id [16]byte
		_, _ = rand.Read(id[:])
		chunk = base64.StdEncoding.EncodeToString(id[:])
	}
	b := f.render(batch, chunk)
	fresh := f.conn == nil
	conn, err := f.get(ctx)
	if err != nil {
		return err
	}
	if fresh {
		f.replies = bufio.NewReader(conn)
	}
	return f.guard(ctx, conn, func() error {
		if _, err := conn.Write(b); err != nil || !f.ack {
			return err
		}
		got, err := readAck(f.replies)
		if err == nil && got != chunk {
			err = fmt.Errorf("fluentd acknowledged %q, not %q", got, chunk)
		}
		return err
	})
}

func (f *fluentd) render(batch []Message, chunk string) []byte {
	b := packString([]byte{0x93}, f.tag)
	b = packSize(b, len(batch), 0x90, 0xdc)
	for i := range batch {
		m := &batch[i]
		b = append(b, 0x92)
		if f.precise { // EventTime
			b = append(b, 0xd7, 0)
			b = binary.BigEndian.AppendUint32(b, uint32(m.Time.Unix()))
			b = binary.BigEndian.AppendUint32(b, uint32(m.Time.Nanosecond()))
		} else {
			b = binary.BigEndian.AppendUint32(append(b, 0xce), uint32(m.Time.Unix()))
		}
		size := len(f.fixed) + 2
		if m.Partial != nil {
			size += 4
		}
		b = packSize(b, size, 0x80, 0xde)
		for _, k := range slices.Sorted(maps.Keys(f.fixed)) {
			b = packString(packString(b, k), f.fixed[k])
		}
		b = packString(packString(b, "source"), m.Stream)
		b = packString(packString(b, "log"), string(m.Line))
		if p := m.Partial; p != nil {
			b = packString(packString(b, "partial_message"), "true")
			b = packString(packString(b, "partial_id"), p.ID)
			b = packString(packString(b, "partial_ordinal"), strconv.Itoa(p.Ordinal))
			b = packString(packString(b, "partial_last"), strconv.FormatBool(p.Last))
		}
	}
	if chunk == "" {
		b = append(b, 0x81)
	} else {
		b = packString(packString(append(b, 0x82), "chunk"), chunk)
	}
	b = packString(b, "size")
	return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(len(batch)))
}

// packSize appends the head of an array or a map: the byte of the short form,
// and of the one with 16 bits, of which the one with 32 is the next.
func packSize(b []byte, n int, short, long byte) []byte {
	switch {
	case n < 16:
		return append(b, short|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, long), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, long+1), uint32(n))
}

func packString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

var errAck = errors.New("fluentd sent no acknowledgment")

// readAck reads {"ack": chunk} and returns the chunk.
func readAck(r *bufio.Reader) (string, error) {
	head, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	if head&0xf0 != 0x80 || head == 0x80 {
		return "", errAck
	}
	found := ""
	for range int(head & 0x0f) {
		k, err := readString(r)
		if err != nil {
			return "", err
		}
		v, err := readString(r)
		if err != nil {
			return "", err
		}
		if bytes.Equal(k, []byte("ack")) {
			found = string(v)
		}
	}
	return found, nil
}

func readString(r *bufio.Reader) ([]byte, error) {
	head, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	n := 0
	switch {
	case head&0xe0 == 0xa0:
		n = int(head & 0x1f)
	case head == 0xd9 || head == 0xc4:
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		n = int(b)
	default:
		return nil, errAck
	}
	out := make([]byte, n)
	for i := range out {
		if out[i], err = r.ReadByte(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *fluentd) Finish(ctx context.Context) error { return ignoreGone(f.finish(ctx)) }
