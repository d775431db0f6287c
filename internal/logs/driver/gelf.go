package driver

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"gantry/internal/logs"
	"gantry/internal/plan"
)

// GELF over UDP: a message that does not fit into a datagram goes in chunks.
const (
	gelfChunk  = 1420 // bytes of a datagram, which fits any path
	gelfHead   = 12
	gelfChunks = 128 // at most
)

// gelf sends to a Graylog server, GELF 1.1.
type gelf struct {
	link
	host  string
	extra []byte // the fields that are always the same, as JSON members with a comma before
	kind  string
	level int
}

func newGELF(info plan.LogInfo) (Sender, error) {
	o := info.Options
	addr, err := plan.GELFAddress(o["gelf-address"])
	if err != nil {
		return nil, err
	}
	g := &gelf{link: link{proto: addr.Proto, addr: addr.Addr}, kind: o["gelf-compression-type"], level: gzip.BestSpeed}
	if g.host, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("gelf: cannot access hostname to set source field")
	}
	tag, err := info.Tag("{{.ID}}")
	if err != nil {
		return nil, err
	}
	attrs, err := info.Attrs()
	if err != nil {
		return nil, err
	}
	if v, ok := o["gelf-compression-level"]; ok {
		if g.level, err = strconv.Atoi(v); err != nil {
			return nil, fmt.Errorf("gelf: invalid compression level %s, err %w", v, err)
		}
	}
	extra := map[string]any{
		"_container_id": info.ContainerID, "_container_name": info.ContainerName, "_image_id": info.ImageDigest,
		"_image_name": info.Image, "_command": info.Command(), "_tag": tag, "_created": info.Created,
	}
	for k, v := range attrs {
		if k == "" || k[0] != '_' {
			k = "_" + k
		}
		extra[k] = v
	}
	text, err := json.Marshal(extra)
	if err != nil {
		return nil, err
	}
	g.extra = append([]byte{','}, text[1:]...) // with the closing brace
	return g, nil
}

func (g *gelf) Doubt() time.Duration {
	if g.proto == "tcp" {
		return doubt
	}
	return 0
}

func (g *gelf) render(b []byte, m *Message) ([]byte, error) {
	level := severityInfo
	if m.Stream == logs.Stderr {
		level = severityError
	}
	host, err := json.Marshal(g.host)
	if err != nil {
		return b, err
	}
	short, err := json.Marshal(string(m.Line))
	if err != nil {
		return b, err
	}
	ms := m.Time.UnixMilli()
	b = fmt.Appendf(b, `{"version":"1.1","host":%s,"short_message":%s,"timestamp":%d.%03d,"level":%d`, host, short, ms/1000, ms%1000, level)
	return append(b, g.extra...), nil
}

func (g *gelf) Send(ctx context.Context, batch []Message) error {
	var out []byte
	var err error
	for i := range batch {
		if len(batch[i].Line) == 0 {
			continue // a message must not be empty
		}
		if out, err = g.render(out, &batch[i]); err != nil {
			return err
		}
		if g.proto == "tcp" {
			out = append(out, 0)
			continue
		}
		if err := g.datagrams(ctx, out); err != nil {
			return err
		}
		out = out[:0]
	}
	if len(out) == 0 {
		return nil
	}
	return g.write(ctx, out)
}

// datagrams sends one message over UDP.
func (g *gelf) datagrams(ctx context.Context, text []byte) error {
	b, err := g.compressed(text)
	if err != nil {
		return err
	}
	if len(b) <= gelfChunk {
		return g.write(ctx, b)
	}
	const room = gelfChunk - gelfHead
	n := (len(b) + room - 1) / room
	if n > gelfChunks {
		return nil // no server would take it
	}
	head := []byte{0x1e, 0x0f}
	head = append(head, make([]byte, 8)...)
	_, _ = rand.Read(head[2:])
	for i := range n {
		part := b[i*room : min((i+1)*room, len(b))]
		if err := g.write(ctx, append(append(head[:10:10], byte(i), byte(n)), part...)); err != nil {
			return err
		}
	}
	return nil
}

func (g *gelf) compressed(text []byte) ([]byte, error) {
	if g.kind == "none" {
		return text, nil
	}
	var b bytes.Buffer
	var z io.WriteCloser
	var err error
	if g.kind == "zlib" {
		z, err = zlib.NewWriterLevel(&b, g.level)
	} else {
		z, err = gzip.NewWriterLevel(&b, g.level)
	}
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (g *gelf) Finish(ctx context.Context) error { return ignoreGone(g.finish(ctx)) }
