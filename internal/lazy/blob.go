package lazy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// How blobs are fetched by parts.
const (
	block      = 256 << 10 // smallest part
	fillRun    = 4 << 20   // what the background asks for at once
	demandRun  = 4 << 20   // what a read asks for at once at most
	demandTime = 60 * time.Second
	attempts   = 5
)

// buffers are what parts arrive in.
var buffers = sync.Pool{New: func() any { return new([demandRun]byte) }}

// States of a block.
const (
	missing byte = iota
	coming
	here
)

// A blob is a layer's, of which parts are in a file. It is safe for concurrent use.
type blob struct {
	ctx    context.Context // of the process
	source Source
	layer  Layer
	file   *os.File
	wanted *atomic.Int32 // reads of containers that wait, of all blobs

	mu     sync.Mutex
	change sync.Cond
	state  []byte // of each block
	left   int    // blocks that are not here
}

func newBlob(ctx context.Context, s Source, l Layer, path string, wanted *atomic.Int32) (*blob, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(l.Size); err != nil {
		f.Close()
		return nil, err
	}
	n := int((l.Size + block - 1) / block)
	b := &blob{ctx: ctx, source: s, layer: l, file: f, wanted: wanted, state: make([]byte, n), left: n}
	b.change.L = &b.mu
	return b, nil
}

// ReadAt reads what is here, and fetches the rest first (io.ReaderAt).
func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	if err := b.need(off, int64(len(p))); err != nil {
		return 0, err
	}
	return b.file.ReadAt(p, off)
}

// need fetches what is not here of n bytes from off on, for somebody who waits.
func (b *blob) need(off, n int64) error {
	first, last := b.span(off, n)
	for i := first; i < last; {
		b.mu.Lock()
		switch b.state[i] {
		case here:
			b.mu.Unlock()
			i++
			continue
		case coming:
			b.change.Wait()
			b.mu.Unlock()
			continue
		}
		end := b.claim(i, min(last, i+demandRun/block))
		b.mu.Unlock()
		b.wanted.Add(1)
		err := b.fetch(i, end)
		b.wanted.Add(-1)
		if err != nil {
			return err
		}
		i = end
	}
	return nil
}

// span returns the blocks of n bytes from off on, within the blob.
func (b *blob) span(off, n int64) (first, last int) {
	end := min(off+n, b.layer.Size)
	if off < 0 || off >= end {
		return 0, 0
	}
	return int(off / block), int((end + block - 1) / block)
}

// claim marks the missing blocks from i on, up to limit, as coming.
func (b *blob) claim(i, limit int) (end int) {
	for end = i; end < limit && b.state[end] == missing; end++ {
		b.state[end] = coming
	}
	return end
}

// fetch brings claimed blocks.
func (b *blob) fetch(first, end int) (err error) {
	off := int64(first) * block
	room := buffers.Get().(*[demandRun]byte)
	defer buffers.Put(room)
	buf := room[:min(int64(end)*block, b.layer.Size)-off]
	wait := 200 * time.Millisecond
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(b.ctx, demandTime)
		err = b.source.ReadBlob(ctx, b.layer, buf, off)
		cancel()
		if err == nil || try == attempts || b.ctx.Err() != nil {
			break
		}
		select {
		case <-time.After(wait):
		case <-b.ctx.Done():
		}
		wait *= 2
	}
	if err == nil {
		_, err = b.file.WriteAt(buf, off)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := first; i < end; i++ {
		if b.state[i] = missing; err == nil {
			b.state[i] = here
			b.left--
		}
	}
	b.change.Broadcast()
	if err != nil {
		return fmt.Errorf("%s at %d: %w", b.layer.Digest, off, err)
	}
	return nil
}

// forget has blocks fetched again that turned out to be wrong.
func (b *blob) forget(off, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first, last := b.span(off, n)
	for i := first; i < last; i++ {
		if b.state[i] == here {
			b.state[i] = missing
			b.left++
		}
	}
}

// fill fetches what is missing of the first n bytes, while nobody else waits.
func (b *blob) fill(n int64) error {
	_, last := b.span(0, n)
	for i := 0; i < last; {
		for b.wanted.Load() > 0 {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-b.ctx.Done():
				return context.Cause(b.ctx)
			}
		}
		b.mu.Lock()
		if b.state[i] != missing {
			b.mu.Unlock()
			i++
			continue
		}
		end := b.claim(i, min(last, i+fillRun/block))
		b.mu.Unlock()
		if err := b.fetch(i, end); err != nil {
			return err
		}
		i = end
	}
	return nil
}

// settle waits until nothing is on its way. The error is the end of the process.
func (b *blob) settle() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for bytes.IndexByte(b.state, coming) >= 0 {
		b.change.Wait()
	}
	return context.Cause(b.ctx)
}

// complete reports whether all of it is here.
func (b *blob) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left == 0
}
