package ociruntime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Kinds of frames on the sync socket; the package comment draws who sends what.
const (
	frameSetup   = 's' // parent: what to be, with descriptors
	frameHooks   = 'h' // child: run createRuntime hooks; parent: they have run
	frameConsole = 'c' // child: the terminal's master, one descriptor
	frameReady   = 'r' // child: prepared
	frameGo      = 'g' // parent: execute
	frameError   = 'e' // child: code (0, 126, 127) and text
	frameMaps    = 'm' // raw child: write my id maps; parent: written
	frameTime    = 't' // raw child: write my time offsets; parent: written
	framePid     = 'p' // raw child: my child's pid, in size
	frameRaw     = 'x' // raw child: step (in fds) and errno (in size)
)

// A header precedes every frame: kind and number of descriptors as uint32, size
// of the payload as uint64, in the host's byte order (both ends are the same
// program on the same machine).
const headerSize = 16

// maxPayload bounds a frame: a job with the largest possible environment.
const maxPayload = 16 << 20

// fdBatch is how many descriptors go with one sendmsg(2); the kernel's limit is
// SCM_MAX_FD, 253.
const fdBatch = 250

type frame struct {
	kind    byte
	aux     uint32 // fds, or a raw child's step
	size    uint64 // of the payload, or a raw child's number
	payload []byte
	fds     []int
}

var errClosed = errors.New("the other end is gone")

func putHeader(b []byte, kind byte, aux uint32, size uint64) {
	binary.NativeEndian.PutUint32(b, uint32(kind))
	binary.NativeEndian.PutUint32(b[4:], aux)
	binary.NativeEndian.PutUint64(b[8:], size)
}

// send writes one frame. The descriptors go with the header and, if there are
// many, with one filler byte for each further batch.
func send(sock int, kind byte, payload []byte, fds ...int) error {
	var h [headerSize]byte
	putHeader(h[:], kind, uint32(len(fds)), uint64(len(payload)))
	first := fds[:min(len(fds), fdBatch)]
	if len(fds) <= fdBatch && len(payload) <= 32<<10 {
		return sendAll(sock, append(h[:], payload...), first)
	}
	if err := sendAll(sock, h[:], first); err != nil {
		return err
	}
	for rest := fds[len(first):]; len(rest) > 0; {
		n := min(len(rest), fdBatch)
		if err := sendAll(sock, []byte{0}, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return sendAll(sock, payload, nil)
}

func sendAll(sock int, b []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(sock, b, oob, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, oob = b[n:], nil
	}
	return nil
}

// recv reads one frame; errClosed at the end of the stream. On an error no
// descriptor is left open.
func recv(sock int) (f frame, err error) {
	defer func() {
		if err != nil {
			closeAll(f.fds)
			f.fds = nil
		}
	}()
	var h [headerSize]byte
	if err := f.read(sock, h[:]); err != nil {
		return f, err
	}
	f.kind = byte(binary.NativeEndian.Uint32(h[:]))
	f.aux = binary.NativeEndian.Uint32(h[4:])
	f.size = binary.NativeEndian.Uint64(h[8:])
	switch f.kind {
	case frameMaps, frameTime, framePid, frameRaw:
		return f, nil
	}
	if f.size > maxPayload || f.aux > 1<<14 {
		return f, fmt.Errorf("a frame of %d bytes and %d descriptors is impossible", f.size, f.aux)
	}
	for len(f.fds) < int(f.aux) {
		had := len(f.fds)
		var filler [1]byte
		if err := f.read(sock, filler[:]); err != nil {
			return f, err
		}
		if len(f.fds) == had {
			return f, fmt.Errorf("%d descriptors arrived instead of %d", had, f.aux)
		}
	}
	f.payload = make([]byte, f.size)
	return f, f.read(sock, f.payload)
}

// read fills b and keeps the descriptors that come with it.
func (f *frame) read(sock int, b []byte) error {
	var oob [24 + 4*256]byte
	for first := true; len(b) > 0; first = false {
		n, oobn, flags, _, err := unix.Recvmsg(sock, b, oob[:], unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if oobn > 0 {
			fds, err := rights(oob[:oobn])
			f.fds = append(f.fds, fds...)
			if err != nil {
				return err
			}
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return errors.New("too many descriptors at once")
		}
		if n == 0 {
			if first && len(b) == headerSize {
				return errClosed
			}
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
	}
	return nil
}

func rights(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var all []int
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return all, err
		}
		all = append(all, fds...)
	}
	return all, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
