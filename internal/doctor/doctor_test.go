package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/id"
)

func TestDifference(t *testing.T) {
	run, stopped, gone := id.New(), id.New(), id.New()
	dir := t.TempDir()
	for _, name := range []string{run, stopped, gone, "other"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d := &Doctor{
		Sources: []Source{
			Directories(dir, Known),
			{Kind: "link", Need: Running, List: func(context.Context) ([]Thing, error) {
				return []Thing{{"gt1", run}, {"gt2", stopped}, {"gt3", ""}}, nil
			}, Remove: func(_ context.Context, t Thing) error {
				if t.Name == "gt3" {
					return errors.New("busy")
				}
				return nil
			}},
			{Kind: "rule", List: func(context.Context) ([]Thing, error) { return nil, errors.New("no table") }},
		},
		Owners: func(context.Context) (map[string]bool, error) { return map[string]bool{run: true, stopped: false}, nil },
	}
	r, err := d.Mend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Finding{
		{Kind: "directory", Name: filepath.Join(dir, gone), Owner: gone, Fixed: true},
		{Kind: "link", Name: "gt2", Owner: stopped, Fixed: true},
		{Kind: "link", Name: "gt3", Error: "busy"},
	}
	if len(r.Findings) != len(want) || len(r.Errors) != 1 || r.Errors[0] != "rule: no table" {
		t.Fatalf("%+v", r)
	}
	for i := range want {
		if r.Findings[i] != want[i] {
			t.Errorf("%+v, want %+v", r.Findings[i], want[i])
		}
	}
	if r, err = d.Examine(t.Context()); err != nil || len(r.Findings) != 2 {
		t.Errorf("the directory should be gone: %+v %v", r, err)
	}
}

// What comes and goes between two looks is nobody's fault.
func TestShortLived(t *testing.T) {
	looks := 0
	d := &Doctor{
		Sources: []Source{{Kind: "mount", List: func(context.Context) ([]Thing, error) {
			looks++
			return []Thing{{Name: strings.Repeat("x", looks)}}, nil
		}}},
		Owners: func(context.Context) (map[string]bool, error) { return nil, nil },
	}
	if r, err := d.Examine(t.Context()); err != nil || len(r.Findings) != 0 || looks != 2 {
		t.Errorf("%+v %v after %d looks", r, err, looks)
	}
}

func TestMountTable(t *testing.T) {
	a, b := id.New(), id.New()
	table := "36 35 98:0 / /run/g/netns/" + a + " rw,noatime shared:1 - nsfs nsfs rw\n" +
		"37 35 98:0 / /lib/my\\040root/volumes/v/_data rw - tmpfs tmpfs rw\n" +
		"38 35 98:0 / /lib/my\\040root/containers/" + b + "/shm rw - tmpfs tmpfs rw\nshort\n"
	got := mountsBelow([]byte(table), []string{"/run/g", "/lib/my root"})
	want := []Thing{{"/run/g/netns/" + a, a}, {"/lib/my root/containers/" + b + "/shm", b}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v", got)
	}
}

func TestSupervised(t *testing.T) {
	c := id.New()
	for cmd, want := range map[string]string{
		"gantry-shim\x00supervise\x00" + c + "\x00": c,
		"/x/gantry-shim\x00" + c:                    c,
		"sh\x00" + c:                                "",
		"gantry-shim\x00features\x00":               "",
		"":                                          "",
	} {
		if got := supervised([]byte(cmd), "gantry-shim"); got != want {
			t.Errorf("%q: %q", cmd, got)
		}
	}
}
