package server

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A conn is a socket on the runtime's poller. Package net would do, but it
// brings name resolution and much else into every shim.
type conn struct {
	f    *os.File
	raw  syscall.RawConn
	once sync.Once
}

func newConn(fd int) (*conn, error) {
	f, raw, err := polled(fd, "socket")
	if err != nil {
		return nil, err
	}
	return &conn{f: f, raw: raw}, nil
}

// polled makes a file of a descriptor that it takes over, so that reading it
// holds no thread.
func polled(fd int, name string) (*os.File, syscall.RawConn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, raw, nil
}

// close ends the connection. What the peer has sent and nobody has read is
// taken out first, or the peer would see a reset and not an end (unix(7)).
func (c *conn) close() {
	c.once.Do(func() {
		c.raw.Control(func(fd uintptr) {
			unix.Shutdown(int(fd), unix.SHUT_RDWR)
			var rest [512]byte
			for {
				n, err := unix.Read(int(fd), rest[:])
				if n <= 0 && err != unix.EINTR {
					return
				}
			}
		})
		c.f.Close()
	})
}

// awaitHangUp returns when the peer has closed the socket altogether; a half
// close is not enough.
func (c *conn) awaitHangUp() {
	c.raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		return err != nil && err != unix.EINTR || p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
}

// frameHeader is the room in front of a chunk for the Docker API's stream
// header: stream number, three zeros, length.
const frameHeader = 8

// chunkSize is the most payload of one frame: about that of Docker's copying,
// and with the header one of the sizes that the allocator has.
const chunkSize = 32<<10 - frameHeader

// buffers lends out memory for chunks. A reader that waits holds none; one is
// kept for the next that has something to read.
type buffers struct {
	mu   sync.Mutex
	kept []byte
}

func (b *buffers) get() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.kept; p != nil {
		b.kept = nil
		return p
	}
	return make([]byte, frameHeader+chunkSize)
}

func (b *buffers) put(p []byte) {
	b.mu.Lock()
	b.kept = p
	b.mu.Unlock()
}

// drop gives the kept one to the collector.
func (b *buffers) drop() { b.put(nil) }

// read waits until raw has something and returns it in a borrowed buffer after
// frameHeader bytes of room. At the end it returns no buffer and no bytes.
func (b *buffers) read(raw syscall.RawConn) (buf []byte, n int, err error) {
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		buf = b.get()
		for {
			n, rerr = unix.Read(int(fd), buf[frameHeader:])
			if rerr != unix.EINTR {
				break
			}
		}
		if rerr == nil && n > 0 {
			return true
		}
		b.put(buf)
		buf = nil
		return rerr != unix.EAGAIN
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		return nil, 0, err
	}
	return buf, n, nil
}
