package tree

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Options say how CopyWith copies.
type Options struct {
	// Told is called with the bytes of each file's content that was copied or
	// shared; nil for nobody.
	Told func(bytes int64)
}

// Result is what was copied.
type Result struct {
	Files  int   // of all kinds but directories; a second name counts
	Bytes  int64 // of content, holes not counted
	Shared int64 // those of Bytes that both trees have the same blocks of
}

// CopyWith is CopyInto that tells how far it is, and what it has copied.
func CopyWith(ctx context.Context, src, dst int, o Options) (Result, error) {
	c := copier{ctx: ctx, links: map[inode]string{}, top: dst, told: o.Told}
	err := c.dir(src, dst, "", 0)
	return c.done, err
}

func (c *copier) file(src, dst int, name string, st *unix.Stat_t) error {
	from, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(from), name)
	defer in.Close()
	to, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(to), name)
	defer out.Close()
	if err := c.content(in, out, st); err != nil {
		return err
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	return finish(to, st)
}

// content copies what a file holds: by sharing its blocks, or else by its data
// with the holes between.
func (c *copier) content(in, out *os.File, st *unix.Stat_t) error {
	tell := func(n int64) {
		c.done.Bytes += n
		if c.told != nil {
			c.told(n)
		}
	}
	if !c.apart && st.Size > 0 {
		err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
		if err == nil {
			n := min(st.Size, st.Blocks*512)
			c.done.Shared += n
			tell(n)
			return nil
		}
		c.apart = true // file systems differ in how they say so
	}
	var at int64
	for at < st.Size {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		begin, err := in.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		end := st.Size
		if err != nil {
			begin = at // the file system knows no holes
		} else if end, err = in.Seek(begin, unix.SEEK_HOLE); err != nil {
			return err
		}
		end = min(end, begin+maxPiece)
		if _, err := in.Seek(begin, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(begin, io.SeekStart); err != nil {
			return err
		}
		n, err := io.Copy(out, io.LimitReader(in, end-begin))
		if err != nil {
			return err
		}
		tell(n)
		if n == 0 {
			break // it has become shorter meanwhile
		}
		at = begin + n
	}
	return out.Truncate(st.Size)
}

// maxPiece is how much is copied between two looks at whether it is still wanted.
const maxPiece = 64 << 20
