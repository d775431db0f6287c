package remote

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	apiwire "gantry/internal/wire"
)

// againTries is how often each endpoint is asked for a blob that is damaged here.
const againTries = 3

// Again fetches a blob or manifest of the repository of name, whether or not it is
// here, and has take read it. take must check it, and may be called again, from the
// beginning, when it has returned an error. Nothing is stored or recorded.
func (c *Client) Again(ctx context.Context, name reference.Named, a apiwire.RegistryAuth, d ocispec.Descriptor, take func(io.Reader) error) error {
	s, err := c.open(name, a)
	if err != nil {
		return err
	}
	defer s.close()
	if err := validDigest(d.Digest); err != nil {
		return err
	}
	for i := range againTries * len(s.hosts) {
		if err = s.again(ctx, i%len(s.hosts), d, take); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if i >= len(s.hosts)-1 && final(err) {
			break
		}
	}
	return fmt.Errorf("fetch %s: %w", d.Digest, translate(err))
}

func (s *session) again(ctx context.Context, host int, d ocispec.Descriptor, take func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done atomic.Int64
	stop := watch(ctx, s.cfg.Stall, cancel, &done)
	defer stop()
	r, err := s.fetch(ctx, host, d)
	if err != nil {
		return stalledOr(ctx, err)
	}
	defer r.Close()
	in := &counted{r: io.LimitReader(r, d.Size+1), n: &done}
	if err := take(in); err != nil {
		return stalledOr(ctx, err)
	}
	if done.Load() > d.Size {
		return errs.New(errs.Invalid, "%s has more than %d bytes", d.Digest, d.Size)
	}
	return nil
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
