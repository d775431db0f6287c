// Package store is the daemon's one database file: typed buckets of JSON values
// in a bbolt file (state.db), read and changed in explicit transactions.
//
// It owns the file, its permissions and its schema version. The engine, the
// networks and the volumes keep their records in it, each in buckets of its
// own, and may change several buckets in one transaction. Only decisions are
// written here; what can be observed again (running, exit code) is not. The
// package must not know what the values mean.
//
// When Update returns nil the change is on disk (fdatasync(2)); when the
// process or the machine dies before, the file holds what it held.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"gantry/internal/errs"
)

// lockWait is how long Open waits for another process to let go of the file:
// long enough for a daemon that is just ending.
const lockWait = 2 * time.Second

// A DB is an open database file. It is safe for concurrent use: readers see the
// last commit and never wait, writers take turns.
type DB struct{ b *bolt.DB }

// A Tx is a transaction, valid only inside the function it was given to.
type Tx struct {
	b   *bolt.Tx
	err error // a value that All could not decode
}

// Open opens the database at path, or creates it (directory 0700, file 0600),
// and brings it to the schema of this program by running the migrations it has
// not had yet, all in one transaction. Migrations are listed in order of To.
//
// A file that another process holds is errs.Unavailable, one that a newer
// program wrote is errs.Unsupported, one that is no database is errs.Corrupt.
func Open(path string, migrations ...Migration) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	b, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType, PreLoadFreelist: true})
	switch {
	case err == nil:
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, errs.New(errs.Unavailable, "open %s: another process uses this file", path)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, errs.New(errs.Corrupt, "open %s: %w", path, err)
	default:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db := &DB{b}
	if err := db.migrate(migrations); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), b.Close())
	}
	return db, nil
}

// Close waits for the transactions that run and closes the file.
func (d *DB) Close() error { return d.b.Close() }

// View runs fn with a view of the last commit. Transactions must not nest.
func (d *DB) View(fn func(*Tx) error) error {
	return d.b.View(func(b *bolt.Tx) error { return run(b, fn) })
}

// Update runs fn in a transaction that can write, and commits it durably if fn
// returns nil; otherwise nothing changes. Transactions must not nest, and fn
// must not do I/O of its own: other writers wait for it.
func (d *DB) Update(fn func(*Tx) error) error {
	return d.b.Update(func(b *bolt.Tx) error { return run(b, fn) })
}

func run(b *bolt.Tx, fn func(*Tx) error) error {
	tx := &Tx{b: b}
	if err := fn(tx); err != nil {
		return err
	}
	return tx.err
}

// Check reads every page of the file and returns what is wrong with its
// structure, as errs.Corrupt, or nil.
func (d *DB) Check() error {
	return d.b.View(func(tx *bolt.Tx) error {
		var all []error
		for err := range tx.Check() { // must be drained, or the checker leaks
			all = append(all, err)
		}
		return errs.With(errs.Corrupt, errors.Join(all...))
	})
}

// Bucket is a named set of records of type T, stored as JSON under string keys.
// It holds no state: make one wherever the records are used.
type Bucket[T any] struct{ name []byte }

// NewBucket returns the bucket called name. It exists in the file from the
// first Put on; until then it reads as empty.
func NewBucket[T any](name string) Bucket[T] { return Bucket[T]{[]byte(name)} }

// Get returns the record of key: errs.NotFound if there is none, errs.Corrupt
// if it can't be decoded.
func (b Bucket[T]) Get(tx *Tx, key string) (T, error) {
	var v T
	data := b.raw(tx, key)
	if data == nil {
		return v, errs.New(errs.NotFound, "no %q in %s", key, b.name)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, errs.New(errs.Corrupt, "%q in %s: %w", key, b.name, err)
	}
	return v, nil
}

// Has reports whether key has a record.
func (b Bucket[T]) Has(tx *Tx, key string) bool { return b.raw(tx, key) != nil }

func (b Bucket[T]) raw(tx *Tx, key string) []byte {
	bk := tx.b.Bucket(b.name)
	if bk == nil {
		return nil
	}
	return bk.Get([]byte(key))
}

// Put writes the record of key, replacing what is there.
func (b Bucket[T]) Put(tx *Tx, key string, v T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("put %q in %s: %w", key, b.name, err)
	}
	bk, err := tx.b.CreateBucketIfNotExists(b.name)
	if err == nil {
		err = bk.Put([]byte(key), data)
	}
	if err != nil {
		return fmt.Errorf("put %q in %s: %w", key, b.name, err)
	}
	return nil
}

// Delete removes the record of key. To remove what is not there is no error.
func (b Bucket[T]) Delete(tx *Tx, key string) error {
	bk := tx.b.Bucket(b.name)
	if bk == nil {
		return nil
	}
	if err := bk.Delete([]byte(key)); err != nil {
		return fmt.Errorf("delete %q in %s: %w", key, b.name, err)
	}
	return nil
}

// All yields every record in order of its key. A record that can't be decoded
// is left out and fails the transaction with errs.Corrupt, after its function
// has returned. Do not Put or Delete in the same bucket while it runs. Where
// one bad record must not hide the good ones, use Keys and Get.
func (b Bucket[T]) All(tx *Tx) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		bk := tx.b.Bucket(b.name)
		if bk == nil {
			return
		}
		c := bk.Cursor()
		for k, data := c.First(); k != nil; k, data = c.Next() {
			var v T
			if err := json.Unmarshal(data, &v); err != nil {
				tx.err = errors.Join(tx.err, errs.New(errs.Corrupt, "%q in %s: %w", k, b.name, err))
				continue
			}
			if !yield(string(k), v) {
				return
			}
		}
	}
}

// Keys returns every key in order. The slice is the caller's.
func (b Bucket[T]) Keys(tx *Tx) []string {
	bk := tx.b.Bucket(b.name)
	if bk == nil {
		return nil
	}
	var keys []string
	c := bk.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		keys = append(keys, string(k))
	}
	return keys
}
