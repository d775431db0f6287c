package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Large blobs come over several connections at once, in ranges.
const (
	rangeFrom  = 32 << 20 // what is left of a blob to be worth it
	rangeSize  = 4 << 20  // bytes of one range
	rangeExtra = 2        // connections besides the first
)

// stream opens what is left of a blob at one endpoint. If connections are free
// and the endpoint serves ranges, several fetch beside each other.
func (s *session) stream(ctx context.Context, host int, d ocispec.Descriptor, from int64) (io.ReadCloser, error) {
	extra := 0
	if d.Size-from >= rangeFrom {
		extra = s.c.slots.spare(rangeExtra)
	}
	if extra == 0 {
		r, _, err := s.openAt(ctx, host, d, from, 0)
		return r, err
	}
	first, partial, err := s.openAt(ctx, host, d, from, from+rangeSize-1)
	if err != nil || !partial {
		// All of it comes over this connection.
		s.c.slots.release(extra)
		return first, err
	}
	r := &ranges{s: s, host: host, d: d, next: from + rangeSize, queue: make(chan chan piece, extra)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.pool.New = func() any { b := make([]byte, rangeSize); return &b }
	r.end = func() {
		r.cancel()
		r.wg.Wait()
		s.c.slots.release(extra)
	}
	r.wg.Add(1)
	go r.dispatch(first, from)
	return r, nil
}

// openAt opens a blob at an offset. last, if it is positive, is the last byte
// that is wanted; partial tells whether the endpoint keeps to it.
func (s *session) openAt(ctx context.Context, host int, d ocispec.Descriptor, from, last int64) (r io.ReadCloser, partial bool, err error) {
	b := &blobRequest{last: last}
	r, err = s.fetch(asBlob(ctx, b), host, d)
	if err != nil {
		return nil, false, err
	}
	if sk, ok := r.(io.Seeker); from > 0 && ok {
		if _, err := sk.Seek(from, io.SeekStart); err != nil {
			return nil, false, errors.Join(err, r.Close())
		}
	}
	if last <= 0 {
		return r, false, nil
	}
	// The resolver sends its request with the first read.
	var head [1]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, false, errors.Join(err, r.Close())
	}
	u := &unread{ReadCloser: r, head: head[:], left: d.Size - from}
	if b.partial.Load() {
		u.left = last + 1 - from
	}
	return u, b.partial.Load(), nil
}

// unread gives back what was read before, and ends after left bytes: the resolver
// would take the end of a range for that of a connection, and make a request for
// what is behind it.
type unread struct {
	io.ReadCloser
	head []byte
	left int64
}

func (u *unread) Read(p []byte) (n int, err error) {
	if u.left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), u.left)]
	if len(u.head) > 0 {
		n = copy(p, u.head)
		u.head = u.head[n:]
	} else {
		n, err = u.ReadCloser.Read(p)
	}
	u.left -= int64(n)
	return n, err
}

// ranges reads a blob in ranges, of which some are on their way at any time.
type ranges struct {
	s      *session
	host   int
	d      ocispec.Descriptor
	ctx    context.Context
	cancel context.CancelFunc
	next   int64           // offset of the first range that nobody fetches yet
	queue  chan chan piece // of ranges that are on their way, in their order
	pool   sync.Pool       // of buffers of rangeSize
	wg     sync.WaitGroup
	end    func()
	once   sync.Once

	cur  piece
	left []byte
}

// A piece is one range, or why there is none.
type piece struct {
	data []byte
	buf  *[]byte
	err  error
}

// dispatch has ranges fetched, each in a goroutine, as long as somebody reads
// and places in the queue are free.
func (r *ranges) dispatch(first io.ReadCloser, from int64) {
	defer r.wg.Done()
	defer close(r.queue)
	begin := func(open func() (io.ReadCloser, error), n int64) bool {
		p := make(chan piece, 1)
		select {
		case r.queue <- p:
		case <-r.ctx.Done():
			return false
		}
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			p <- r.read(open, n)
		}()
		return true
	}
	size := r.d.Size
	if !begin(func() (io.ReadCloser, error) { return first, nil }, min(rangeSize, size-from)) {
		first.Close()
		return
	}
	for r.next < size {
		at, n := r.next, min(rangeSize, size-r.next)
		r.next += n
		if !begin(func() (io.ReadCloser, error) {
			rc, partial, err := r.s.openAt(r.ctx, r.host, r.d, at, at+n-1)
			if err == nil && !partial {
				return nil, errors.Join(fmt.Errorf("%s serves ranges, and then does not", r.s.wires[r.host].host), rc.Close())
			}
			return rc, err
		}, n) {
			return
		}
	}
}

// read fetches one range into memory.
func (r *ranges) read(open func() (io.ReadCloser, error), n int64) piece {
	rc, err := open()
	if err != nil {
		return piece{err: err}
	}
	defer rc.Close()
	buf := r.pool.Get().(*[]byte)
	if _, err := io.ReadFull(rc, (*buf)[:n]); err != nil {
		r.pool.Put(buf)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return piece{err: err}
	}
	return piece{data: (*buf)[:n], buf: buf}
}

// Read reads on, in order.
func (r *ranges) Read(p []byte) (int, error) {
	for len(r.left) == 0 {
		if r.cur.buf != nil {
			r.pool.Put(r.cur.buf)
			r.cur = piece{}
		}
		c, ok := <-r.queue
		if !ok {
			if err := r.ctx.Err(); err != nil {
				return 0, context.Cause(r.ctx)
			}
			return 0, io.EOF
		}
		r.cur = <-c
		if r.cur.err != nil {
			return 0, r.cur.err
		}
		r.left = r.cur.data
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// Close ends the fetching of ranges and waits for it.
func (r *ranges) Close() error {
	r.once.Do(r.end)
	return nil
}
