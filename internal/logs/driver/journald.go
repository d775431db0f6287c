package driver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/logs"
	"gantry/internal/plan"
)

// journalSocket is where systemd-journald listens.
const journalSocket = "/run/systemd/journal/socket"

// journald sends by journald's native protocol: datagrams of fields, or for
// large ones the descriptor of a sealed file with them.
type journald struct {
	link
	fixed []byte // the fields that are always the same, in wire form
}

func newJournald(info plan.LogInfo) (Sender, error) {
	if _, err := os.Stat(journalSocket); err != nil {
		return nil, fmt.Errorf("journald is not enabled on this host")
	}
	return newJournaldAt(journalSocket, info)
}

func newJournaldAt(socket string, info plan.LogInfo) (Sender, error) {
	tag, err := info.Tag("{{.ID}}")
	if err != nil {
		return nil, err
	}
	attrs, err := info.Attrs()
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for k, v := range attrs {
		if k = journalField(k); k != "" {
			fields[k] = v
		}
	}
	maps.Copy(fields, map[string]string{
		"CONTAINER_ID": info.ID(), "CONTAINER_ID_FULL": info.ContainerID, "CONTAINER_NAME": info.ContainerName,
		"CONTAINER_TAG": tag, "IMAGE_NAME": info.Image, "SYSLOG_IDENTIFIER": tag,
	})
	j := &journald{link: link{proto: "unixgram", addr: socket}}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		j.fixed = journalAppend(j.fixed, k, []byte(fields[k]))
	}
	return j, nil
}

// journalField makes a name that journald takes: capitals, digits and
// underscores, and no underscore first.
func journalField(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, s)
	return strings.TrimLeft(s, "_")
}

// journalAppend appends a field: a line, or where the value has a newline the
// name, the length as 64 bits little endian, and the value.
func journalAppend(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if !slices.Contains(value, '\n') {
		b = append(append(b, '='), value...)
		return append(b, '\n')
	}
	b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
	return append(append(b, value...), '\n')
}

// Doubt is zero: a datagram on a Unix socket is taken or refused.
func (j *journald) Doubt() time.Duration { return 0 }

func (j *journald) render(m *Message) []byte {
	priority := severityInfo
	if m.Stream == logs.Stderr {
		priority = severityError
	}
	b := slices.Clone(j.fixed)
	b = journalAppend(b, "PRIORITY", []byte(strconv.Itoa(priority)))
	b = journalAppend(b, "SYSLOG_TIMESTAMP", []byte(m.Time.UTC().Format(time.RFC3339Nano)))
	if p := m.Partial; p != nil {
		if !p.Last {
			b = journalAppend(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
		}
		b = journalAppend(b, "CONTAINER_PARTIAL_ID", []byte(p.ID))
		b = journalAppend(b, "CONTAINER_PARTIAL_ORDINAL", []byte(strconv.Itoa(p.Ordinal)))
		b = journalAppend(b, "CONTAINER_PARTIAL_LAST", []byte(strconv.FormatBool(p.Last)))
	}
	return journalAppend(b, "MESSAGE", m.Line)
}

func (j *journald) Send(ctx context.Context, batch []Message) error {
	for i := range batch {
		b := j.render(&batch[i])
		err := j.write(ctx, b)
		if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
			err = j.sendFile(ctx, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sendFile sends fields that fit into no datagram.
func (j *journald) sendFile(ctx context.Context, b []byte) error {
	fd, err := unix.MemfdCreate("journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "journal")
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	conn, err := j.get(ctx)
	if err != nil {
		return err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return errNoConnection
	}
	return j.guard(ctx, conn, func() error {
		raw, err := u.SyscallConn()
		if err != nil {
			return err
		}
		var e error
		err = raw.Write(func(s uintptr) bool {
			e = unix.Sendmsg(int(s), nil, unix.UnixRights(int(f.Fd())), nil, 0)
			return e != unix.EAGAIN
		})
		return errors.Join(err, e)
	})
}

func (j *journald) Finish(ctx context.Context) error { return ignoreGone(j.finish(ctx)) }
