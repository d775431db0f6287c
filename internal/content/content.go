// Package content owns what images are made of: blobs by digest, the names that
// keep them, the directories that layers are unpacked to, and the collector of
// what nothing keeps any more. The stores are those of containerd, opened in
// this process: blobs below <root>/content, overlay snapshots below
// <root>/snapshots, those of other storage drivers below <root>/drivers/<name>.
//
// Package image gives them their meaning, and the builder works on the same
// stores. It must not know of containers beyond the owner ids of pins.
//
// Durability: a blob or layer directory is on disk before the record that
// names it. What a crash leaves behind belongs to a hold of that process, and
// the next Open drops it.
package content

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"gantry/internal/errs"
	"gantry/internal/layer"
)

// Namespace is the containerd namespace of everything in the stores.
const Namespace = "gantry"

// Options says where the stores are and what they accept.
type Options struct {
	Root   string       // data root, absolute; created with mode 0700
	Limits layer.Limits // of a layer; zero for the defaults
	Driver string       // of storage; OverlayFS if empty
	// Room is called when the disk is full. It reports whether it has removed
	// something, so that it is worth another try. Nil: there is nothing to remove.
	Room func(ctx context.Context) bool
}

// A Store is the open stores. It is safe for concurrent use.
type Store struct {
	limits  layer.Limits
	room    func(ctx context.Context) bool
	meta    *metadata.DB
	overlay snapshots.Snapshotter // below meta's
	driver  *driver
	*Garbage
	leases  leases.Manager
	Ledger  *Ledger // leases that may be lost in a power cut
	images  images.Store
	ingests string // directory of blobs being written

	unpacker unpacker
	dirs     sync.Map // chain ID → directory, of layers that are committed
	*Adopted
}

// Open opens the stores below o.Root, or makes them. Only one process may do so
// at a time: errs.Unavailable otherwise. What a crash has left half-made is
// removed.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open image store in %s: %w", o.Root, err)
		}
	}()
	// The stores warn, through a logger of their own, of what file systems
	// lack that nobody asked for.
	if err := log.SetLevel("error"); err != nil {
		return nil, err
	}
	blobDir := filepath.Join(o.Root, "content")
	for _, dir := range []string{o.Root, blobDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	db, err := bolt.Open(filepath.Join(blobDir, "metadata.db"), 0o600, &bolt.Options{Timeout: 2 * time.Second, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, errs.New(errs.Unavailable, "another process uses it")
	} else if err != nil {
		return nil, err
	}
	if err := dropRestores(blobDir); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &Store{limits: o.Limits, room: o.Room, ingests: filepath.Join(blobDir, "ingest")}
	s.Adopted = &Adopted{s: s}
	s.unpacker.s, s.unpacker.slots = s, make(chan struct{}, runtime.NumCPU())
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	raw, err := local.NewStore(blobDir)
	if err != nil {
		return nil, err
	}
	if s.driver, err = openDriver(o); err != nil {
		return nil, err
	}
	s.Garbage = &Garbage{newTrash(ctx, s.driver.layers), s.driver.dir}
	s.overlay = s.trash
	s.meta = metadata.NewDB(db, files{raw}, map[string]snapshots.Snapshotter{s.driver.name: s.overlay}, metadata.WithPolicyIsolated)
	s.leases, s.images = metadata.NewLeaseManager(s.meta), metadata.NewImageStore(s.meta)
	ctx = Namespaced(ctx)
	if err := s.meta.Init(ctx); err != nil {
		return nil, errors.Join(err, s.overlay.Close())
	}
	if s.Ledger, err = openLedger(ctx, s, ledgerPath(o.Root)); err == nil {
		err = dropHolds(ctx, s)
	}
	if err != nil {
		return nil, errors.Join(err, s.overlay.Close())
	}
	// What was removed before and is not deleted yet.
	return s, s.trash.Cleanup(ctx)
}

// Close closes the stores. Nothing may be using them.
func (s *Store) Close() error {
	flushed := s.Ledger.Flush(s.Ledger.live)
	return errors.Join(flushed, s.overlay.Close(), s.driver.others(), s.meta.Close())
}

// Namespaced returns ctx for calls of the stores that the methods below return.
// The methods of Store do it themselves.
func Namespaced(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Blobs returns the store of blobs.
func (s *Store) Blobs() blobs.Store { return s.meta.ContentStore() }

// Images returns the store of names.
func (s *Store) Images() images.Store { return s.images }

// Leases returns the manager of leases.
func (s *Store) Leases() leases.Manager { return s.leases }

// Limits are those of Options.
func (s *Store) Limits() layer.Limits { return s.limits }

// Metadata returns the database of the stores.
func (s *Store) Metadata() *metadata.DB { return s.meta }

// kind gives an error of the stores one of our kinds.
func kind(err error) error {
	switch {
	case err == nil, errs.KindOf(err) != errs.Unknown:
		return err
	case errdefs.IsNotFound(err):
		return errs.With(errs.NotFound, err)
	case errdefs.IsAlreadyExists(err):
		return errs.With(errs.Conflict, err)
	case errdefs.IsInvalidArgument(err), errdefs.IsFailedPrecondition(err):
		return errs.With(errs.Invalid, err)
	}
	return err
}

// Atomic runs fn with a context in which all changes of names, pins and labels
// are one transaction: durable together if fn returns nil, else not made.
func (s *Store) Atomic(ctx context.Context, fn func(ctx context.Context) error) error {
	return kind(s.meta.Update(func(tx *bolt.Tx) error {
		return fn(boltutil.WithTransaction(Namespaced(ctx), tx))
	}))
}
