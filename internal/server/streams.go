package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gantry/internal/container"
	"gantry/internal/errs"
	"gantry/internal/logs"
	"gantry/internal/shim"
)

// Stream numbers of a frame.
const (
	stdoutFrame byte = 1
	stderrFrame byte = 2
)

// frameHead is the head of a frame: stream number, three zeros, the payload's
// length as uint32, big endian.
func frameHead(stream byte, n int) []byte {
	return binary.BigEndian.AppendUint32([]byte{stream, 0, 0, 0}, uint32(n))
}

// streams answers what turns a connection into a container's streams.
type streams struct {
	engine Streams
	ctx    context.Context // ends the streams
}

func (s *streams) routes() []route {
	return []route{
		{method: "GET", pattern: "/containers/{name}/logs", serve: s.logs},
		{method: "GET", pattern: "/containers/{name}/attach/ws", serve: s.socket},
		{method: "POST", pattern: "/containers/{name}/attach", serve: s.attach},
	}
}

// attachOptions reads the query of both forms of attach.
func attachOptions(r *request) container.AttachOptions {
	return container.AttachOptions{
		Streams:    shim.Streams{Stdin: r.flag("stdin"), Stdout: r.flag("stdout"), Stderr: r.flag("stderr")},
		Stream:     r.flag("stream"),
		Logs:       r.flag("logs"),
		DetachKeys: r.query.Get("detachKeys"),
	}
}

// attach turns the connection into the container's streams. The head
// is sent when the attachment stands, so that a client which then starts the
// container misses nothing. Errors are not JSON here.
func (s *streams) attach(w http.ResponseWriter, r *request) error {
	o := attachOptions(r)
	att, err := s.engine.Attach(r.Context(), r.name, o)
	if err != nil {
		status := statusOf(err)
		head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\n\r\n%v\r\n", status, http.StatusText(status), rawStream, err)
		conn, herr := hijack(w, head)
		if herr != nil {
			return herr
		}
		closeWrite(conn.conn)
		return conn.conn.Close()
	}
	conn, err := hijack(w, streamHead(r, streamType(r, att.TTY), nil))
	if err != nil {
		att.Close()
		return err
	}
	in := inputNone
	if o.Stdin && o.Stream {
		in = inputClient
	}
	conn.pump(s.ctx, att, in)
	return nil
}

// logOptions reads the query of a log request.
func logOptions(r *request) (o container.LogOptions, err error) {
	o = container.LogOptions{
		Stdout: r.flag("stdout"), Stderr: r.flag("stderr"),
		Follow: r.flag("follow"), Timestamps: r.flag("timestamps"), Details: r.flag("details"),
		Tail: -1,
	}
	if !o.Stdout && !o.Stderr {
		return o, errs.New(errs.Invalid, "must specify at least one of 'stdout' or 'stderr'")
	}
	if n, err := strconv.Atoi(r.query.Get("tail")); err == nil {
		o.Tail = n // what is no number means all
	}
	if o.Since, err = parseTime(r.query.Get("since")); err != nil {
		return o, errs.New(errs.Invalid, "invalid value for \"since\": %w", err)
	}
	// Clients send 0 for no bound.
	if until := r.query.Get("until"); until != "" && until != "0" {
		if o.Until, err = parseTime(until); err != nil {
			return o, errs.New(errs.Invalid, "invalid value for \"until\": %w", err)
		}
	}
	return o, nil
}

func (s *streams) logs(w http.ResponseWriter, r *request) error {
	o, err := logOptions(r)
	if err != nil {
		return err
	}
	ls, err := s.engine.Logs(r.Context(), r.name, o)
	if err != nil {
		return err
	}
	kind := rawStream
	if !ls.TTY && r.v >= framedSince {
		kind = multiplexed
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	flush(w)
	return writeLog(w, ls.Entries(r.Context()), o, framing(ls.TTY))
}

// A framing says whether log lines are sent in frames.
type framing bool // true: raw, as a terminal's

// promptEntries is how many entries of a log that is not followed are sent one by
// one. A long one is read to its end anyway, and faster in larger pieces.
const promptEntries = 64

// writeLog sends each entry as soon as it is there.
func writeLog(w http.ResponseWriter, list entries, o container.LogOptions, raw framing) error {
	var line []byte
	sent := 0
	for e, err := range list {
		if err != nil {
			return err
		}
		if e.Stream == logs.Stderr && (!o.Stderr || bool(raw)) || e.Stream != logs.Stderr && !o.Stdout {
			continue
		}
		line = line[:0]
		if !raw {
			line = append(line, 0, 0, 0, 0, 0, 0, 0, 0)
		}
		line = appendLogLine(line, e, o)
		if !raw {
			line[0] = stdoutFrame
			if e.Stream == logs.Stderr {
				line[0] = stderrFrame
			}
			binary.BigEndian.PutUint32(line[4:], uint32(len(line)-8))
		}
		if _, err := w.Write(line); err != nil {
			return nil // the client is gone: nobody to tell
		}
		if sent++; o.Follow || sent < promptEntries {
			flush(w)
		}
	}
	return nil
}

// timeFixed is RFC 3339 with all nine digits, so that times sort as text.
const timeFixed = "2006-01-02T15:04:05.000000000Z07:00"

// appendLogLine renders an entry: time and attributes first if asked for.
func appendLogLine(b []byte, e logs.Entry, o container.LogOptions) []byte {
	if o.Timestamps {
		b = e.Time.UTC().AppendFormat(b, timeFixed)
		b = append(b, ' ')
	}
	if o.Details {
		b = append(b, attrText(e.Attrs)...)
		b = append(b, ' ')
	}
	return append(b, e.Line...)
}

func attrText(attrs map[string]string) string {
	parts := make([]string, 0, len(attrs))
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		parts = append(parts, url.QueryEscape(key)+"="+url.QueryEscape(attrs[key]))
	}
	return strings.Join(parts, ",")
}
