package container

import (
	"context"
	"path/filepath"
	"sync"

	"gantry/internal/launch"
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
	rw = launch.FilesUpper{Dir: filepath.Join(c.dir(rec.ID), "upper"), Lower: rec.Image.Lower, Whole: rec.Image.Whole}.Usage(ctx)
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
	n = launch.DiskUsage(ctx, dir)
	if ctx.Err() != nil {
		return n // not all of it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]int64{}
	}
	s.m[dir] = n
	return n
}

// LogBytes returns the disk space in bytes that the logs of all containers take.
func (c *Query) LogBytes(ctx context.Context) (total int64) {
	for _, a := range c.table.all() {
		files, err := filepath.Glob(c.logPath(a.view().rec) + "*")
		if err != nil || ctx.Err() != nil {
			return total
		}
		for _, f := range files {
			total += launch.DiskUsage(ctx, f)
		}
	}
	return total
}
