package lazy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// How blobs are fetched by parts.
const (
	block     = 256 << 10 // what is here, or is not
	fillRun   = 4 << 20   // what the background asks for at once
	demandRun = 4 << 20   // what a read asks for at once at most
	stallTime = 60 * time.Second
	attempts  = 5
)

// buffers are what blocks arrive in.
var buffers = sync.Pool{New: func() any { return new([block]byte) }}

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
	word   string   // file that tells of its completeness
	way    *traffic // of all blobs

	mu     sync.Mutex
	change sync.Cond
	state  []byte // of each block
	left   int    // blocks that are not here
}

// newBlob begins the blob of layer n of the job in dir.
func newBlob(ctx context.Context, s Source, l Layer, dir string, n int, way *traffic) (*blob, error) {
	path := blobPath(dir, n)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(l.Size); err != nil {
		f.Close()
		return nil, err
	}
	blocks := int((l.Size + block - 1) / block)
	b := &blob{ctx: ctx, source: s, layer: l, file: f, word: wordPath(dir, n), way: way, state: make([]byte, blocks), left: blocks}
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
		b.way.want()
		err := b.fetch(i, end)
		b.way.served()
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
	wait := 200 * time.Millisecond
	for try := 1; ; try++ {
		at := first
		if first, err = b.receive(at, end); first > at {
			try = 0 // it gets on
		}
		if err == nil || try == attempts || b.ctx.Err() != nil {
			break
		}
		select {
		case <-time.After(wait):
		case <-b.ctx.Done():
		}
		wait = min(2*wait, 5*time.Second)
	}
	if err == nil {
		if b.complete() {
			// Who misses it is told of all layers together later.
			_ = os.WriteFile(b.word, nil, 0o600)
		}
		return nil
	}
	b.mark(first, end, missing)
	return fmt.Errorf("%s at %d: %w", b.layer.Digest, int64(first)*block, err)
}

// receive brings claimed blocks one after the other, and returns the first that is
// not here.
func (b *blob) receive(first, end int) (int, error) {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	stall := time.AfterFunc(stallTime, cancel)
	defer stall.Stop()
	off, last := int64(first)*block, min(int64(end)*block, b.layer.Size)
	r, err := b.source.OpenBlob(ctx, b.layer, off, last-off)
	if err != nil {
		return first, err
	}
	defer r.Close()
	room := buffers.Get().(*[block]byte)
	defer buffers.Put(room)
	for ; first < end; first++ {
		part := room[:min(block, last-off)]
		if _, err := io.ReadFull(r, part); err != nil {
			return first, err
		}
		if _, err := b.file.WriteAt(part, off); err != nil {
			return first, err
		}
		off += int64(len(part))
		b.mark(first, first+1, here)
		b.way.bytes.Add(int64(len(part)))
		stall.Reset(stallTime)
	}
	return first, nil
}

// mark tells those who wait what has become of blocks that were coming.
func (b *blob) mark(first, end int, state byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := first; i < end; i++ {
		if b.state[i] = state; state == here {
			b.left--
		}
	}
	b.change.Broadcast()
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

// take claims the first missing blocks of n bytes from off on, for the background.
// There are none if it returns the same twice.
func (b *blob) take(off, n int64) (first, end int) {
	first, last := b.span(off, n)
	b.mu.Lock()
	defer b.mu.Unlock()
	for first < last && b.state[first] != missing {
		first++
	}
	return first, b.claim(first, min(last, first+fillRun/block))
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
