package content

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// Full reports whether an error is that of a full disk, or of a quota.
func Full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// madeRoom reports whether err is that of a full disk and room was made, so that
// what failed may be tried again. That ends when nothing more can be removed.
func madeRoom(ctx context.Context, s *Store, err error) bool {
	return Full(err) && s.room != nil && ctx.Err() == nil && s.room(context.WithoutCancel(ctx))
}

// A patient writer goes on where the disk was full, if room could be made.
type patient struct {
	io.Writer
	s   *Store
	ctx context.Context
}

func (w patient) Write(p []byte) (n int, err error) {
	for {
		var m int
		m, err = w.Writer.Write(p[n:])
		if n += m; n == len(p) || !madeRoom(w.ctx, w.s, err) {
			return n, err
		}
	}
}
