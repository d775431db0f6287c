package content

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	blobs "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
)

// Blobs that are put at the same time, some of them twice, are all there, with
// their labels, and nothing else is; what is not what it says is refused.
func TestPut(t *testing.T) {
	root := t.TempDir()
	s, err := Open(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	ctx := Namespaced(t.Context())
	small := func(i int) Small {
		data := fmt.Appendf(nil, "blob %d", i)
		return Small{Data: data, Digest: digest.FromBytes(data), End: []blobs.Opt{blobs.WithLabels(map[string]string{"key": fmt.Sprint(i)})}}
	}
	const n = 12
	if _, err := s.Ledger.Create(ctx, leases.WithID("kept")); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * n {
		r := leases.Resource{ID: small(i).Digest.String(), Type: "content"}
		if err := s.Ledger.AddResource(ctx, leases.Lease{ID: "kept"}, r); err != nil {
			t.Fatal(err)
		}
	}
	there := make([]error, 2*n)
	var wg sync.WaitGroup
	for i := range there {
		wg.Go(func() { there[i] = s.Ledger.Put(ctx, small(i/2), small(n+i/2)) })
	}
	wg.Wait()
	for i := 0; i < len(there); i += 2 {
		a, b := there[i], there[i+1]
		if a != nil {
			a, b = b, a
		}
		if a != nil || !errdefs.IsAlreadyExists(b) {
			t.Errorf("the same put twice: %v and %v", a, b)
		}
	}
	if err := s.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * n {
		want := small(i)
		info, err := s.Blobs().Info(ctx, want.Digest)
		if err != nil || info.Labels["key"] != fmt.Sprint(i) || info.Size != int64(len(want.Data)) {
			t.Errorf("blob %d: %+v, %v", i, info, err)
		}
		if got, err := s.Read(ctx, ocispec.Descriptor{Digest: want.Digest}, 100); err != nil || !bytes.Equal(got, want.Data) {
			t.Errorf("blob %d is %q (%v)", i, got, err)
		}
	}
	bad := small(100)
	bad.Data = []byte("another")
	if err := s.Ledger.Put(ctx, bad); errs.KindOf(err) != errs.Invalid {
		t.Errorf("put under another digest: %v", err)
	}
	if list, err := s.Blobs().ListStatuses(ctx); err != nil || len(list) != 0 {
		t.Errorf("half-written: %v (%v)", list, err)
	}
	if list, err := filepath.Glob(filepath.Join(root, "content", putPrefix+"*")); err != nil || len(list) != 0 {
		t.Errorf("left: %v (%v)", list, err)
	}
}

// What a crash has left of Put goes when the stores are opened.
func TestPutAfterCrash(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "content")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, putPrefix+"x")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
}

func TestChanged(t *testing.T) {
	r := func(id string) leases.Resource { return leases.Resource{ID: id, Type: "content"} }
	c := func(do, lease, id string) change {
		return change{Do: do, Namespace: "n", Lease: lease, Resource: r(id)}
	}
	for _, tt := range []struct {
		name string
		list []leases.Resource
		ok   bool
		todo []change
		want []leases.Resource
		is   bool
	}{
		{"nothing to do", []leases.Resource{r("a")}, true, nil, []leases.Resource{r("a")}, true},
		{"none", nil, false, nil, nil, false},
		{"of another", nil, true, []change{c(opAdd, "y", "a")}, nil, true},
		{"made", nil, false, []change{c(opCreate, "x", ""), c(opAdd, "x", "a"), c(opAdd, "x", "a")}, []leases.Resource{r("a")}, true},
		{"dropped", []leases.Resource{r("a"), r("b")}, true, []change{c(opDrop, "x", "a")}, []leases.Resource{r("b")}, true},
		{"gone", []leases.Resource{r("a")}, true, []change{c(opDelete, "x", "")}, nil, false},
		{"made again", []leases.Resource{r("a")}, true, []change{c(opDelete, "x", ""), c(opCreate, "x", "")}, nil, true},
	} {
		got, is := changed(tt.list, tt.ok, tt.todo, "n", "x")
		if is != tt.is || fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %v, %v", tt.name, got, is)
		}
	}
}
