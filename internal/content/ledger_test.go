package content

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func TestNet(t *testing.T) {
	c := func(do, lease string) change { return change{Do: do, Lease: lease} }
	for _, tt := range []struct {
		name       string
		list, want []change
	}{
		{"nothing", nil, nil},
		{"come and gone", []change{c(opCreate, "a"), c(opAdd, "a"), c(opDelete, "a")}, nil},
		{"gone that was there", []change{c(opAdd, "a"), c(opDelete, "a")}, []change{c(opDelete, "a")}},
		{"another one stays", []change{c(opCreate, "a"), c(opCreate, "b"), c(opAdd, "b"), c(opDelete, "a")}, []change{c(opCreate, "b"), c(opAdd, "b")}},
		{"made again", []change{c(opCreate, "a"), c(opDelete, "a"), c(opCreate, "a")}, []change{c(opCreate, "a")}},
		{"was there, made again", []change{c(opDelete, "a"), c(opCreate, "a"), c(opAdd, "a")}, []change{c(opDelete, "a"), c(opCreate, "a"), c(opAdd, "a")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			same := func(a, b change) bool { return a.Do == b.Do && a.Lease == b.Lease }
			if got := net(tt.list); !slices.EqualFunc(got, tt.want, same) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	other := []change{{Do: opCreate, Namespace: "x", Lease: "a"}, {Do: opDelete, Namespace: "y", Lease: "a"}}
	if got := net(other); len(got) != 2 {
		t.Errorf("namespaces are mixed: %v", got)
	}
}

func TestReplay(t *testing.T) {
	one := `{"Do":"create","Namespace":"n","Lease":"a"}` + "\n"
	for _, tt := range []struct {
		name, data, boot string
		want             int
	}{
		{"whole", "b\n" + one + one, "b", 2},
		{"cut short", "b\n" + one + one[:20], "b", 1},
		{"of another boot", "b\n" + one, "c", 0},
		{"empty", "", "b", 0},
		{"unknown boot", "\n" + one, "", 0},
	} {
		if got := replay([]byte(tt.data), tt.boot); len(got) != tt.want {
			t.Errorf("%s: %d changes, want %d", tt.name, len(got), tt.want)
		}
	}
}

// What the ledger keeps outlives the process and every collection; what nothing
// keeps goes, also if its lease has never been in the stores.
func TestLedger(t *testing.T) {
	root := t.TempDir()
	s, err := Open(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	ctx := Namespaced(t.Context())
	blob := func(text string) leases.Resource {
		d, err := s.Write(ctx, strings.NewReader(text), "")
		if err != nil {
			t.Fatal(err)
		}
		return leases.Resource{ID: d.Digest.String(), Type: "content"}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l := s.Ledger
	l.wait = time.Hour
	kept, lost := blob("kept"), blob("lost")
	for _, id := range []string{"long", "short"} {
		_, err := l.Create(ctx, leases.WithID(id))
		must(err)
	}
	if _, err := l.Create(ctx, leases.WithID("long")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("made twice: %v", err)
	}
	must(l.AddResource(ctx, leases.Lease{ID: "long"}, kept))
	must(l.AddResource(ctx, leases.Lease{ID: "short"}, lost))
	must(l.Delete(ctx, leases.Lease{ID: "short"}))
	if err := l.AddResource(ctx, leases.Lease{ID: "short"}, kept); !errdefs.IsNotFound(err) {
		t.Errorf("added to what is gone: %v", err)
	}
	if list, err := s.Leases().List(ctx); err != nil || len(list) != 0 {
		t.Errorf("the stores know of %v already (%v)", list, err)
	}
	// As if the process were killed: the journal stays, and the stores see none.
	journal, err := os.ReadFile(ledgerPath(root))
	must(err)
	must(s.Close())
	if _, err := os.Stat(ledgerPath(root)); !os.IsNotExist(err) {
		t.Errorf("a journal is left: %v", err)
	}
	s, err = Open(t.Context(), Options{Root: root})
	must(err)
	must(s.Leases().Delete(ctx, leases.Lease{ID: "long"}))
	must(s.Close())
	must(os.WriteFile(ledgerPath(root), journal, 0o600))
	s, err = Open(t.Context(), Options{Root: root})
	must(err)
	t.Cleanup(func() { _ = s.Close() })
	must(s.Collect(ctx))
	if _, err := s.Blobs().Info(ctx, digest.Digest(kept.ID)); err != nil {
		t.Errorf("what was kept: %v", err)
	}
	if list, err := s.Ledger.ListResources(ctx, leases.Lease{ID: "long"}); err != nil || len(list) != 1 || list[0] != kept {
		t.Errorf("the lease keeps %v (%v)", list, err)
	}
}

// A collection that comes right after a change knows of it.
func TestLedgerCollect(t *testing.T) {
	s, err := Open(t.Context(), Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	ctx := Namespaced(t.Context())
	d, err := s.Write(ctx, strings.NewReader("text"), "")
	if err != nil {
		t.Fatal(err)
	}
	l := s.Ledger
	if _, err := l.Create(ctx, leases.WithID("x")); err != nil {
		t.Fatal(err)
	}
	if err := l.AddResource(ctx, leases.Lease{ID: "x"}, leases.Resource{ID: d.Digest.String(), Type: "content"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blobs().Info(ctx, d.Digest); err != nil {
		t.Errorf("collected although it is leased: %v", err)
	}
	if err := l.Delete(ctx, leases.Lease{ID: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blobs().Info(ctx, d.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("kept although nothing leases it: %v", err)
	}
}
