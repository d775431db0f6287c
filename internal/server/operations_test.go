package server

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

// TestEveryOperationIsClassified finds routes and operations of the API that no
// policy could name.
func TestEveryOperationIsClassified(t *testing.T) {
	s := New(t.Context(), Options{})
	for _, list := range s.routes {
		for _, r := range list {
			if _, ok := operationOf(r.method, r.pattern); !ok {
				t.Errorf("%s %s is in no class: add it to operations.go", r.method, r.pattern)
			}
		}
	}
	f, err := os.Open("testdata/operations.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		method, pattern, _ := strings.Cut(strings.TrimSpace(sc.Text()), "\t")
		if _, ok := operationOf(method, pattern); !ok {
			t.Errorf("%s %s is in no class", method, pattern)
		}
	}
	for key, o := range operations {
		if !strings.Contains(o.name, ".") || o.class == "" {
			t.Errorf("%s: %+v", key, o)
		}
	}
}
