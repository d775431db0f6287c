package cutdisk

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What was flushed outlives a cut, and what was not does not have to.
func TestDisk(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("a disk needs root")
		}
		t.Skip("a disk needs root")
	}
	d := New(t, 32<<20)
	want := bytes.Repeat([]byte("flushed "), 100_000)
	f, err := os.Create(filepath.Join(d.At, "flushed"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.WriteFile(filepath.Join(d.At, "lost"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Cut()
	if f, err = os.Create(filepath.Join(d.At, "after")); err == nil {
		if f.Sync() == nil {
			t.Error("a disk without power takes files")
		}
		f.Close()
	}
	if err := d.Restore(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(d.At, "flushed")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	if got, err := os.ReadFile(filepath.Join(d.At, "lost")); err == nil && len(got) > 0 {
		t.Errorf("what was not flushed is there: %d bytes", len(got))
	}
	if _, err := os.Stat(filepath.Join(d.At, "after")); err == nil {
		t.Error("what was written without power is there")
	}
}
