package storage_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/errs"
	"gantry/internal/registry/storage"
	"gantry/internal/registry/storage/s3"
	"gantry/internal/registry/storage/s3/s3fake"
)

func bucket(t *testing.T, f *s3fake.Server) *s3.Bucket {
	b, err := s3.New(s3.Options{Endpoint: f.URL, Bucket: s3fake.Bucket, Prefix: "p", AccessKey: s3fake.Key, SecretKey: s3fake.Secret})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A bucket has one server at a time: another is refused while the first one is
// heard of, and takes over when it has ended or is silent.
func TestOwnership(t *testing.T) {
	f := s3fake.Start(t)
	b := bucket(t, f)
	ctx := t.Context()
	own := func(id string, lease time.Duration, lost func(error)) (*storage.Owned, error) {
		if lost == nil {
			lost = func(err error) { t.Errorf("%s: %v", id, err) }
		}
		return storage.Own(ctx, b, storage.Owner{ID: id, Name: "server " + id, Lease: lease}, lost)
	}
	first, err := own("one", 900*time.Millisecond, nil)
	if err != nil {
		t.Fatal(err)
	}
	// On a slow machine a short lease may end before it is renewed.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := first.Put(ctx, "x/a", []byte("1"))
		if err == nil {
			break
		}
		if !errs.Is(err, errs.Unavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	// A long patience: however slow the machine is, the first one is heard.
	if _, err := own("two", 15*time.Second, nil); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "server one") {
		t.Errorf("a second server: %v", err)
	}
	if err := first.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := first.Put(ctx, "x/a", []byte("2")); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a change by who has given it up: %v", err)
	}
	// It has been given up: nobody waits for the lease.
	second, err := own("two", 15*time.Second, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Put(ctx, "x/a", []byte("3")); err != nil {
		t.Fatal(err)
	}
	// The same server, killed and started again, need not wait either.
	again, err := own("two", 15*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// A server that has been silent for its lease loses the bucket to who waits, and
// changes nothing any more.
func TestOwnershipLost(t *testing.T) {
	f := s3fake.Start(t)
	b := bucket(t, f)
	ctx := t.Context()
	var once sync.Once
	gone := make(chan struct{})
	first, err := storage.Own(ctx, b, storage.Owner{ID: "one", Name: "one", Lease: 1500 * time.Millisecond}, func(error) { once.Do(func() { close(gone) }) })
	if err != nil {
		t.Fatal(err)
	}
	// Somebody takes it without asking, as after a partition.
	if err := b.Put(ctx, "owner", []byte(`{"id":"two","run":"r","name":"two","seq":9}`)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Fatal("it has not noticed")
	}
	if err := first.Put(ctx, "x/a", []byte("1")); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "two") {
		t.Errorf("put: %v", err)
	}
	if err := first.Delete(ctx, "owner"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("delete: %v", err)
	}
	if err := first.Close(ctx); err != nil {
		t.Fatal(err)
	}
	// Server two is not heard of: after a lease it is believed to have ended.
	third, err := storage.Own(ctx, b, storage.Owner{ID: "three", Name: "three", Lease: 600 * time.Millisecond}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// What a server that was killed has left half done goes when the next one starts.
func TestRecover(t *testing.T) {
	dir := t.TempDir()
	l, err := storage.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Put(t.Context(), "x/a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, ".tmp-incoming", "put-1")
	if err := os.WriteFile(half, []byte("ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := storage.Recover(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
	if data, err := storage.Read(t.Context(), l, "x/a", 10); err != nil || string(data) != "1" {
		t.Errorf("%q, %v", data, err)
	}
	f := s3fake.Start(t)
	for _, key := range []string{"p/blobs/1", "p/blobs/2", "p/blobs/3", "p/blobs/4", "other/1"} {
		f.Begin(key)
	}
	if err := storage.Recover(t.Context(), bucket(t, f)); err != nil {
		t.Fatal(err)
	}
	if n := f.Uploads(); n != 1 {
		t.Errorf("%d uploads in parts are left, want that of another prefix", n)
	}
}
