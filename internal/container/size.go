package container

import (
	"context"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"

	"gantry/internal/wire"
)

// sizeCache remembers the size of image layers, which never change.
type sizeCache struct {
	mu sync.Mutex
	m  map[string]int64
}

// sizes returns the disk space in bytes that a container's own layer takes,
// and that with its image.
func (c *core) sizes(ctx context.Context, rec *Record) (rw, root int64) {
	rw = diskUsage(ctx, filepath.Join(c.dir(rec.ID), "upper"))
	root = rw
	for _, dir := range rec.Image.Lower {
		root += c.layers.of(ctx, dir)
	}
	return rw, root
}

// Usage returns all containers with their sizes.
func (c *Query) Usage(ctx context.Context) ([]wire.ContainerSummary, error) {
	list, err := c.List(ctx, ListOptions{All: true, Size: true})
	if err == nil && ctx.Err() != nil {
		return nil, context.Cause(ctx) // the sizes are not whole
	}
	return list, err
}

func (s *sizeCache) of(ctx context.Context, dir string) int64 {
	s.mu.Lock()
	n, ok := s.m[dir]
	s.mu.Unlock()
	if ok {
		return n
	}
	n = diskUsage(ctx, dir)
	if ctx.Err() != nil {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]int64{}
	}
	s.m[dir] = n
	return n
}

// diskUsage adds up the blocks of all files below dir, each file once. What
// can't be read, or vanishes meanwhile, counts nothing; when ctx ends, the rest
// does not either.
func diskUsage(ctx context.Context, dir string) (total int64) {
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if st.Nlink > 1 && !d.IsDir() {
			f := file{st.Dev, st.Ino}
			if seen[f] {
				return nil
			}
			seen[f] = true
		}
		total += st.Blocks * 512
		return nil
	})
	return total
}
