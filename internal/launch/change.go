package launch

import (
	"context"
	"path/filepath"

	"gantry/internal/errs"
	"gantry/internal/launch/rootfs"
	"gantry/internal/network"
	"gantry/internal/ociruntime/job"
	"gantry/internal/ocispec"
	"gantry/internal/plan"
)

// Publish makes the published ports of a running container those of its plan and
// returns the sandbox as it is then. Ports that stay are not touched.
func (l *Launcher) Publish(ctx context.Context, in Input) (*network.Sandbox, error) {
	if err := l.fail("publish"); err != nil {
		return nil, err
	}
	s, err := l.o.Networks.Republish(ctx, attachRequest(in))
	if err == nil {
		err = l.fail("published")
	}
	return s, err
}

// AttachmentOf is what a container asks of its networks.
func AttachmentOf(in Input) Attachment { return attachRequest(in) }

// A Source is what a mount of a running container is made of. It must be closed
// when the mount has been made.
type Source struct {
	Mount job.Mount
	b     *build
}

// NewSource returns a source that holds nothing but the mount itself.
func NewSource(m job.Mount) *Source { return &Source{Mount: m} }

// Close lets go of it.
func (s *Source) Close() {
	if s.b != nil {
		s.b.close()
	}
}

// Source makes ready what a mount of a running container is made of: the
// directory of a bind, a volume with the image's content. What it claims of a
// volume is given up with the volume or the container.
func (l *Launcher) Source(ctx context.Context, in Input, m plan.Mount) (_ *Source, err error) {
	if err := l.fail("source"); err != nil {
		return nil, err
	}
	if len(l.runtime(in.Plan)) > 0 {
		return nil, errs.New(errs.Unsupported, "mounts of a running container can only be changed with the runtime of Gantry, and this one has %s", in.Plan.Runtime)
	}
	b := newBuild(l, in)
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	switch m.Type {
	case "bind":
		err = bindSource(m)
	case "volume":
		if b.view, err = rootfs.Open(filepath.Join(l.dir(in.ID), "upper"), in.below()); err == nil {
			err = b.mountVolume(ctx, m)
		}
	}
	if err != nil {
		return nil, err
	}
	o := ocispec.Inputs{Sources: b.sources, Mapped: b.mapped, RecursiveReadOnly: true}
	mode, err := in.Plan.UserMode(l.o.Users != nil && l.o.Users.Remaps())
	if err != nil {
		return nil, err
	}
	if mode != plan.Host {
		o.UserNS = string(mode) // that it has one: the shim knows which
	}
	spec, err := ocispec.Mount(m, o)
	if err != nil {
		return nil, err
	}
	s := &Source{b: b}
	if s.Mount, err = job.MountFromSpec(spec); err != nil {
		return nil, err
	}
	return s, nil
}
