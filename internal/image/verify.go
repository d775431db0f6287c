package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// VerifyOptions say what to verify.
type VerifyOptions struct {
	Names []string // of images; none for all
	// Repair mends what it can.
	Repair bool
	// Fetch gets a blob or manifest again from the registry of a repository, and
	// has take read and check it. nil: there is no registry.
	Fetch func(ctx context.Context, repository string, d ocispec.Descriptor, take func(io.Reader) error) error
}

// A verification is one run of Verify.
type verification struct {
	*Images
	o      VerifyOptions
	v      *content.Verifier
	check  wire.ImageCheck
	looked map[string]bool // blobs and layers
	fresh  bool            // a blob of the image was missing and is here now
}

// maxPaths is how many paths of a layer a fault names.
const maxPaths = 20

// Verify reads every blob of images again and unpacks every layer once more to
// compare it. What is missing of an index, since it is for other machines, is no
// fault.
func (s *Tools) Verify(ctx context.Context, o VerifyOptions) (wire.ImageCheck, error) {
	held, release, err := s.store.Hold(ctx)
	if err != nil {
		return wire.ImageCheck{}, err
	}
	defer release()
	groups, err := s.chosen(held, o.Names)
	if err != nil {
		return wire.ImageCheck{}, err
	}
	r := &verification{Images: s.Images, o: o, v: content.NewVerifier(s.store), looked: map[string]bool{}}
	r.check.Faults = []wire.ImageFault{}
	for _, g := range groups {
		r.check.Images++
		if err := r.image(held, g); err != nil {
			return r.check, err
		}
		if err := r.relate(held, g); err != nil {
			return r.check, err
		}
	}
	return r.check, nil
}

// chosen returns the images that names mean; all for none.
func (s *catalog) chosen(ctx context.Context, names []string) ([]group, error) {
	if len(names) == 0 {
		return s.groups(ctx)
	}
	var list []group
	for _, n := range names {
		q, err := parseQuery(n)
		if err != nil {
			return nil, err
		}
		g, _, err := s.lookup(ctx, q)
		if err != nil {
			return nil, err
		}
		if g, err = s.whole(ctx, g); err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, nil
}

// called is how a fault calls an image.
func (g group) called() string {
	if names := g.names(); len(names) > 0 {
		return names[0]
	}
	return g.target.Digest.String()
}

func (r *verification) image(ctx context.Context, g group) error {
	if !r.blob(ctx, g, g.target) {
		return ctx.Err()
	}
	list, err := r.manifests(ctx, g.target)
	if err != nil {
		r.fault(wire.ImageFault{Image: g.called(), Kind: "blob", Digest: g.target.Digest.String(), Problem: err.Error()})
		return ctx.Err()
	}
	for _, m := range list {
		if _, err := r.store.Info(ctx, m.Digest); errs.Is(err, errs.NotFound) && m.Digest != g.target.Digest {
			continue
		}
		if !r.blob(ctx, g, m) {
			continue
		}
		c, err := r.load(ctx, m)
		if err != nil {
			if d := configOf(ctx, r.catalog, m); d != nil && !r.blob(ctx, g, *d) {
				continue
			}
			if c, err = r.load(ctx, m); err != nil {
				r.fault(wire.ImageFault{Image: g.called(), Kind: "blob", Digest: m.Digest.String(), Problem: err.Error()})
				continue
			}
		}
		if err := r.layers(ctx, g, c); err != nil {
			return err
		}
	}
	return r.told(ctx, g)
}

// told verifies what of an image's attestations is here.
func (r *verification) told(ctx context.Context, g group) error {
	list, err := r.everyManifest(ctx, g.target)
	if err != nil {
		return err
	}
	for _, m := range list {
		if _, err := r.store.Info(ctx, m.Digest); err != nil || !isAttestation(m) || !r.blob(ctx, g, m) {
			continue
		}
		all, err := r.attested(ctx, m)
		if err != nil {
			return err
		}
		for _, a := range all {
			for _, d := range a.blobs() {
				if _, err := r.store.Info(ctx, d.Digest); err == nil {
					r.blob(ctx, g, d)
				}
			}
		}
	}
	return ctx.Err()
}

// configOf reads the configuration's descriptor of a manifest; nil if it can't.
func configOf(ctx context.Context, s *catalog, m ocispec.Descriptor) *ocispec.Descriptor {
	data, err := s.store.Read(ctx, m, maxManifest)
	if err != nil {
		return nil
	}
	b, err := parseBody(data, m.MediaType)
	if err != nil {
		return nil
	}
	return b.Config
}

func (r *verification) layers(ctx context.Context, g group, c *parts) error {
	if !r.blob(ctx, g, c.conf) {
		return ctx.Err()
	}
	mend := content.Leave
	if r.o.Repair {
		mend = content.Replace
	}
	for i, l := range c.layers {
		if !r.blob(ctx, g, l.Blob) {
			return ctx.Err() // those above can't be unpacked either
		}
		chain := content.Chain(c.layers, i+1).String()
		if r.looked["chain "+chain] {
			continue
		}
		r.looked["chain "+chain] = true
		paths, err := r.v.Layer(ctx, c.layers[:i+1], mend)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if content.Full(err) {
			return fmt.Errorf("there is no room to unpack the layer %s beside itself: %w", chain, err)
		}
		r.check.Layers++
		if err == nil && len(paths) == 0 {
			continue
		}
		f := wire.ImageFault{Image: g.called(), Kind: "layer", Digest: chain, Paths: paths[:min(len(paths), maxPaths)]}
		f.Problem = fmt.Sprintf("the unpacked layer differs at %d paths", len(paths))
		switch {
		case errs.Is(err, errs.Corrupt):
			f.Problem, f.Why = err.Error(), "repair was not asked for"
		case err != nil && len(paths) == 0:
			f.Problem, f.Why = "it can't be unpacked: "+err.Error(), "remove the image and get it again"
		case err != nil:
			f.Why = err.Error()
		case r.o.Repair:
			f.Repaired = true
		default:
			f.Why = "repair was not asked for"
		}
		r.fault(f)
	}
	return nil
}

func (r *verification) fault(f wire.ImageFault) { r.check.Faults = append(r.check.Faults, f) }

// blob verifies one blob, and reports whether it is good then.
func (r *verification) blob(ctx context.Context, g group, d ocispec.Descriptor) bool {
	if good, known := r.looked[d.Digest.String()]; known {
		return good
	}
	err := r.v.Blob(ctx, d.Digest)
	if ctx.Err() != nil {
		return false
	}
	r.check.Blobs++
	r.check.Bytes += d.Size
	r.looked[d.Digest.String()] = err == nil
	if err == nil {
		return true
	}
	f := wire.ImageFault{Image: g.called(), Kind: "blob", Digest: d.Digest.String(), Problem: err.Error()}
	if errs.Is(err, errs.NotFound) {
		f.Kind = "missing"
	}
	switch {
	case !r.o.Repair:
		f.Why = "repair was not asked for"
	case r.o.Fetch == nil:
		f.Why = "there is no registry to get it from"
	default:
		err := r.refetch(ctx, g, d)
		if f.Repaired = err == nil; err != nil {
			f.Why = err.Error()
		}
	}
	r.looked[d.Digest.String()] = f.Repaired
	r.fault(f)
	return f.Repaired
}

// refetch gets a damaged blob from the registries of the image's names.
func (r *verification) refetch(ctx context.Context, g group, d ocispec.Descriptor) error {
	repos := g.repositories()
	if len(repos) == 0 {
		return errs.New(errs.NotFound, "the image has no name that tells a registry")
	}
	var last error
	for _, repo := range repos {
		last = r.o.Fetch(ctx, repo, d, func(in io.Reader) error {
			news, err := r.v.Restore(ctx, d.Digest, in)
			r.fresh = r.fresh || news && err == nil
			return err
		})
		if last == nil {
			r.mu.Lock()
			clear(r.parts)
			r.mu.Unlock()
			return r.v.Blob(ctx, d.Digest)
		}
	}
	last = errs.New(errs.Unavailable, "it could not be fetched (load or pull the image again): %w", last)
	if isManifest(d.MediaType) || isIndex(d.MediaType) || ctx.Err() != nil {
		return last // what it keeps would go with it
	}
	return errors.Join(last, r.v.Forget(ctx, d.Digest))
}

// relate notes what an image needs anew if some of it was missing.
func (r *verification) relate(ctx context.Context, g group) error {
	if !r.fresh {
		return nil
	}
	r.fresh = false
	err := r.note(ctx, g.target)
	if errs.Is(err, errs.Corrupt) {
		return nil // which the faults tell
	}
	return err
}
