package build

import (
	"bytes"
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	blobstore "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
)

// BuildKit's leases are in the ledger of the stores, which know them only later.
// So what is written under a lease is put under it here, and the stores see no
// lease.

// unleased is a context without a lease.
type unleased struct{ context.Context }

// leasePackage is where the key is that a lease has in a context.
var leasePackage = reflect.TypeFor[leases.Lease]().PkgPath()

// Value returns what a context has under a key.
func (u unleased) Value(key any) any {
	if t := reflect.TypeOf(key); t != nil && t.PkgPath() == leasePackage {
		return nil
	}
	return u.Context.Value(key)
}

// lease puts resources under the lease of ctx, if it is one of the ledger. What is
// done next is to be done with the context it returns.
func (l layerNames) lease(ctx context.Context, list ...leases.Resource) (context.Context, error) {
	id, ok := leases.FromContext(ctx)
	if !ok || !l.store.Ledger.Has(ctx, id) {
		return ctx, nil
	}
	for _, r := range list {
		if err := l.store.Ledger.AddResource(ctx, leases.Lease{ID: id}, r); err != nil {
			return ctx, err
		}
	}
	return unleased{ctx}, nil
}

// files names a snapshot as leases do.
func (l layerNames) files(name string) leases.Resource {
	return leases.Resource{ID: name, Type: "snapshots/" + l.store.Layout().Driver}
}

// blobs is the store of blobs. What is in it already is not written again.
type blobs struct {
	blobstore.Store
	layerNames
	later *later // nil: the history of builds is written like everything else
}

// shelves are where a blob may be that ctx asks for, besides the store.
func (b blobs) shelves(ctx context.Context) []*shelf {
	var list []*shelf
	if s, ok := ctx.Value(draftKey{}).(*shelf); ok {
		list = append(list, s)
	}
	if ns, _ := namespaces.Namespace(ctx); b.later != nil && ns == historyNamespace {
		list = append(list, &b.later.shelf)
	}
	return list
}

// Info tells of a blob.
func (b blobs) Info(ctx context.Context, d digest.Digest) (blobstore.Info, error) {
	for _, s := range b.shelves(ctx) {
		if i, ok := s.info(d); ok {
			return i, nil
		}
	}
	return b.Store.Info(ctx, d)
}

// ReaderAt reads a blob.
func (b blobs) ReaderAt(ctx context.Context, d ocispec.Descriptor) (blobstore.ReaderAt, error) {
	for _, s := range b.shelves(ctx) {
		if data, ok := s.data(d.Digest); ok {
			return shelved{bytes.NewReader(data)}, nil
		}
	}
	return b.Store.ReaderAt(ctx, d)
}

// Writer begins to write a blob.
func (b blobs) Writer(ctx context.Context, opts ...blobstore.WriterOpt) (blobstore.Writer, error) {
	if content.Held(ctx) {
		return b.Store.Writer(ctx, opts...) // the stores know that lease
	}
	var o blobstore.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	list := []leases.Resource{{ID: o.Ref, Type: "ingests"}}
	if o.Desc.Digest != "" {
		list = append(list, leases.Resource{ID: o.Desc.Digest.String(), Type: "content"})
	}
	free, err := b.lease(ctx, list...)
	if err != nil {
		return nil, err
	}
	if o.Desc.Digest != "" { // leased before it is looked for: it stays
		if _, err := b.Info(free, o.Desc.Digest); err == nil {
			return nil, errdefs.ErrAlreadyExists.WithMessage("content " + o.Desc.Digest.String() + ": already exists")
		}
	}
	if o.Desc.Size > maxSmall {
		w, err := b.Store.Writer(free, opts...)
		if err != nil {
			return nil, err
		}
		return &blobWriter{Writer: w, layerNames: b.layerNames}, nil
	}
	var on func(content.Small) error
	if ns, _ := namespaces.Namespace(ctx); b.later != nil && ns == historyNamespace {
		on = b.later.add
	} else if s := draft(ctx, o); s != nil {
		on = s.add
	}
	return &smallWriter{blobs: b, ctx: free, opts: opts, asked: o, on: on, began: time.Now()}, nil
}

// Update changes the labels of a blob, if they change.
func (b blobs) Update(ctx context.Context, info blobstore.Info, fields ...string) (blobstore.Info, error) {
	ctx = unleased{ctx}
	for _, s := range b.shelves(ctx) {
		if _, ok := s.info(info.Digest); ok {
			if err := s.store(ctx, b); err != nil {
				return blobstore.Info{}, err
			}
		}
	}
	was, err := b.Info(ctx, info.Digest)
	if err == nil && len(fields) > 0 && len(info.Labels) > 0 {
		if now, ok := labelled(was.Labels, info.Labels, fields); ok && maps.Equal(now, was.Labels) {
			return was, nil
		}
	}
	return b.Store.Update(ctx, info, fields...)
}

// labelled returns labels with those of change that fields name ("labels.KEY"). It
// is not ok if they name something else. Pure.
func labelled(labels, change map[string]string, fields []string) (map[string]string, bool) {
	now := maps.Clone(labels)
	if now == nil {
		now = map[string]string{}
	}
	for _, f := range fields {
		key, ok := strings.CutPrefix(f, "labels.")
		if !ok {
			return nil, false
		}
		if v := change[key]; v != "" {
			now[key] = v
		} else {
			delete(now, key)
		}
	}
	return now, true
}

// How BuildKit marks the blob of a layer that it has made (its cache/refs.go).
const (
	variantLabel    = "containerd.io/gc.ref.content.blob-"
	mediaTypeLabel  = "buildkit.io/blob/mediatype"
	annotationLabel = "buildkit.io/blob/annotation."
)

// ofLayer adds to what the blob d of a layer is committed with, if it is one, the
// labels that BuildKit would give it next, which were a transaction of its own.
func ofLayer(mediaType string, d digest.Digest, opts []blobstore.Opt) []blobstore.Opt {
	var info blobstore.Info
	for _, opt := range opts {
		if opt(&info) != nil {
			return opts
		}
	}
	diff := info.Labels[labels.LabelUncompressed]
	if diff == "" || !images.IsLayerType(mediaType) {
		return opts
	}
	all := maps.Clone(info.Labels)
	all[variantLabel+d.String()], all[mediaTypeLabel], all[annotationLabel+labels.LabelUncompressed] = d.String(), mediaType, diff
	return append(slices.Clone(opts), blobstore.WithLabels(all))
}
