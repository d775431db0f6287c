package layer

import (
	"context"
	_ "crypto/sha256" // the algorithms that a digest may name
	_ "crypto/sha512"
	"errors"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"gantry/internal/errs"
)

// Unpack is Apply for a layer as it is stored: of any compression, and only
// good if its tar has the digest diffID. An empty diffID is not checked. It
// returns the digest of the tar.
//
// Decompression and hashing run beside the writing of files.
func Unpack(ctx context.Context, dir string, r io.Reader, diffID digest.Digest, o Options) (digest.Digest, Stats, error) {
	if diffID == "" {
		return unpack(ctx, dir, r, digest.Canonical, o)
	}
	if err := diffID.Validate(); err != nil {
		return "", Stats{}, errs.New(errs.Invalid, "layer digest %q: %w", clip(string(diffID)), err)
	}
	got, stats, err := unpack(ctx, dir, r, diffID.Algorithm(), o)
	if err == nil && got != diffID {
		err = errs.New(errs.Invalid, "layer has digest %s, its image says %s", got, diffID)
	}
	return got, stats, err
}

func unpack(ctx context.Context, dir string, r io.Reader, algorithm digest.Algorithm, o Options) (digest.Digest, Stats, error) {
	from := o.Decompressors
	if from == nil {
		from = new(Decompressors)
	}
	plain, _, err := from.decompress(r, o.Limits)
	if err != nil {
		return "", Stats{}, err
	}
	sum := algorithm.Hash()
	p := newPump(plain, sum)
	defer func() {
		p.close()
		plain.Close()
	}()
	stats, err := Apply(ctx, dir, p, o)
	if err != nil {
		return "", stats, err
	}
	// What follows the end of the tar counts for the digest.
	if err := drain(ctx, p); err != nil {
		return "", stats, err
	}
	p.close()
	return digest.NewDigest(algorithm, sum), stats, nil
}

// maxTrailer is how much may follow the end of a tar: padding to a block of any
// size that was ever usual.
const maxTrailer = 64 << 20

func drain(ctx context.Context, r io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(r, maxTrailer+1))
	if err == nil && n > maxTrailer {
		err = errs.New(errs.Invalid, "layer has more than %d bytes after its end", maxTrailer)
	}
	return errors.Join(err, context.Cause(ctx))
}

// A pump reads ahead in a goroutine of its own and hashes what it reads, so
// that decompression, hashing and the reader's work use two processors.
type pump struct {
	full  chan []byte
	empty chan []byte
	stop  func()
	done  chan struct{}
	err   error // of the source; read after full is closed
	cur   []byte
	buf   []byte
}

const (
	pumpBuf  = 256 << 10
	pumpBufs = 4
)

func newPump(r io.Reader, sum hash.Hash) *pump {
	stop := make(chan struct{})
	p := &pump{full: make(chan []byte, pumpBufs), empty: make(chan []byte, pumpBufs), done: make(chan struct{})}
	p.stop = sync.OnceFunc(func() { close(stop) })
	for range pumpBufs {
		p.empty <- make([]byte, pumpBuf)
	}
	go func() {
		defer close(p.done)
		defer close(p.full)
		for {
			select {
			case b := <-p.empty:
				n, err := fill(r, b)
				sum.Write(b[:n])
				p.full <- b[:n] // has room for every buffer
				if err != nil {
					p.err = err
					return
				}
			case <-stop:
				p.err = io.ErrClosedPipe
				return
			}
		}
	}()
	return p
}

func (p *pump) Read(b []byte) (int, error) {
	for len(p.cur) == 0 {
		if p.buf != nil {
			p.empty <- p.buf[:pumpBuf]
			p.buf = nil
		}
		next, ok := <-p.full
		if !ok {
			return 0, p.err
		}
		p.buf, p.cur = next, next
	}
	n := copy(b, p.cur)
	p.cur = p.cur[n:]
	return n, nil
}

// close ends the goroutine, which may first have to come back from a read of
// its source.
func (p *pump) close() {
	p.stop()
	<-p.done
}
