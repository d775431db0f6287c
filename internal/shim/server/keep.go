package server

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"gantry/internal/shim/protocol"
)

// rights reads a connection and gathers the descriptors that come with what is
// read (unix(7)).
type rights struct {
	c   *conn
	fds []int
}

// Read takes what is there.
func (r *rights) Read(p []byte) (n int, err error) {
	var oob [64]byte // room for more than MaxKept
	var oobn int
	var rerr error
	err = r.c.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, rerr = unix.Recvmsg(int(fd), p, oob[:], unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if rerr != unix.EINTR {
				return rerr != unix.EAGAIN
			}
		}
	})
	if err == nil && rerr != nil {
		err = os.NewSyscallError("recvmsg", rerr)
	}
	if err != nil {
		return 0, err
	}
	if oobn > 0 {
		r.gather(oob[:oobn])
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r *rights) gather(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			r.fds = append(r.fds, fds...)
		}
	}
}

// take returns the descriptors, which are the caller's then; at most MaxKept.
func (r *rights) take() []int {
	n := min(len(r.fds), protocol.MaxKept)
	fds := r.fds[:n:n]
	r.fds = r.fds[n:]
	return fds
}

func (r *rights) close() {
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	r.fds = nil
}

// keep holds descriptors instead of those that are held. Nothing here uses them:
// the daemon, or the next one, does.
func keep(s *server, fds []int) {
	s.mu.Lock()
	old := s.kept
	s.kept = fds
	s.mu.Unlock()
	for _, fd := range old {
		unix.Close(fd)
	}
}

// giveKept answers with copies of what is held.
func giveKept(s *server, c *conn) {
	frame, err := protocol.Frame(0, protocol.OpAnswer, nil)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var oob []byte
	if len(s.kept) > 0 {
		oob = unix.UnixRights(s.kept...)
	}
	// A few bytes on a new connection: there is room for them.
	c.raw.Write(func(fd uintptr) bool {
		unix.Sendmsg(int(fd), frame, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true
	})
}
