package build

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"gantry/internal/content"
)

// To show a snapshot, and to make it the layer of an image, changes nothing in the
// books of snapshots.
func TestShownAndAdopted(t *testing.T) {
	root := t.TempDir()
	s := openStores(t, root)
	ctx := content.Namespaced(t.Context())
	u := unpacked{s.Snapshots(), layerNames{s}}
	made := []content.Made{{Name: "low", Chain: digest.FromString("low")}, {Name: "top", Chain: digest.FromString("top")}}
	var dirs []string
	parent := ""
	for _, l := range made {
		m, err := u.Prepare(ctx, "new-"+l.Name, parent)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Commit(ctx, l.Name, "new-"+l.Name); err != nil {
			t.Fatal(err)
		}
		dir := m[0].Source
		for _, o := range m[0].Options {
			if v, ok := strings.CutPrefix(o, "upperdir="); ok {
				dir = v
			}
		}
		dirs, parent = append([]string{dir}, dirs...), l.Name
	}
	books := filepath.Join(root, "snapshots", "metadata.db")
	before, err := os.ReadFile(books)
	if err != nil {
		t.Fatal(err)
	}
	one, err := u.View(ctx, "view-low", "low")
	if err != nil || len(one) != 1 || one[0].Type != "bind" || one[0].Source != dirs[1] || !slices.Contains(one[0].Options, "ro") {
		t.Errorf("one directory is shown as %v (%v)", one, err)
	}
	two, err := u.View(ctx, "view-top", "top")
	if err != nil || len(two) != 1 || two[0].Type != "overlay" || !slices.Contains(two[0].Options, "lowerdir="+strings.Join(dirs, ":")) {
		t.Errorf("%v are shown as %v (%v)", dirs, two, err)
	}
	if _, err := u.View(ctx, "view-none", "none"); !errdefs.IsNotFound(err) {
		t.Errorf("what is not there is shown: %v", err)
	}
	flushed := 0
	if err := s.Adopt(ctx, made, func() error { flushed++; return s.Flush() }); err != nil || flushed != 1 {
		t.Errorf("adopted: %v, flushed %d times", err, flushed)
	}
	for _, l := range made {
		if got := s.SnapshotOf(ctx, l.Chain); got != l.Name {
			t.Errorf("chain of %s is %s", l.Name, got)
		}
	}
	if err := s.Adopt(ctx, made, func() error { flushed++; return nil }); err != nil || flushed != 1 {
		t.Errorf("nothing to adopt: %v, flushed %d times", err, flushed)
	}
	after, err := os.ReadFile(books)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the books of snapshots have changed (%v)", err)
	}
	var names []string
	if err := u.Walk(ctx, func(_ context.Context, i snapshots.Info) error { names = append(names, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"low", "top"}) {
		t.Errorf("there are the snapshots %v", names)
	}
}
