package content

import (
	"os"
	"path/filepath"
	"testing"
)

// TestStrays: a directory without a record is found, unless it is about to be
// deleted anyway, and swept.
func TestStrays(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s := openStore(t, root)
	ctx, release := hold(t, s)
	defer release()
	layers := put(t, s, ctx)
	if err := s.Unpack(ctx, layers); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Strays(ctx); err != nil || len(left) != 0 {
		t.Fatalf("%q, %v", left, err)
	}
	stray := filepath.Join(root, "snapshots/snapshots/4711")
	if err := os.MkdirAll(filepath.Join(stray, "fs"), 0o700); err != nil {
		t.Fatal(err)
	}
	left, err := s.Strays(ctx)
	if err != nil || len(left) != 1 || left[0] != stray {
		t.Fatalf("%q, %v", left, err)
	}
	if err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stray); !os.IsNotExist(err) {
		t.Error(err)
	}
	if n := dirCount(t, root); n != 2 {
		t.Errorf("%d layers, want 2", n)
	}
}

// TestTrashGoesOn: a process that ended before it had deleted a layer leaves
// that to the next.
func TestTrashGoesOn(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s := openStore(t, root)
	ctx, release := hold(t, s)
	layers := put(t, s, ctx)
	if err := s.Unpack(ctx, layers); err != nil {
		t.Fatal(err)
	}
	s.trash.cancel() // nothing is deleted any more
	<-s.trash.ended
	release()
	if n := dirCount(t, root); n != 2 {
		t.Fatalf("%d layers, want 2", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := dirCount(t, root); n != 0 {
		t.Errorf("%d layers stay", n)
	}
}

// The books below get the labels that are theirs, and no transaction for others.
func TestBelow(t *testing.T) {
	for field, want := range map[string]bool{
		"labels":                               true,
		"labels." + chainLabel:                 false,
		"labels.containerd.io/gc.root":         false,
		"labels.containerd.io/snapshot.ref":    true,
		"labels.containerd.io/snapshot/remote": true,
	} {
		if got := below(field); got != want {
			t.Errorf("%s: %v, want %v", field, got, want)
		}
	}
}
