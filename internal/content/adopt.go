package content

import (
	"context"
	"path/filepath"
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

// A Made is a layer that has been made in place: the name of its snapshot, empty
// if it has been unpacked like others, and its chain.
type Made struct {
	Name  string
	Chain digest.Digest
}

// Adopt makes committed snapshots the unpacked layers of their chains: nothing is
// copied. They stay as long as any others while an image needs them (Refer).
// layers are those of an image, lowest first. What lies over something else than
// the layer before, or is unpacked already, is left alone. flushed is called, if
// there is something to adopt, and returns when the files are on disk (Flush). They
// are recorded after that, all in one transaction.
func (a *Adopted) Adopt(ctx context.Context, layers []Made, flushed func() error) error {
	s := a.s
	ctx = Namespaced(ctx)
	var todo []Made
	names := map[digest.Digest]string{}
	below := ""
	for _, l := range layers {
		was := s.SnapshotOf(ctx, l.Chain)
		info, err := s.Snapshots().Stat(ctx, l.Name)
		fits := l.Name != "" && err == nil && info.Kind == snapshots.KindCommitted && info.Parent == below
		if fits && was != l.Name && !s.unpacker.unpacked(ctx, l.Chain) && names[l.Chain] == "" {
			todo, names[l.Chain], was = append(todo, l), l.Name, l.Name
		}
		below = was
	}
	if len(todo) == 0 {
		return nil
	}
	if err := flushed(); err != nil {
		return err
	}
	err := s.Ledger.Atomic(ctx, func(ctx context.Context) error {
		for _, l := range todo {
			update := snapshots.Info{Name: l.Name, Labels: map[string]string{chainLabel: l.Chain.String()}}
			if _, err := s.Snapshots().Update(ctx, update, "labels."+chainLabel); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, l := range todo {
		a.names.Store(l.Chain, l.Name)
	}
	return nil
}

// Flush writes the files of all snapshots to disk.
func (a *Adopted) Flush() error { return Flush(a.s.driver.dir) }

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

// DirsOf returns the directories of a committed snapshot and of those it lies over,
// topmost first, as Store.Dirs does for a layer.
func (a *Adopted) DirsOf(ctx context.Context, key string) ([]string, error) {
	ctx = Namespaced(ctx)
	var dirs []string
	for key != "" {
		info, err := a.s.Snapshots().Stat(ctx, key)
		if err != nil {
			return nil, kind(err)
		}
		dir := info.Labels[upperLabel]
		if info.Kind != snapshots.KindCommitted || filepath.Dir(filepath.Dir(dir)) != a.s.layers {
			return nil, errs.New(errs.Corrupt, "snapshot %s is not a layer", key)
		}
		dirs = append(dirs, dir)
		if a.s.driver.whole {
			break
		}
		key = info.Parent
	}
	return dirs, nil
}
