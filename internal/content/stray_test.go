package content

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// A process that was killed between making the directory of a snapshot and
// recording it has left one where the next snapshot shall be.
func TestStrayDirectory(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx := Namespaced(t.Context())
	if _, err := s.Snapshots().Prepare(ctx, "one", ""); err != nil {
		t.Fatal(err)
	}
	dir := s.driver.dir
	last := 0
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			last = max(last, n)
		}
	}
	if last == 0 {
		t.Fatalf("no directory of a snapshot: %v", entries)
	}
	stray := filepath.Join(dir, strconv.Itoa(last+1), "fs", "left")
	if err := os.MkdirAll(stray, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := disturb(ctx, s); err != nil { // as Open does after a kill
		t.Fatal(err)
	}
	if _, err := s.Snapshots().Prepare(ctx, "two", ""); err != nil {
		t.Errorf("the next snapshot: %v", err)
	}
	if err := s.Close(); err != nil { // what is removed is deleted then
		t.Fatal(err)
	}
	if _, err := os.Stat(stray); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stray directory is there: %v", err)
	}
}
