package build

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/moby/buildkit/util/db/boltutil"

	"gantry/internal/content"
)

// The history of builds is no build's result, and nobody waits for it: its records
// stay in one transaction, and their blobs on a shelf, until some time after the
// first of them. Blobs get to the disk before the records that name them; those of
// the last seconds are lost if the daemon is killed, and leave nothing.

// historyNamespace is where BuildKit keeps the blobs and leases of its history.
const historyNamespace = content.Namespace + "_history"

// historyRecords is BuildKit's bucket of the records, and historyLease how the lease
// of one begins. Source: solver/llbsolver/history.
const (
	historyRecords = "_records"
	historyLease   = "ref_"
)

// Bounds of how long the history waits, and of the blobs that wait, in bytes.
const (
	laterAfter = 2 * time.Second
	laterBytes = 8 << 20
)

// later is the database of BuildKit's history, and the shelf of its blobs. The
// database is locked before the shelf.
type later struct {
	*content.Late
	shelf shelf
}

// openLater opens the history; a damaged one is put aside.
func openLater(ctx context.Context, path string, s *content.Store, wait time.Duration) (*later, error) {
	checked, err := boltutil.SafeOpen(path, 0o600, nil)
	if err != nil {
		return nil, err
	}
	if err := checked.Close(); err != nil {
		return nil, err
	}
	ctx = unleased{namespaces.WithNamespace(context.WithoutCancel(ctx), historyNamespace)}
	l, to := &later{}, blobs{Store: s.Blobs(), layerNames: layerNames{s}}
	l.Late, err = content.OpenLate(path, wait, func() error { return l.shelf.store(ctx, to) })
	if err != nil {
		return nil, err
	}
	if err := l.sweep(ctx, s.Ledger); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// add lets a blob wait.
func (l *later) add(b content.Small) error {
	err := l.shelf.add(b)
	if l.shelf.bytes() > laterBytes {
		go l.Soon() // who adds one may be changing a record
	}
	return err
}

// sweep drops the leases of records that a killed daemon has not written.
func (l *later) sweep(ctx context.Context, ledger leases.Manager) error {
	list, err := ledger.List(ctx)
	if err != nil {
		return err
	}
	known, err := l.Keys(historyRecords)
	if err != nil {
		return err
	}
	for _, one := range list {
		if ref, ok := strings.CutPrefix(one.ID, historyLease); ok && !known[ref] {
			if err := ledger.Delete(ctx, one); err != nil {
				return err
			}
		}
	}
	return nil
}
