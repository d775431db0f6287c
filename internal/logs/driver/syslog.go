package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"gantry/internal/logs"
	"gantry/internal/plan"
)

// Severities, RFC 5424 section 6.2.1.
const (
	severityError = 3
	severityInfo  = 6
)

// syslog sends to a syslog server, RFC 3164 and 5424, or to the host's.
type syslog struct {
	link
	facility int
	format   string
	tag      string
	host     string
	pid      string
}

func newSyslog(info plan.LogInfo) (Sender, error) {
	o := info.Options
	tag, err := info.Tag("{{.ID}}")
	if err != nil {
		return nil, err
	}
	addr, err := plan.SyslogAddress(o["syslog-address"])
	if err != nil {
		return nil, err
	}
	s := &syslog{link: link{proto: addr.Proto, addr: addr.Addr}, format: o["syslog-format"], tag: tag, pid: strconv.Itoa(os.Getpid())}
	if s.facility, err = plan.SyslogFacility(o["syslog-facility"]); err != nil {
		return nil, err
	}
	if s.host, err = os.Hostname(); err != nil {
		return nil, err
	}
	if addr.Proto == "tcp+tls" {
		if s.tls, err = tlsConfig(o["syslog-tls-ca-cert"], o["syslog-tls-cert"], o["syslog-tls-key"]); err != nil {
			return nil, err
		}
		_, s.tls.InsecureSkipVerify = o["syslog-tls-skip-verify"]
	}
	return s, nil
}

// stream says whether messages are told apart by newlines or lengths.
func (s *syslog) stream() bool {
	return s.proto == "tcp" || s.proto == "tcp+tls" || s.proto == "unix" && !s.datagram()
}

func (s *syslog) datagram() bool {
	_, ok := s.conn.(*net.UnixConn)
	return ok && s.conn.RemoteAddr().Network() == "unixgram"
}

func (s *syslog) Doubt() time.Duration {
	if s.proto == "tcp" || s.proto == "tcp+tls" {
		return doubt
	}
	return 0
}

// locate finds the socket of the host's syslog. A Unix socket may be of either
// kind.
func (s *syslog) locate(ctx context.Context) error {
	if s.conn != nil || s.proto != "" && s.proto != "unix" && s.proto != "unixgram" {
		return nil
	}
	paths := []string{s.addr}
	if s.addr == "" {
		paths = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}
	}
	var all []error
	for _, proto := range []string{"unixgram", "unix"} {
		for _, path := range paths {
			l := link{proto: proto, addr: path}
			if _, err := l.get(ctx); err != nil {
				all = append(all, err)
				continue
			}
			s.conn, s.gone = l.conn, l.gone
			return nil
		}
	}
	return errors.Join(all...)
}

func (s *syslog) Send(ctx context.Context, batch []Message) error {
	if err := s.locate(ctx); err != nil {
		return err
	}
	var out []byte
	for i := range batch {
		if len(batch[i].Line) == 0 {
			continue
		}
		if !s.stream() {
			if err := s.write(ctx, s.render(nil, &batch[i])); err != nil {
				return err
			}
			continue
		}
		text := s.render(nil, &batch[i])
		if s.proto == "tcp+tls" && (s.format == "rfc5424" || s.format == "rfc5424micro") {
			out = append(strconv.AppendInt(out, int64(len(text)), 10), ' ') // RFC 5425 section 4.3
		}
		out = append(out, text...)
	}
	if len(out) == 0 {
		return nil
	}
	return s.write(ctx, out)
}

// render appends a message with its newline.
func (s *syslog) render(b []byte, m *Message) []byte {
	severity := severityInfo
	if m.Stream == logs.Stderr {
		severity = severityError
	}
	pri := s.facility<<3 | severity
	switch s.format {
	case "rfc3164":
		b = fmt.Appendf(b, "<%d>%s %s %s[%s]: ", pri, m.Time.Local().Format(time.Stamp), s.host, s.tag, s.pid)
	case "rfc5424", "rfc5424micro":
		layout := time.RFC3339
		if s.format == "rfc5424micro" {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = fmt.Appendf(b, "<%d>1 %s %s %s %s %s - ", pri, m.Time.Local().Format(layout), s.host, s.tag, s.pid, s.tag)
	default:
		b = fmt.Appendf(b, "<%d>%s %s[%s]: ", pri, m.Time.Local().Format(time.Stamp), s.tag, s.pid)
	}
	return append(append(b, m.Line...), '\n')
}

func (s *syslog) Finish(ctx context.Context) error { return ignoreGone(s.finish(ctx)) }
