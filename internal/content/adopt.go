package content

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"

	"gantry/internal/errs"
)

// chainLabel on a snapshot is the chain ID that it has been adopted as.
const chainLabel = "gantry.layer/chain"

// Adopted are the snapshots that have another name than their chain ID: those of
// steps of builds, which have become layers as they are.
type Adopted struct {
	s     *Store
	once  sync.Once
	names sync.Map // chain ID → name
}

// Adopt makes the committed snapshot of that name the unpacked layer of chain:
// nothing is copied. It stays as long as any other while an image needs it
// (Refer). parent is the chain of those below it. errs.Conflict if it lies over
// something else, or if the chain is unpacked already.
func (a *Adopted) Adopt(ctx context.Context, name string, chain, parent digest.Digest) error {
	s := a.s
	ctx = Namespaced(ctx)
	below := s.SnapshotOf(ctx, parent)
	info, err := s.Snapshots().Stat(ctx, name)
	if err != nil {
		return kind(err)
	}
	if info.Kind != snapshots.KindCommitted || info.Parent != below {
		return errs.New(errs.Conflict, "snapshot %s is no layer over %s", name, below)
	}
	if s.SnapshotOf(ctx, chain) == name {
		return nil
	}
	if s.unpacker.unpacked(ctx, chain) {
		return errs.New(errs.Conflict, "layer %s is unpacked", chain)
	}
	update := snapshots.Info{Name: name, Labels: map[string]string{chainLabel: chain.String()}}
	if _, err := s.Snapshots().Update(ctx, update, "labels."+chainLabel); err != nil {
		return kind(err)
	}
	a.names.Store(chain, name)
	return nil
}

// SnapshotOf returns the name of the snapshot that has, or would have, the files
// of a chain.
func (a *Adopted) SnapshotOf(ctx context.Context, chain digest.Digest) string {
	if chain == "" {
		return ""
	}
	a.once.Do(func() { a.recall(context.WithoutCancel(ctx)) })
	name, ok := a.names.Load(chain)
	if !ok {
		return chain.String()
	}
	info, err := a.s.Snapshots().Stat(Namespaced(ctx), name.(string))
	if err != nil || info.Labels[chainLabel] != chain.String() {
		a.names.CompareAndDelete(chain, name)
		return chain.String()
	}
	return name.(string)
}

// recall reads what has been adopted before. What it can't read is not used, and
// unpacked again where it is needed.
func (a *Adopted) recall(ctx context.Context) {
	_ = a.s.Snapshots().Walk(Namespaced(ctx), func(_ context.Context, info snapshots.Info) error {
		if chain, err := digest.Parse(info.Labels[chainLabel]); err == nil && info.Kind == snapshots.KindCommitted {
			a.names.Store(chain, info.Name)
		}
		return nil
	}, `labels."`+chainLabel+`"`)
}
