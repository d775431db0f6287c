package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/llbsolver/mounts"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/layer"
)

// ExporterMoby is the name by which clients that know Docker's engine ask for an
// image in its store.
const ExporterMoby = "moby"

// danglingPrefix is what BuildKit puts before the digest of an image that gets no
// name.
const danglingPrefix = "gantry-dangling"

// imageWorker is BuildKit's worker with the images of this machine: they are
// preferred to those of registries, and builds add to them.
type imageWorker struct {
	*base.Worker
	stores *content.Store
}

// DiskUsage returns the records of the cache. A layer that was never exported is no
// image's, even if one has all that lies below it.
//
// While the files of a record are counted nobody else gets it, and a step that wants
// it as a cache mount would get an empty one: steps wait for that.
func (w *imageWorker) DiskUsage(ctx context.Context, o client.DiskUsageInfo) ([]*client.UsageInfo, error) {
	mu := mounts.CacheMountsLocker()
	mu.Lock()
	list, err := w.Worker.DiskUsage(ctx, o)
	mu.Unlock()
	for _, u := range list {
		u.Shared = u.Shared && w.exported(u.ID)
	}
	return list, err
}

// exported reports whether the layer of a record has a blob.
func (w *imageWorker) exported(id string) bool {
	r, ok := w.MetadataStore.Get(id)
	return ok && r.Get(blobKey) != nil
}

// Exporter returns where results go.
func (w *imageWorker) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	if name != ExporterMoby && name != client.ExporterImage {
		return w.Worker.Exporter(name, sm)
	}
	e, err := w.Worker.Exporter(client.ExporterImage, sm)
	return imageExporter{e, w.stores}, err
}

// imageExporter makes images of this machine.
type imageExporter struct {
	exporter.Exporter
	stores *content.Store
}

// Resolve reads the options of an export.
func (e imageExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	attrs = maps.Clone(attrs)
	if attrs == nil {
		attrs = map[string]string{}
	}
	for k, v := range map[string]string{"dangling-name-prefix": danglingPrefix, "danging-name-empty-only": "true", "name-canonical": "false", "compression-level": "1"} {
		if _, said := attrs[k]; !said {
			attrs[k] = v
		}
	}
	if err := fullNames(attrs); err != nil {
		return nil, err
	}
	// Layers are unpacked by whoever needs them.
	attrs["unpack"] = "false"
	in, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	pushes, _ := strconv.ParseBool(attrs["push"])
	return imageExport{in, pushes, e.stores}, nil
}

// fullNames makes the names of an export those that images have in the store.
func fullNames(attrs map[string]string) error {
	if attrs["name"] == "" || attrs["name"] == "*" {
		return nil
	}
	var names []string
	for _, n := range strings.Split(attrs["name"], ",") {
		ref, err := reference.ParseNormalizedNamed(strings.TrimSpace(n))
		if err != nil {
			return errs.With(errs.Invalid, err)
		}
		if _, ok := ref.(reference.Digested); ok {
			return errs.New(errs.Invalid, "build tag cannot contain a digest")
		}
		if full := reference.TagNameOnly(ref).String(); !slices.Contains(names, full) {
			names = append(names, full)
		}
	}
	attrs["name"] = strings.Join(names, ",")
	return nil
}

// imageExport is one export to an image, which may be pushed too.
type imageExport struct {
	exporter.ExporterInstance
	pushes bool
	stores *content.Store
}

// release gives up what an export has made.
func release(ref exporter.DescriptorReference) error {
	if ref == nil {
		return nil
	}
	return ref.Release()
}

// Export exports.
func (e imageExport) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	what := exported{src: src, session: info.SessionID}
	what.flushed = what.flushes(ctx, e.stores)
	ctx = context.WithValue(ctx, sourceKey{}, what)
	var k kept
	if !e.pushes { // else what is here and what is there would differ
		ctx = drafting(context.WithValue(ctx, keptKey{}, &k))
	}
	resp, finalize, ref, err := e.ExporterInstance.Export(ctx, src, info)
	if err == nil && !k.ok {
		err = settle(ctx, e.stores)
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, release(ref))
	}
	k.answer(resp)
	if k.ok && ref != nil {
		ref = keptReference{ref, k.target}
	}
	return resp, finalize, ref, err
}

// preferLocal is the way to resolve images where nobody has said another.
func preferLocal(mode string) string {
	if mode == "" || mode == pb.AttrImageResolveModeDefault {
		return pb.AttrImageResolveModePreferLocal
	}
	return mode
}

// ResolveSourceMetadata finds out what an image is.
func (w *imageWorker) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, sm *session.Manager, job solver.JobContext) (*sourceresolver.MetaResponse, error) {
	if o := opt.ImageOpt; o != nil {
		with := *o
		with.ResolveMode = preferLocal(o.ResolveMode)
		opt.ImageOpt = &with
	} else if strings.HasPrefix(op.Identifier, "docker-image://") {
		opt.ImageOpt = &sourceresolver.ResolveImageOpt{ResolveMode: pb.AttrImageResolveModePreferLocal}
	}
	return w.Worker.ResolveSourceMetadata(ctx, op, opt, sm, job)
}

// ResolveOp makes what does one operation.
func (w *imageWorker) ResolveOp(v solver.Vertex, s frontend.FrontendLLBBridge, sm *session.Manager, o worker.ProxyOpt) (solver.Op, error) {
	if op, ok := v.Sys().(*pb.Op); ok {
		if src := op.GetSource(); src != nil && strings.HasPrefix(src.Identifier, "docker-image://") {
			if src.Attrs == nil {
				src.Attrs = map[string]string{}
			}
			src.Attrs[pb.AttrImageResolveMode] = preferLocal(src.Attrs[pb.AttrImageResolveMode])
		}
	}
	return w.Worker.ResolveOp(v, s, sm, o)
}

// imageStore are the names of images, as BuildKit wants to change them.
type imageStore struct {
	images.Store
	names  Names
	stores *content.Store
}

// Create records an image.
func (s imageStore) Create(ctx context.Context, i images.Image) (images.Image, error) {
	name := i.Name
	if strings.HasPrefix(name, danglingPrefix+"@") {
		name = ""
	}
	free := unleased{ctx}
	target := instead(free, s, name, i.Target)
	if target.Digest == i.Target.Digest { // else all of it is here
		for _, f := range []func(context.Context, *content.Store) error{fetch, adopt, settle} {
			if err := f(ctx, s.stores); err != nil {
				return i, err
			}
		}
	} else if name != "" {
		if was, err := s.Get(ctx, name); err == nil && was.Target.Digest == target.Digest {
			return i, nil // it has its name
		}
	}
	return i, s.names.Built(free, name, target)
}

// Update records an image.
func (s imageStore) Update(ctx context.Context, i images.Image, _ ...string) (images.Image, error) {
	return s.Create(ctx, i)
}

// Get looks an image up.
func (s imageStore) Get(ctx context.Context, name string) (images.Image, error) {
	return s.Store.Get(content.Namespaced(ctx), name)
}

// List lists images.
func (s imageStore) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	return s.Store.List(content.Namespaced(ctx), filters...)
}

// applier unpacks layers that builds need and that are not unpacked yet.
type applier struct{ store *content.Store }

// Apply unpacks a layer into what a snapshotter would mount. A layer that does
// not have the digest that its image says would be found in the cache by what it
// is not: it is refused.
func (a applier) Apply(ctx context.Context, d ocispec.Descriptor, mounts []mount.Mount, _ ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	if len(mounts) != 1 {
		return ocispec.Descriptor{}, errs.New(errs.Unsupported, "unpack: %d mounts over each other", len(mounts))
	}
	dir, o := mounts[0].Source, layer.Options{Limits: a.store.Limits(), Whole: a.store.Layout().Whole}
	if mounts[0].Type == "overlay" {
		dir = ""
		for _, option := range mounts[0].Options {
			switch k, v, _ := strings.Cut(option, "="); k {
			case "upperdir":
				dir = v
			case "lowerdir":
				o.Parents = strings.Split(v, ":")
			}
		}
	}
	if dir == "" {
		return ocispec.Descriptor{}, errs.New(errs.Unsupported, "unpack: nothing to write to in %s", mounts[0].Type)
	}
	r, _, err := a.store.Open(ctx, d.Digest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	got, stats, err := layer.Unpack(ctx, dir, r, digest.Digest(d.Annotations[labels.LabelUncompressed]), o)
	if err == nil {
		err = content.Flush(dir) // before it gets the name of its layer
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("failed to extract layer %s: %w", d.Digest, err)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: got, Size: stats.Bytes}, nil
}
