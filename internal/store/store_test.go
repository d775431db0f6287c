package store

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"

	"gantry/internal/errs"
)

type record struct {
	Name string
	N    int
}

func open(t *testing.T, path string, ms ...Migration) *DB {
	t.Helper()
	db, err := Open(path, ms...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Check(); err != nil && !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			t.Error("check:", err)
		}
		db.Close()
	})
	return db
}

func TestBucket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "state.db")
	db := open(t, path)
	b := NewBucket[record]("records")
	err := db.View(func(tx *Tx) error {
		if _, err := b.Get(tx, "a"); !errs.Is(err, errs.NotFound) {
			t.Errorf("get from an empty bucket: %v", err)
		}
		if b.Has(tx, "a") || b.Keys(tx) != nil {
			t.Error("an empty bucket has keys")
		}
		for k := range b.All(tx) {
			t.Errorf("an empty bucket yields %q", k)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *Tx) error {
		for i, k := range []string{"c", "a", "b"} {
			if err := b.Put(tx, k, record{k, i}); err != nil {
				return err
			}
		}
		return errors.Join(b.Delete(tx, "b"), b.Delete(tx, "nosuch"), NewBucket[int]("none").Delete(tx, "x"))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *Tx) error {
		got, err := b.Get(tx, "a")
		if err != nil || got != (record{"a", 1}) {
			t.Errorf("got %v, %v", got, err)
		}
		if keys := b.Keys(tx); !slices.Equal(keys, []string{"a", "c"}) || b.Has(tx, "b") {
			t.Errorf("keys %q", keys)
		}
		var all []record
		for k, v := range b.All(tx) {
			if k != v.Name {
				t.Errorf("%q yields %v", k, v)
			}
			all = append(all, v)
		}
		if len(all) != 2 {
			t.Errorf("all: %v", all)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		if fi, err := os.Stat(name); err != nil || fi.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, fi.Mode(), err, want)
		}
	}
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	a, b := NewBucket[int]("a"), NewBucket[int]("b")
	boom := errors.New("boom")
	err := db.Update(func(tx *Tx) error { return errors.Join(a.Put(tx, "k", 1), b.Put(tx, "k", 1), boom) })
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	_ = db.View(func(tx *Tx) error {
		if a.Has(tx, "k") || b.Has(tx, "k") {
			t.Error("a failed transaction left records")
		}
		return nil
	})
}

func TestCorruptRecord(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	raw, typed := NewBucket[json.RawMessage]("r"), NewBucket[record]("r")
	err := db.Update(func(tx *Tx) error {
		return errors.Join(raw.Put(tx, "bad", json.RawMessage(`"text"`)), typed.Put(tx, "good", record{"good", 1}))
	})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	err = db.View(func(tx *Tx) error {
		if _, err := typed.Get(tx, "bad"); !errs.Is(err, errs.Corrupt) {
			t.Errorf("get: %v", err)
		}
		for k := range typed.All(tx) {
			seen = append(seen, k)
		}
		return nil
	})
	if !errs.Is(err, errs.Corrupt) || !slices.Equal(seen, []string{"good"}) {
		t.Errorf("all: %v, saw %q", err, seen)
	}
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	old, now := NewBucket[string]("names"), NewBucket[record]("names")
	first := Migration{1, func(tx *Tx) error { return old.Put(tx, "x", "x") }}
	db := open(t, path, first)
	db.Close()

	boom := errors.New("boom")
	if _, err := Open(path, first, Migration{2, func(tx *Tx) error { return errors.Join(old.Put(tx, "y", "y"), boom) }}); !errors.Is(err, boom) {
		t.Fatalf("failing migration: %v", err)
	}
	runs := 0
	second := Migration{2, func(tx *Tx) error {
		runs++
		if old.Has(tx, "y") {
			t.Error("the failed migration left a record")
		}
		v, err := old.Get(tx, "x")
		return errors.Join(err, now.Put(tx, "x", record{Name: v}))
	}}
	for range 2 {
		db = open(t, path, first, second)
		err := db.View(func(tx *Tx) error {
			got, err := now.Get(tx, "x")
			if got.Name != "x" {
				t.Errorf("got %v", got)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := db.Version(); v != 2 || err != nil {
			t.Errorf("version %d, %v", v, err)
		}
		db.Close()
	}
	if runs != 1 {
		t.Errorf("migration ran %d times", runs)
	}
	if _, err := Open(path, first); !errs.Is(err, errs.Unsupported) {
		t.Errorf("older program: %v", err)
	}
	if _, err := Open(path, second, first); err == nil {
		t.Error("migrations out of order were accepted")
	}
}

func TestOpenErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	open(t, path)
	if _, err := Open(path); !errs.Is(err, errs.Unavailable) {
		t.Errorf("second open: %v", err)
	}
	junk := filepath.Join(t.TempDir(), "junk.db")
	if err := os.WriteFile(junk, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(junk); !errs.Is(err, errs.Corrupt) {
		t.Errorf("no database: %v", err)
	}
}

// TestTornMeta shows that a commit whose last page did not reach the disk whole
// is as if it had not been: bbolt's two meta pages take turns.
func TestTornMeta(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	b := NewBucket[int]("n")
	for i := range 3 {
		if err := db.Update(func(tx *Tx) error { return b.Put(tx, "n", i) }); err != nil {
			t.Fatal(err)
		}
	}
	page := int64(db.b.Info().PageSize)
	db.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The transaction id is the uint64 at 16+48 of a meta page (bbolt format
	// 2); the page with the higher one is the last commit's.
	last, high := int64(0), uint64(0)
	for i := range int64(2) {
		var id [8]byte
		if _, err := f.ReadAt(id[:], i*page+64); err != nil {
			t.Fatal(err)
		}
		if n := binary.LittleEndian.Uint64(id[:]); n > high {
			last, high = i, n
		}
	}
	if _, err := f.WriteAt([]byte("torn"), last*page+40); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	_ = db.View(func(tx *Tx) error {
		if n, err := b.Get(tx, "n"); n != 1 || err != nil {
			t.Errorf("after a torn commit of 2: %d, %v; want 1", n, err)
		}
		return nil
	})
}

const childEnv = "GANTRY_STORE_TEST_CHILD"

// TestKilledWriter kills a process that changes two buckets in each transaction
// and acknowledges each commit. Whatever it acknowledged must be there, and the
// buckets must agree.
func TestKilledWriter(t *testing.T) {
	a, b := NewBucket[int]("a"), NewBucket[int]("b")
	if path := os.Getenv(childEnv); path != "" {
		db, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; ; i++ {
			pad := make([]byte, i*37%9000)
			err := db.Update(func(tx *Tx) error {
				return errors.Join(a.Put(tx, "n", i), NewBucket[[]byte]("pad").Put(tx, strconv.Itoa(i%50), pad), b.Put(tx, "n", i))
			})
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("done", i)
		}
	}
	path := filepath.Join(t.TempDir(), "state.db")
	for round := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$")
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked, kill := 0, false
		for sc := bufio.NewScanner(out); sc.Scan(); {
			fmt.Sscanf(sc.Text(), "done %d", &acked)
			if acked >= 3+round*5 && !kill {
				kill = true
				time.AfterFunc(time.Duration(round)*170*time.Microsecond, func() { cmd.Process.Kill() })
			}
		}
		cmd.Wait()
		db, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		err = db.View(func(tx *Tx) error {
			x, err1 := a.Get(tx, "n")
			y, err2 := b.Get(tx, "n")
			if x != y || x < acked {
				t.Errorf("round %d: acknowledged %d, found %d and %d", round, acked, x, y)
			}
			return errors.Join(err1, err2)
		})
		if err := errors.Join(err, db.Check(), db.Close(), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
	}
}
