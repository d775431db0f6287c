package container

import (
	"context"
	"io"
	"path/filepath"

	"gantry/internal/launch"
	"gantry/internal/wire"
)

// Export writes a container's root file system as a tar, without its volumes.
// begin is called before the first byte and says where to.
func (c *Files) Export(ctx context.Context, ref string, begin func() io.Writer) error {
	a, err := c.table.find(ref)
	if err != nil {
		return err
	}
	var w io.Writer
	err = c.stream(ctx, a, writerFunc(func(p []byte) (int, error) {
		if w == nil {
			w = begin()
		}
		return w.Write(p)
	}), func(ctx context.Context, w io.Writer) error {
		t, done, err := c.tree(ctx, a, launch.FilesOptions{Bare: true}, nil)
		if err != nil {
			return err
		}
		defer done()
		return t.PackAll(ctx, w)
	})
	if err == nil {
		a.tellOf("export")
	}
	return err
}

// Changes lists what a container has changed of its image's files, by paths in
// order; nil for nothing.
func (c *Files) Changes(ctx context.Context, ref string) ([]wire.FilesystemChange, error) {
	a, err := c.table.find(ref)
	if err != nil {
		return nil, err
	}
	got := make(chan []launch.FileChange, 1)
	err = c.aside(ctx, a, func(ctx context.Context) error {
		u, err := c.upper(ctx, a)
		if err != nil {
			return err
		}
		list, err := u.Changes(ctx)
		got <- list
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []wire.FilesystemChange
	for _, ch := range <-got {
		out = append(out, wire.FilesystemChange{Path: ch.Path, Kind: wire.FilesystemChangeKind(ch.Kind)})
	}
	return out, nil
}

// upper is a container's writable directory, which is made if it never ran.
func (c *Files) upper(ctx context.Context, a *actor) (launch.FilesUpper, error) {
	rec := a.view().rec
	u := launch.FilesUpper{Dir: filepath.Join(c.dir(rec.ID), "upper"), Lower: rec.Image.Lower, Whole: rec.Image.Whole}
	if a.view().state.Phase.live() {
		return u, nil
	}
	// To open its files makes what is missing.
	_, done, err := c.tree(ctx, a, launch.FilesOptions{Bare: true}, nil)
	if err != nil {
		return u, err
	}
	done()
	return u, nil
}
