package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/shim/protocol"
)

// Keep gives the shim whose run directory is dir files to hold until its
// container has ended, instead of those that it holds: sockets on which someone
// shall be able to go on after the daemon has died. At most 8.
func Keep(ctx context.Context, dir string, files []*os.File) error {
	_, err := exchange(ctx, dir, protocol.Keep, files)
	return err
}

// Kept returns copies of the files that the shim holds, in order; none if it has
// none. A shim of before that knew nothing of this is errs.Invalid.
func Kept(ctx context.Context, dir string) ([]*os.File, error) {
	return exchange(ctx, dir, protocol.Kept, nil)
}

func exchange(ctx context.Context, dir string, kind protocol.Kind, files []*os.File) (_ []*os.File, err error) {
	conn, err := connect(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if err := send(conn, protocol.Greeting{Kind: kind}.Encode(), files); err != nil {
		return nil, err
	}
	given := rights{conn: conn}
	_, op, payload, err := protocol.ReadFrame(&given)
	switch {
	case err != nil:
		err = gone(err)
	case op != protocol.OpAnswer:
		err = protocol.NewReader(payload).Error()
	}
	if err != nil {
		for _, f := range given.files {
			f.Close()
		}
		return nil, err
	}
	return given.files, nil
}

// send writes a message, and files with its first byte.
func send(conn *net.UnixConn, payload []byte, files []*os.File) error {
	frame, err := protocol.Frame(0, 0, payload)
	if err != nil {
		return err
	}
	if len(files) > protocol.MaxKept {
		return fmt.Errorf("a shim keeps %d files, not %d", protocol.MaxKept, len(files))
	}
	n := 0
	if len(files) > 0 {
		if n, err = sendRights(conn, frame, files); err != nil {
			return gone(err)
		}
	}
	if n < len(frame) {
		if _, err := conn.Write(frame[n:]); err != nil {
			return gone(err)
		}
	}
	return nil
}

// sendRights sends what fits, with the files. It uses their descriptors as they
// are: Fd would make them blocking.
func sendRights(conn *net.UnixConn, b []byte, files []*os.File) (int, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return 0, err
		}
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return 0, err
		}
	}
	n, _, err := conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	return n, err
}

// rights reads a connection and gathers the files that come with what is read.
type rights struct {
	conn  *net.UnixConn
	files []*os.File
}

// Read takes what is there.
func (r *rights) Read(p []byte) (int, error) {
	var oob [64]byte
	n, oobn, _, _, err := r.conn.ReadMsgUnix(p, oob[:])
	messages, perr := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		fds, e := unix.ParseUnixRights(&messages[i])
		perr = errors.Join(perr, e)
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			perr = errors.Join(perr, unix.SetNonblock(fd, true))
			r.files = append(r.files, os.NewFile(uintptr(fd), "kept"))
		}
	}
	return n, errors.Join(err, perr)
}
