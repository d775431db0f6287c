package content

import (
	"context"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// A Small is a blob that is in memory. Begin and End are what a writer of it would
// be opened and committed with.
type Small struct {
	Data   []byte
	Digest digest.Digest
	Begin  []blobs.WriterOpt
	End    []blobs.Opt
}

// Put stores a blob in one transaction, where writing it bit by bit takes two. An
// error of containerd's kind AlreadyExists says that it was there.
func (l *Ledger) Put(ctx context.Context, b Small) error {
	// The collector would wait for who reads or writes blobs, and they for the
	// transaction: it is kept away.
	l.gate.RLock()
	defer l.gate.RUnlock()
	var there error
	err := l.s.meta.Update(func(tx *bolt.Tx) error {
		there = nil
		err := l.put(boltutil.WithTransaction(ctx, tx), b)
		if errdefs.IsAlreadyExists(err) {
			there, err = err, nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return there
}

func (l *Ledger) put(ctx context.Context, b Small) error {
	w, err := l.s.Blobs().Writer(ctx, b.Begin...)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Truncate(0); err != nil { // somebody has begun it before
		return err
	}
	if _, err := w.Write(b.Data); err != nil {
		return err
	}
	return w.Commit(ctx, int64(len(b.Data)), b.Digest, b.End...)
}
