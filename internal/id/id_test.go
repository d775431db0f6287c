package id_test

import (
	"strings"
	"testing"

	"gantry/internal/id"
)

func TestNewIsValidAndFresh(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s := id.New()
		if !id.Valid(s) || seen[s] {
			t.Fatalf("New() = %q: invalid or repeated", s)
		}
		if strings.Trim(id.Short(s), "0123456789") == "" {
			t.Fatalf("short form of %q is a number", s)
		}
		seen[s] = true
	}
}

func TestValidPrefix(t *testing.T) {
	for s, want := range map[string]bool{"": false, "0": true, "abc": true, "ABC": false, "xyz": false, strings.Repeat("a", 65): false} {
		if got := id.ValidPrefix(s); got != want {
			t.Errorf("ValidPrefix(%q) = %v, want %v", s, got, want)
		}
	}
}
