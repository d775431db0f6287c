package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
)

// How blobs are fetched.
const (
	copyBuf = 256 << 10
	// stallWindow is the time in which at least stallBytes must arrive, or the
	// connection is given up and another one made.
	stallWindow = 30 * time.Second
	stallBytes  = 1 << 10
	// progressBytes in one attempt make it none that counts.
	progressBytes = 64 << 10
	// backoff is the pause before the second attempt; it doubles.
	backoff    = 500 * time.Millisecond
	maxBackoff = 20 * time.Second
)

// A flow is how far a fetch is, for everybody who waits for it.
type flow struct {
	state atomic.Int32 // one of the phases
	done  atomic.Int64 // bytes
}

// Phases of a fetch.
const (
	phaseWaiting int32 = iota
	phaseFetching
	phaseVerifying
)

// A board holds the flows of the fetches that run.
type board struct {
	mu sync.Mutex
	m  map[digest.Digest]*flow
}

// at returns the flow of a blob, made if need be.
func (b *board) at(d digest.Digest) *flow {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil {
		b.m = map[digest.Digest]*flow{}
	}
	f := b.m[d]
	if f == nil {
		f = &flow{}
		b.m[d] = f
	}
	return f
}

// peek returns the flow of a blob that is being fetched, or nil.
func (b *board) peek(d digest.Digest) *flow {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m[d]
}

// drop removes the flow of a fetch that has ended.
func (b *board) drop(d digest.Digest, f *flow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m[d] == f {
		delete(b.m, d)
	}
}

// have reports whether a blob is in the store, with the size it shall have.
func (s *session) have(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	i, err := s.c.Content.Info(ctx, d.Digest)
	switch {
	case errs.Is(err, errs.NotFound):
		return false, nil
	case err != nil:
		return false, err
	case i.Size != d.Size:
		return false, errs.New(errs.Invalid, "%s has %d bytes, its manifest says %d", d.Digest, i.Size, d.Size)
	}
	return true, nil
}

// blob brings a blob into the store. If somebody fetches it already, that fetch
// is waited for; it ends with the last of those who wait, and if it fails for
// reasons of its own, another one is made. The caller has the blob reserved.
func (s *session) blob(ctx context.Context, d ocispec.Descriptor) error {
	for {
		if ok, err := s.have(ctx, d); ok || err != nil {
			return err
		}
		led := false
		_, err := s.c.fetches.Do(ctx, d.Digest.String(), func(ctx context.Context) (struct{}, error) {
			led = true
			return struct{}{}, s.lead(ctx, d)
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil || led {
			return err
		}
	}
}

// lead fetches a blob for all who wait for it.
func (s *session) lead(ctx context.Context, d ocispec.Descriptor) error {
	f := s.c.board.at(d.Digest)
	defer s.c.board.drop(d.Digest, f)
	if err := s.c.slots.acquire(ctx); err != nil {
		return err
	}
	defer s.c.slots.release(1)
	in, err := s.c.continueBlob(ctx, d)
	if errs.Is(err, errs.Conflict) {
		return nil // complete meanwhile
	} else if err != nil {
		return err
	}
	defer func() { in.Close() }()
	wait, wrong, from := backoff, 0, &origin{gave: map[*wire]bool{}}
	if in.Offset() > 0 {
		from.gave[nil] = true // an earlier fetch, from wherever
	}
	for attempt := 1; ; attempt++ {
		before := in.Offset()
		err := s.attempt(ctx, in, d, f, from)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case errors.Is(err, errDigest): // half of it may have been an earlier fetch's
			wrong++
		case in.Offset()-before >= progressBytes: // it gets on: only standstill counts
			attempt, wait = 0, backoff
		}
		if attempt >= s.cfg.Attempts || wrong > len(s.wires) || final(err) {
			return fmt.Errorf("fetch %s: %w", d.Digest, translate(err))
		}
		s.c.Log.Debug("fetch failed, another try follows", "blob", d.Digest, "offset", in.Offset(), "err", err)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, maxBackoff)
		in.Close()
		if in, err = s.c.continueBlob(ctx, d); err != nil {
			return err
		}
	}
}

// continueBlob begins or continues the ingest of a blob. One that a caller who
// gave up is about to close is waited for.
func (c *Client) continueBlob(ctx context.Context, d ocispec.Descriptor) (*content.Ingest, error) {
	for i := 0; ; i++ {
		in, err := c.intake.Continue(ctx, d)
		if !errs.Is(err, errs.Unavailable) || i == 100 {
			return in, err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// final reports whether to ask again is of no use.
func final(err error) bool {
	switch statusOf(err) {
	case 400, 401, 403, 404, 405, 410:
		return true
	}
	return errs.Is(translate(err), errs.NotFound) || errs.Is(err, errs.Denied) || content.Full(err)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errDigest is a blob whose content is not what its digest says.
var errDigest = errors.New("content has another digest than it shall have")

// origin is whom what has arrived of a blob is from.
type origin struct {
	gave  map[*wire]bool // nil is an earlier fetch
	alone bool           // all of it must be from one, since a mixture was wrong
}

// blame notes who has sent something else, if that is known; else it will be, by the
// next attempts. What had arrived is thrown away.
func (o *origin) blame() {
	if len(o.gave) > 1 {
		o.alone = true
	} else {
		for w := range o.gave {
			if w != nil {
				w.bad.Store(true)
			}
		}
	}
	clear(o.gave)
}

// mixed reports whether what an endpoint sends would go on where another's has ended,
// and must not.
func (o *origin) mixed(w *wire) bool {
	return o.alone && len(o.gave) > 0 && !o.gave[w]
}

// attempt tries each endpoint in turn from where in is, and commits it.
// Endpoints that can't be reached, or have sent something else, are not asked
// again as long as there is another one.
func (s *session) attempt(ctx context.Context, in *content.Ingest, d ocispec.Descriptor, f *flow, from *origin) (err error) {
	for host, w := range s.wires {
		if w.bad.Load() && host < len(s.wires)-1 {
			continue
		}
		if from.mixed(w) {
			if err := in.Reset(); err != nil {
				return err
			}
			clear(from.gave)
		}
		began := in.Offset()
		f.done.Store(began)
		f.state.Store(phaseFetching)
		err = s.receive(ctx, host, in, d, f)
		if in.Offset() > began {
			from.gave[w] = true
		}
		if err == nil {
			f.state.Store(phaseVerifying)
			if err = in.Commit(); errs.Is(err, errs.Invalid) {
				from.blame()
				return fmt.Errorf("%w: %w", errDigest, err)
			}
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if content.Full(err) {
			return err
		}
		if statusOf(err) == 0 && in.Offset() == began && !errdefs.IsNotFound(err) {
			w.bad.Store(true)
		}
	}
	return err
}

// errStalled ends a connection that brings nothing.
var errStalled = errors.New("the registry stopped sending")

// receive writes what is missing of a blob into in, from one endpoint.
func (s *session) receive(ctx context.Context, host int, in *content.Ingest, d ocispec.Descriptor, f *flow) error {
	if in.Offset() == d.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := watch(ctx, s.cfg.Stall, cancel, &f.done)
	defer stop()
	r, err := s.stream(ctx, host, d, in.Offset())
	if err != nil {
		return stalledOr(ctx, err)
	}
	defer r.Close()
	buf := make([]byte, copyBuf)
	for in.Offset() < d.Size {
		n, err := r.Read(buf)
		if _, werr := in.Write(buf[:n]); werr != nil {
			return werr
		}
		f.done.Store(in.Offset())
		if errors.Is(err, io.EOF) && in.Offset() < d.Size {
			return fmt.Errorf("%s ended after %d of %d bytes: %w", d.Digest, in.Offset(), d.Size, io.ErrUnexpectedEOF)
		} else if err != nil && !errors.Is(err, io.EOF) {
			return stalledOr(ctx, err)
		}
	}
	return nil
}

func stalledOr(ctx context.Context, err error) error {
	if c := context.Cause(ctx); errors.Is(c, errStalled) {
		return c
	}
	return err
}

// watch ends a fetch that does not get on.
func watch(ctx context.Context, window time.Duration, cancel context.CancelCauseFunc, done *atomic.Int64) (stop func()) {
	t := time.NewTicker(window)
	end := make(chan struct{})
	go func() {
		defer t.Stop()
		last := done.Load()
		for {
			select {
			case <-t.C:
				now := done.Load()
				if now-last < stallBytes {
					cancel(errStalled)
					return
				}
				last = now
			case <-end:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(end) })
}
