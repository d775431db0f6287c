package content

import (
	"errors"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A Late is a database whose changes stay in one transaction for some time, and are
// read from there: those of the last seconds are lost with the process, as one. It
// is for what nobody waits for (package build, the history).
type Late struct {
	first func() error
	wait  time.Duration

	mu   sync.Mutex
	db   *bolt.DB
	tx   *bolt.Tx // nil while nothing waits
	soon *time.Timer
}

// OpenLate opens a database whose changes wait that long at most. first is called
// before they are written, and fails if they can't be yet.
func OpenLate(path string, wait time.Duration, first func() error) (*Late, error) {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return nil, err
	}
	return &Late{first: first, wait: wait, db: db}, nil
}

// View reads.
func (l *Late) View(read func(*bolt.Tx) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tx == nil {
		return l.db.View(read)
	}
	return read(l.tx)
}

// Keys are those of a bucket; none if it is not there.
func (l *Late) Keys(bucket string) (map[string]bool, error) {
	keys := map[string]bool{}
	return keys, l.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, _ []byte) error {
			keys[string(k)] = true
			return nil
		})
	})
}

// Update changes something. What a change has done before it fails stays.
func (l *Late) Update(change func(*bolt.Tx) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tx == nil {
		tx, err := l.db.Begin(true)
		if err != nil {
			return err
		}
		l.tx = tx
		l.soon = time.AfterFunc(l.wait, l.tick)
	}
	return change(l.tx)
}

// Soon writes what waits without waiting any longer.
func (l *Late) Soon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tx != nil {
		l.soon.Reset(0)
	}
}

// tick writes what waits. What can't be yet is tried again; Close tells of it.
func (l *Late) tick() {
	if l.Flush() == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tx != nil {
		l.soon.Reset(10 * l.wait)
	}
}

// Flush writes what waits.
func (l *Late) Flush() error {
	// Most of it without keeping anybody waiting.
	if err := l.first(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tx == nil {
		return nil
	}
	if err := l.first(); err != nil {
		return err
	}
	l.soon.Stop()
	tx := l.tx
	l.tx = nil
	return tx.Commit()
}

// Close writes what waits, and ends.
func (l *Late) Close() error { return errors.Join(l.Flush(), l.Drop()) }

// Drop ends without what waits.
func (l *Late) Drop() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if l.tx != nil {
		l.soon.Stop()
		err = l.tx.Rollback()
		l.tx = nil
	}
	return errors.Join(err, l.db.Close())
}
