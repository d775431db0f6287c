package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"gantry/internal/errs"
)

// Compression is how a stream is packed, by the name of its format.
type Compression string

// The formats that Decompress reads.
const (
	Plain Compression = ""
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Xz    Compression = "xz"
	Bzip2 Compression = "bzip2"
)

// maxWindow bounds the memory that a stream can ask its decompressor for: as
// much as `zstd --long` and `xz -9` need, doubled.
const maxWindow = 128 << 20

// peekLen is how much of a stream Detect wants to see.
const peekLen = 64

// Detect tells the compression by a stream's first bytes.
func Detect(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}): // RFC 1952
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), // RFC 8878
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return Zstd
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return Xz
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2
	}
	return Plain
}

// Decompress returns what r holds, unpacked in this process, whatever its
// compression. A stream that unpacks to more than l allows fails with
// errs.Invalid. Close frees the decompressor, not r.
func Decompress(r io.Reader, l Limits) (io.ReadCloser, Compression, error) {
	return new(Decompressors).decompress(r, l)
}

// Decompressors are those of zstd that are used again: each has megabytes of
// memory. The zero value is ready; one that nobody uses is freed in time.
type Decompressors struct{ free sync.Pool }

// zstd returns one for r.
func (p *Decompressors) zstd(r io.Reader) (io.ReadCloser, error) {
	if d, ok := p.free.Get().(*zstd.Decoder); ok {
		return pooled{d, p}, d.Reset(r)
	}
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	return pooled{d, p}, err
}

// pooled goes back when it is closed.
type pooled struct {
	*zstd.Decoder
	to *Decompressors
}

// Close lets the next one use it.
func (d pooled) Close() error {
	err := d.Reset(nil)
	if err == nil {
		d.to.free.Put(d.Decoder)
	}
	return err
}

func (p *Decompressors) decompress(r io.Reader, l Limits) (io.ReadCloser, Compression, error) {
	in := &counter{r: r}
	br := bufio.NewReaderSize(in, 64<<10)
	head, err := br.Peek(peekLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, Plain, err
	}
	c := Detect(head)
	out := io.NopCloser(io.Reader(br))
	switch c {
	case Gzip:
		out, err = gzip.NewReader(br)
	case Zstd:
		out, err = p.zstd(br)
	case Xz:
		if err = checkXz(head); err == nil {
			var d *xz.Reader
			d, err = xz.NewReader(br)
			out = io.NopCloser(d)
		}
	case Bzip2:
		out = io.NopCloser(bzip2.NewReader(br))
	default:
		return out, c, nil
	}
	if err != nil {
		return nil, c, errs.New(errs.Invalid, "%s: %w", c, err)
	}
	return &unpacked{ReadCloser: out, c: c, in: in, limits: l.withDefaults()}, c, nil
}

// counter counts what is read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// unpacked is what comes out of a decompressor. It gives its errors their kind
// and finds a bomb, whether it hides in files, in holes or in headers.
type unpacked struct {
	io.ReadCloser
	c      Compression
	in     *counter
	limits Limits
	n      int64
}

func (u *unpacked) Read(b []byte) (int, error) {
	n, err := u.ReadCloser.Read(b)
	u.n += int64(n)
	switch {
	case u.n > u.limits.RatioFrom && u.n/u.limits.Ratio > u.in.n:
		return n, errs.New(errs.Invalid, "%s unpacks to more than %d times its size: refused", u.c, u.limits.Ratio)
	case u.n > u.limits.Bytes:
		return n, errs.New(errs.Invalid, "%s unpacks to more than %d bytes: refused", u.c, u.limits.Bytes)
	case err != nil && !errors.Is(err, io.EOF) && errs.KindOf(err) == errs.Unknown:
		return n, errs.New(errs.Invalid, "%s: %w", u.c, err)
	}
	return n, err
}

// checkXz refuses a dictionary larger than maxWindow, which the decompressor
// would allocate. head starts with the stream header (12 bytes) and the header
// of the first block: size, flags, optional sizes, then for each filter its id,
// the length of its properties and these (xz file format, 3.1).
func checkXz(head []byte) error {
	const lzma2 = 0x21
	if len(head) < 16 || head[12] == 0 { // no block
		return nil
	}
	filters, rest := int(head[13]&3)+1, head[14:]
	for _, has := range []byte{0x40, 0x80} {
		if head[13]&has != 0 {
			_, rest = varint(rest)
		}
	}
	for range filters {
		var id, n uint64
		id, rest = varint(rest)
		n, rest = varint(rest)
		if n > uint64(len(rest)) {
			break
		}
		if id == lzma2 && n == 1 && dictSize(rest[0]) > maxWindow {
			return fmt.Errorf("dictionary of %d bytes is too large", dictSize(rest[0]))
		}
		rest = rest[n:]
	}
	return nil
}

// dictSize decodes the one property of LZMA2 (xz file format, 5.3.1).
func dictSize(b byte) uint64 {
	if b > 40 {
		return 1 << 40
	}
	return (2 | uint64(b&1)) << (b/2 + 11)
}

// varint reads a multibyte integer (xz file format, 1.2).
func varint(p []byte) (v uint64, rest []byte) {
	for i, b := range p[:min(len(p), 9)] {
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return v, p[i+1:]
		}
	}
	return 0, nil
}
