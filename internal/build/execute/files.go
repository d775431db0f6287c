package execute

import (
	"context"
	"errors"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"

	"gantry/internal/errs"
	"gantry/internal/launch"
	"gantry/internal/plan"
)

// files are what the root and the mounts of a step are made of.
type files struct {
	root     launch.Tree
	readOnly bool
	mounts   []plan.Mount
	trees    map[string]launch.Tree // of those of type image
	undo     []func() error
}

// release gives everything back to BuildKit, last first.
func (f *files) release() error {
	if f == nil {
		return nil
	}
	var all []error
	for i := len(f.undo) - 1; i >= 0; i-- {
		all = append(all, f.undo[i]())
	}
	return errors.Join(all...)
}

// gather asks BuildKit for the files of a step. What there is must be released,
// whatever the error.
func gather(ctx context.Context, root executor.Mount, mounts []executor.Mount) (*files, error) {
	f := &files{trees: map[string]launch.Tree{}, readOnly: root.Readonly}
	m, err := f.open(ctx, root)
	if err != nil {
		return f, err
	}
	if f.root, err = tree(m); err != nil {
		return f, err
	}
	if root.Selector != "" && path.Clean("/"+root.Selector) != "/" {
		return f, errs.New(errs.Unsupported, "a part of a file system, %s, can't be a root", root.Selector)
	}
	for _, w := range mounts {
		m, err := f.open(ctx, w)
		if err != nil {
			return f, err
		}
		if err := f.add(w, m); err != nil {
			return f, err
		}
	}
	return f, nil
}

// open has BuildKit make a mount's files ready.
func (f *files) open(ctx context.Context, w executor.Mount) (mount.Mount, error) {
	able, err := w.Src.Mount(ctx, w.Readonly)
	if err != nil {
		return mount.Mount{}, err
	}
	list, release, err := able.Mount()
	if err != nil {
		return mount.Mount{}, err
	}
	if release != nil {
		f.undo = append(f.undo, release)
	}
	if len(list) != 1 {
		return mount.Mount{}, errs.New(errs.Unsupported, "mount %s: %d mounts over each other", w.Dest, len(list))
	}
	return list[0], nil
}

// add decides how a mount gets into the container. A selector is resolved by
// launch, by descriptors: whatever links a step has left in a tree lead nowhere
// outside of it.
func (f *files) add(w executor.Mount, m mount.Mount) error {
	target := path.Clean("/" + w.Dest)
	if m.Type == "tmpfs" {
		f.mounts = append(f.mounts, tmpfs(target, m.Options))
		return nil
	}
	t, err := tree(m)
	if err != nil {
		return err
	}
	selector := strings.TrimPrefix(path.Clean("/"+w.Selector), "/")
	f.trees[target] = t
	f.mounts = append(f.mounts, plan.Mount{
		Type: "image", Source: "of the build", Target: target, Subpath: selector, ReadOnly: w.Readonly || readOnly(m.Options),
	})
	return nil
}

// tree reads the directories off what a snapshotter would mount. A directory, or
// a file, alone is an Upper without anything below.
func tree(m mount.Mount) (launch.Tree, error) {
	switch m.Type {
	case "bind", "rbind":
		return launch.Tree{Root: launch.Root{Upper: m.Source}}, nil
	case "overlay":
		if t := overlaid(m.Options); len(t.Lower) > 0 {
			return t, nil
		}
	}
	return launch.Tree{}, errs.New(errs.Unsupported, "mount of type %q", m.Type)
}

// overlaid reads the directories off the options of an overlay mount.
func overlaid(options []string) (t launch.Tree) {
	for _, o := range options {
		switch k, v, _ := strings.Cut(o, "="); k {
		case "lowerdir":
			t.Lower = strings.Split(v, ":")
		case "upperdir":
			t.Upper = v
		case "workdir":
			t.Work = v
		}
	}
	return t
}

func readOnly(options []string) bool {
	for _, o := range options {
		if o == "ro" {
			return true
		}
	}
	return false
}
