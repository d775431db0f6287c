package build

import (
	"context"
	"maps"
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
)

func TestUnleased(t *testing.T) {
	type key struct{}
	ctx := leases.WithLease(context.WithValue(t.Context(), key{}, "value"), "one")
	if _, ok := leases.FromContext(ctx); !ok {
		t.Fatal("no lease to begin with")
	}
	if id, ok := leases.FromContext(unleased{ctx}); ok {
		t.Errorf("still under %q", id)
	}
	if v := (unleased{ctx}).Value(key{}); v != "value" {
		t.Errorf("another value is %v", v)
	}
}

func TestLabelled(t *testing.T) {
	have := map[string]string{"a": "1", "b": "2"}
	for _, tt := range []struct {
		name   string
		change map[string]string
		fields []string
		want   map[string]string
	}{
		{"same", map[string]string{"a": "1"}, []string{"labels.a"}, have},
		{"other", map[string]string{"a": "3"}, []string{"labels.a"}, map[string]string{"a": "3", "b": "2"}},
		{"gone", map[string]string{}, []string{"labels.b"}, map[string]string{"a": "1"}},
		{"new", map[string]string{"c": "3"}, []string{"labels.c"}, map[string]string{"a": "1", "b": "2", "c": "3"}},
		{"not named", map[string]string{"c": "3"}, []string{"labels.a"}, map[string]string{"b": "2"}},
	} {
		if got, ok := labelled(have, tt.change, tt.fields); !ok || !maps.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if _, ok := labelled(have, have, []string{"labels"}); ok {
		t.Error("all labels are taken for one")
	}
}
