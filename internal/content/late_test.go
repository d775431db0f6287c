package content

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Changes are read at once, written together, not before what comes first, and
// after a failure with the next.
func TestLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "late.db")
	var first error
	open := func(wait time.Duration) *Late {
		t.Helper()
		l, err := OpenLate(path, wait, func() error { return first })
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	put := func(l *Late, key string, fail error) {
		t.Helper()
		if err := l.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("bucket"))
			if err != nil || fail != nil {
				return errors.Join(err, fail)
			}
			return b.Put([]byte(key), []byte("value"))
		}); !errors.Is(err, fail) {
			t.Fatal(err)
		}
	}
	want := func(l *Late, n int) {
		t.Helper()
		if keys, err := l.Keys("bucket"); err != nil || len(keys) != n {
			t.Errorf("%v, want %d (%v)", keys, n, err)
		}
	}
	l := open(time.Hour)
	want(l, 0)
	put(l, "a", nil)
	want(l, 1)
	put(l, "not", errors.New("refused"))
	want(l, 1)
	first = errors.New("not yet")
	if err := l.Flush(); !errors.Is(err, first) {
		t.Errorf("written before: %v", err)
	}
	put(l, "b", nil)
	first = nil
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	put(l, "lost", nil)
	if err := l.Drop(); err != nil {
		t.Fatal(err)
	}
	l = open(time.Millisecond)
	want(l, 2)
	put(l, "c", nil)
	for deadline := time.Now().Add(time.Minute); l.waits(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is written by itself")
		}
	}
	if err := l.Drop(); err != nil {
		t.Fatal(err)
	}
	l = open(time.Hour)
	want(l, 3)
	put(l, "d", nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(time.Hour)
	defer l.Close()
	want(l, 4)
}

func (l *Late) waits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tx != nil
}
