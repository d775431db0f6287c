package build

import (
	"slices"
	"strings"
	"testing"

	"gantry/internal/errs"
)

func TestChosenCacheMounts(t *testing.T) {
	keys := []string{"//root/.cache", "/gomod", "team/gomod"}
	for _, c := range []struct {
		ids, want []string
		missing   string
	}{
		{nil, keys, ""},
		{[]string{"gomod"}, []string{"/gomod"}, ""},
		{[]string{"team/gomod", "/root/.cache", "team/gomod"}, []string{"team/gomod", "//root/.cache"}, ""},
		{[]string{"gomod", "other"}, nil, `no cache mount "other" in x`},
		{[]string{""}, nil, `no cache mount ""`},
	} {
		got, err := chosen(keys, c.ids, "in x")
		if c.missing == "" && err != nil || c.missing != "" && (errs.KindOf(err) != errs.NotFound || !strings.Contains(err.Error(), c.missing)) || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v", c.ids, got, err)
		}
	}
	if _, err := chosen(nil, nil, "here"); errs.KindOf(err) != errs.NotFound {
		t.Error(err)
	}
}

func TestExportableCacheMounts(t *testing.T) {
	const ref = ":0123456789abcdefghijklmno"
	keys := []string{"/a", "/b" + ref, "/both", "/both" + ref}
	for _, c := range []struct {
		keys, ids, want []string
		refused         string
	}{
		{keys, nil, []string{"/a", "/both"}, ""},
		{keys, []string{"both", "other"}, []string{"/a", "/both"}, ""},
		{keys, []string{"a", "b"}, nil, `cache mount "b" can't be exported: it begins with other files`},
		{[]string{"//u" + ref}, nil, nil, `cache mount "/u" can't be exported`},
		{nil, nil, nil, ""},
	} {
		got, err := exportable(c.keys, c.ids)
		if c.refused == "" && err != nil || c.refused != "" && (errs.KindOf(err) != errs.Unsupported || !strings.Contains(err.Error(), c.refused)) || !slices.Equal(got, c.want) {
			t.Errorf("%q of %q: %q, %v", c.ids, c.keys, got, err)
		}
	}
}

func TestMountsThatBeginWithOtherFiles(t *testing.T) {
	for key, want := range map[string]bool{"/gomod": false, "//a:b": false, "//c:0123456789abcdefghijklmno": true, "//c:0123456789abcdefghijklmno/x": false} {
		if begun.MatchString(key) != want {
			t.Error(key)
		}
	}
}
