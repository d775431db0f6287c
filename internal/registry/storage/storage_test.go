package storage_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"gantry/internal/errs"
	"gantry/internal/registry/storage"
	"gantry/internal/registry/storage/s3"
	"gantry/internal/registry/storage/s3/s3fake"
)

func backends(t *testing.T) map[string]storage.Backend {
	local, err := storage.NewLocal(filepath.Join(t.TempDir(), "objects"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s3.New(s3.Options{Endpoint: "http://127.0.0.1:1", Bucket: s3fake.Bucket, Prefix: "a b/c", AccessKey: s3fake.Key, SecretKey: s3fake.Secret, Part: 5 << 20})
	if err == nil {
		t.Error("a prefix with a space is taken")
	}
	bucket, err := s3.New(s3.Options{Endpoint: s3fake.Start(t).URL, Bucket: s3fake.Bucket, Prefix: "a+b/c", AccessKey: s3fake.Key, SecretKey: s3fake.Secret, Part: 5 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]storage.Backend{"local": local, "s3": bucket}
}

// What every backend must do.
func TestBackends(t *testing.T) {
	for name, b := range backends(t) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			keys := []string{"x/a", "x/b+c", "x/d/e", "x/d/f~g", "x/sha256-00"}
			for _, k := range keys {
				if err := b.Put(ctx, k, []byte("old")); err != nil {
					t.Fatal(err)
				}
				if err := b.Put(ctx, k, []byte("is "+k)); err != nil {
					t.Fatal(err)
				}
			}
			for _, k := range keys {
				if data, err := storage.Read(ctx, b, k, 100); err != nil || string(data) != "is "+k {
					t.Errorf("%s: %q, %v", k, data, err)
				}
			}
			if err := b.Put(ctx, "xy/a", nil); err != nil {
				t.Fatal(err)
			}
			list := func(prefix string) (got []string) {
				if err := b.List(ctx, prefix, func(i storage.Info) error { got = append(got, i.Key); return nil }); err != nil {
					t.Fatal(err)
				}
				slices.Sort(got)
				return got
			}
			if got := list("x/"); !slices.Equal(got, keys) {
				t.Errorf("list %q", got)
			}
			if got := list("none/"); len(got) != 0 {
				t.Errorf("list of nothing: %q", got)
			}
			if err := b.Delete(ctx, "x/d/e"); err != nil {
				t.Fatal(err)
			}
			if err := b.Delete(ctx, "x/d/e"); err != nil {
				t.Errorf("delete again: %v", err)
			}
			if _, err := b.Open(ctx, "x/d/e"); !errs.Is(err, errs.NotFound) {
				t.Errorf("deleted: %v", err)
			}
			if _, err := storage.Read(ctx, b, "x/a", 2); !errs.Is(err, errs.Corrupt) {
				t.Errorf("too long: %v", err)
			}
			for _, k := range []string{"", "/x", "../x", "x/../../y", "x//y", "x/.", "x\x00", "x\\y", ".tmp-1"} {
				if err := b.Put(ctx, k, nil); !errs.Is(err, errs.Invalid) {
					t.Errorf("key %q: %v", k, err)
				}
			}
			take(t, b)
		})
	}
}

// take moves a large file in and reads it from several places.
func take(t *testing.T, b storage.Backend) {
	ctx := t.Context()
	data := make([]byte, 12<<20+7)
	rand.Read(data)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Take(ctx, "big/one", file); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	o, err := b.Open(ctx, "big/one")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if o.Info().Size != int64(len(data)) {
		t.Errorf("size %d", o.Info().Size)
	}
	if got, err := io.ReadAll(o); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if at, err := o.Seek(-10, io.SeekEnd); err != nil || at != int64(len(data)-10) {
		t.Fatal(at, err)
	}
	if got, err := io.ReadAll(o); err != nil || !bytes.Equal(got, data[len(data)-10:]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestS3GoesOn(t *testing.T) {
	f := s3fake.Start(t)
	b, err := s3.New(s3.Options{Endpoint: f.URL, Bucket: s3fake.Bucket, AccessKey: s3fake.Key, SecretKey: s3fake.Secret, Part: 5 << 20})
	if err != nil {
		t.Fatal(err)
	}
	f.Fail(2)
	if err := b.Put(t.Context(), "a", []byte("x")); err != nil {
		t.Errorf("two failures: %v", err)
	}
	f.Fail(1)
	take(t, b)
	if f.Parts != 3 || f.Uploads() != 0 {
		t.Errorf("%d parts, %d uploads left", f.Parts, f.Uploads())
	}
	f.Fail(100)
	if err := b.Put(t.Context(), "a", []byte("y")); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a service that is down: %v", err)
	}
	f.Fail(0)
	wrong, err := s3.New(s3.Options{Endpoint: f.URL, Bucket: s3fake.Bucket, AccessKey: s3fake.Key, SecretKey: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	if err := wrong.Put(t.Context(), "a", []byte("z")); err == nil {
		t.Error("a wrong key is taken")
	}
	if data, err := storage.Read(t.Context(), b, "a", 10); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
}
