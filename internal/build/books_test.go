package build

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"

	"gantry/internal/content"
)

func TestTorn(t *testing.T) {
	for _, c := range []struct {
		mark, boot string
		want       bool
	}{{"", "b", false}, {"b", "b", false}, {"a", "b", true}, {"a", "", true}} {
		if torn(c.mark, c.boot) != c.want {
			t.Errorf("%+v", c)
		}
	}
}

func TestOfCache(t *testing.T) {
	for id, want := range map[string]bool{"hold-x": false, "pin-x": false, "ref_x": false, "x-variants": true} {
		if ofCache(leases.Lease{ID: id}) != want {
			t.Error(id)
		}
	}
	if !ofCache(leases.Lease{ID: "x", Labels: map[string]string{"containerd.io/gc.flat": "t"}}) {
		t.Error("a record's")
	}
}

// Books are kept by whoever dies in the same boot, and dropped after another one,
// with their leases and with nothing else.
func TestBooksAfterAPowerCut(t *testing.T) {
	ctx, dir := content.Namespaced(t.Context()), t.TempDir()
	s, err := content.Open(ctx, content.Options{Root: filepath.Join(dir, "stores")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	books := filepath.Join(dir, "build")
	if err := os.Mkdir(books, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Leases().Create(ctx, leases.WithID("record"), leases.WithLabels(map[string]string{"containerd.io/gc.flat": "t"})); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Leases().Create(ctx, leases.WithID("ref_history")); err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		_, err := os.Stat(filepath.Join(books, "metadata.db"))
		return err == nil
	}
	if err := checkBooks(ctx, books, s); err != nil {
		t.Fatal(err)
	}
	m, err := openBooks(books)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := checkBooks(ctx, books, s); err != nil || !there() { // killed, the same boot
		t.Fatal(err, there())
	}
	if err := os.WriteFile(filepath.Join(books, openMark), []byte("another boot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkBooks(ctx, books, s); err != nil || there() {
		t.Fatal(err, there())
	}
	left, err := s.Leases().List(ctx)
	if err != nil || len(left) != 1 || left[0].ID != "ref_history" {
		t.Errorf("%v %v", left, err)
	}
	if err := markClosed(books); err != nil {
		t.Fatal(err)
	}
	if bad, err := markOpen(books); bad || err != nil {
		t.Error(bad, err)
	}
}
