package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"gantry/internal/errs"
	"gantry/internal/id"
)

// Prefixes of lease ids, which tell what a lease is for.
const (
	holdPrefix = "hold-"
	pinPrefix  = "pin-"
)

// Hold returns a context in which whatever is written to the stores is kept
// until release is called, even if nothing else names it yet. release removes
// what is still unnamed. A hold ends with its process.
func (s *Store) Hold(ctx context.Context) (held context.Context, release func(), err error) {
	ctx = Namespaced(ctx)
	l, err := s.leases.Create(ctx, leases.WithID(holdPrefix+id.New()), leases.WithExpiration(7*24*time.Hour))
	if err != nil {
		return nil, nil, kind(err)
	}
	return leases.WithLease(ctx, l.ID), func() {
		done := context.WithoutCancel(ctx)
		// What this leaves behind is removed by the next collection.
		_ = s.leases.Delete(done, l)
		_ = s.Collect(done)
	}, nil
}

// Held tells whether ctx is one that Hold has made.
func Held(ctx context.Context) bool {
	id, ok := leases.FromContext(ctx)
	return ok && strings.HasPrefix(id, holdPrefix)
}

// dropHolds ends the holds of a process that is no more and removes what they
// kept.
func dropHolds(ctx context.Context, s *Store) error {
	list, err := s.leases.List(ctx)
	if err != nil {
		return kind(err)
	}
	dropped := false
	for _, l := range list {
		if strings.HasPrefix(l.ID, holdPrefix) {
			dropped = true
			if err := s.leases.Delete(ctx, l); err != nil {
				return kind(err)
			}
		}
	}
	if !dropped {
		return nil
	}
	if c, ok := s.overlay.(snapshots.Cleaner); ok {
		// Not found: there has never been a snapshot.
		if err := c.Cleanup(ctx); err != nil && !errdefs.IsNotFound(err) {
			return kind(err)
		}
	}
	// Nobody writes yet: what is half-written stays so, unless a fetch can be
	// continued.
	if err := dropIngests(s.ingests); err != nil {
		return err
	}
	if err := disturb(ctx, s); err != nil {
		return fmt.Errorf("sweep: %w", kind(err))
	}
	return s.Collect(ctx)
}

// disturb makes and removes a blob and a layer. The collector looks for what is
// on disk without being in the database, such as the work of a process that was
// killed between the two, only in stores that something was removed from.
func disturb(ctx context.Context, s *Store) error {
	d, err := s.Write(ctx, strings.NewReader(id.New()), "")
	if err != nil {
		return err
	}
	if err := s.Blobs().Delete(ctx, d.Digest); err != nil {
		return err
	}
	key := "sweep-" + id.New()
	_, err = s.Snapshots().Prepare(ctx, key, "")
	if errors.Is(err, fs.ErrExist) {
		// A process that was killed between making a directory and recording it
		// has left one where this shall be. The driver has removed it.
		_, err = s.Snapshots().Prepare(ctx, key, "")
	}
	if err != nil {
		return err
	}
	return s.Snapshots().Remove(ctx, key)
}

// Pin keeps the blobs of the given digests, and what they refer to, for owner
// until Unpin, whatever names are removed. Another Pin of the same owner
// replaces the first. errs.NotFound if one of the blobs is gone already.
func (s *Store) Pin(ctx context.Context, owner string, keep ...digest.Digest) error {
	ctx = Namespaced(ctx)
	err := s.meta.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		l := leases.Lease{ID: pinPrefix + owner}
		if err := s.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if _, err := s.leases.Create(ctx, leases.WithID(l.ID)); err != nil {
			return err
		}
		for _, d := range keep {
			if err := s.leases.AddResource(ctx, l, leases.Resource{ID: d.String(), Type: "content"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return kind(fmt.Errorf("pin for %s: %w", owner, err))
	}
	// Looked at afterwards: from here on nothing collects them.
	for _, d := range keep {
		if _, err := s.Info(ctx, d); err != nil {
			return errors.Join(fmt.Errorf("pin for %s: %w", owner, err), s.Unpin(ctx, owner))
		}
	}
	return nil
}

// leaseLayers adds unpacked layers, which need not exist yet, to the hold of
// ctx, if it has one.
func (s *Store) leaseLayers(ctx context.Context, chains []digest.Digest) error {
	hold, ok := leases.FromContext(ctx)
	if !ok {
		return nil
	}
	var names []string
	for _, chain := range chains {
		// Both, in case that what was adopted goes this very moment.
		names = append(names, chain.String())
		if name := s.SnapshotOf(ctx, chain); name != chain.String() {
			names = append(names, name)
		}
	}
	return kind(s.meta.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for _, name := range names {
			r := leases.Resource{ID: name, Type: "snapshots/" + s.driver.name}
			if err := s.leases.AddResource(ctx, leases.Lease{ID: hold}, r); err != nil {
				return err
			}
		}
		return nil
	}))
}

// Keep adds blobs that exist, and what they refer to, to the hold of ctx.
func (s *Store) Keep(ctx context.Context, keep ...digest.Digest) error {
	hold, ok := leases.FromContext(ctx)
	if !ok {
		return errs.New(errs.Unknown, "keep: the context holds nothing")
	}
	for _, d := range keep {
		err := s.leases.AddResource(Namespaced(ctx), leases.Lease{ID: hold}, leases.Resource{ID: d.String(), Type: "content"})
		if err != nil {
			return kind(err)
		}
		if _, err := s.Info(ctx, d); err != nil { // afterwards: now it stays
			return err
		}
	}
	return nil
}

// Unpin ends a pin. What it alone kept goes at the next collection. To unpin
// what is not pinned is no error.
func (s *Store) Unpin(ctx context.Context, owner string) error {
	err := s.leases.Delete(Namespaced(ctx), leases.Lease{ID: pinPrefix + owner})
	if err != nil && !errdefs.IsNotFound(err) {
		return kind(fmt.Errorf("unpin for %s: %w", owner, err))
	}
	return nil
}

// Pinned returns the owners of all pins.
func (s *Store) Pinned(ctx context.Context) ([]string, error) {
	list, err := s.leases.List(Namespaced(ctx))
	if err != nil {
		return nil, kind(err)
	}
	var owners []string
	for _, l := range list {
		if owner, ok := strings.CutPrefix(l.ID, pinPrefix); ok {
			owners = append(owners, owner)
		}
	}
	return owners, nil
}

// Collect removes the blobs and layers that no name, pin or hold keeps.
func (s *Store) Collect(ctx context.Context) error {
	done, err := s.Ledger.collecting(Namespaced(ctx))
	if err != nil {
		return fmt.Errorf("collect unused content: %w", err)
	}
	defer done()
	_, err = s.meta.GarbageCollect(Namespaced(ctx))
	// A directory that we remember may be gone: its number is never used
	// again, so to forget all is only a matter of speed.
	s.dirs.Clear()
	if err != nil {
		return fmt.Errorf("collect unused content: %w", err)
	}
	return nil
}
