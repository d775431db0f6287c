package disk

import (
	"strings"
	"testing"
	"time"
)

func TestParseBudget(t *testing.T) {
	for text, want := range map[string]Budget{
		"":               {},
		"10GB":           {10 << 30, (10 << 30) / 10 * 9},
		"50%":            {500, 450},
		"50%,low=20%":    {500, 200},
		"100b, low=10b":  {100, 10},
		"12.5%":          {125, 108},
		"1000b,low=100%": {1000, 1000},
	} {
		if got, err := ParseBudget(text, 1000); err != nil || got != want {
			t.Errorf("%q: %+v %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "0", "-1", "0%", "101%", "10GB,high=1", "10b,low=20b", "10b,low=x", "%"} {
		if got, err := ParseBudget(text, 1000); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func TestPlanRemovals(t *testing.T) {
	img := func(id string, age int, keep string, pieces ...string) candidate {
		c := candidate{kind: "image", id: id, used: time.Unix(int64(1000-age), 0), keep: keep, pieces: map[string]int64{"records " + id: 1}}
		for _, p := range pieces {
			c.pieces[p] = 100
		}
		return c
	}
	cache := func(id string, age int, keep string, parents ...string) candidate {
		return candidate{kind: "build-cache", id: id, used: time.Unix(int64(1000-age), 0), keep: keep, pieces: map[string]int64{"cache " + id: 100}, parents: parents, layer: true}
	}
	context := cache("local", 0, "")
	context.layer = false
	for _, c := range []struct {
		name  string
		usage int64
		b     Budget
		list  []candidate
		want  string
		left  int64
	}{
		{"below", 300, Budget{300, 100}, []candidate{img("a", 9, "", "1"), img("b", 1, "", "2")}, "", 300},
		{"no budget", 300, Budget{}, []candidate{img("a", 9, "", "1")}, "", 300},
		{"oldest first", 303, Budget{300, 210}, []candidate{img("b", 5, "", "2"), img("a", 9, "", "1"), img("c", 1, "", "3")}, "a", 202},
		{"to the low mark", 303, Budget{300, 150}, []candidate{img("b", 5, "", "2"), img("a", 9, "", "1"), img("c", 1, "", "3")}, "a b", 101},
		{"the newest image stays", 101, Budget{10, 5}, []candidate{img("a", 1, "", "1")}, "", 101},
		{"in use, pinned", 303, Budget{100, 10}, []candidate{img("a", 9, "in use", "1"), img("b", 8, "pinned", "2"), img("c", 7, "", "3"), img("d", 1, "", "4")}, "c", 202},
		{"shared with what stays", 202, Budget{100, 10}, []candidate{img("a", 9, "", "1"), img("b", 8, "in use", "1"), img("c", 1, "", "2")}, "", 202},
		{"shared with what goes", 303, Budget{200, 150}, []candidate{img("a", 9, "", "1"), img("b", 8, "", "1"), img("c", 1, "", "2")}, "a b", 201 - 0},
		{"cache and images by age", 402, Budget{400, 150}, []candidate{img("a", 9, "", "1"), cache("x", 8, ""), cache("y", 7, "in use"), img("z", 1, "", "2")}, "a x", 201},
		{"cache newer than all images", 302, Budget{200, 10}, []candidate{img("a", 9, "", "1"), img("b", 8, "", "2"), cache("x", 1, "")}, "a", 201},
		{"the layer just built stays, with those below", 500, Budget{10, 5}, []candidate{cache("base", 9, ""), cache("step", 8, "", "base"), cache("old", 7, "", "base"), cache("last", 1, "", "step"), context}, "old local", 300},
		{"the top one of several just built", 300, Budget{10, 5}, []candidate{cache("low", 1, ""), cache("top", 1, "", "low"), cache("x", 5, "")}, "x", 200},
		{"the top one, let go before what is below it", 300, Budget{10, 5}, []candidate{cache("low", 1, ""), cache("top", 3, "", "low"), cache("x", 2, "")}, "x", 200},
		{"a top one of an earlier build", 300, Budget{10, 5}, []candidate{cache("low", 1, ""), cache("top", 100, "", "low"), cache("x", 5, "")}, "top x", 100},
		{"what is on top goes first", 500, Budget{300, 300}, []candidate{cache("a", 9, ""), cache("b", 5, "", "a"), cache("c", 7, "", "a"), cache("d", 6, "", "c"), cache("new", 1, "")}, "d c", 300},
		{"a circle in the books", 300, Budget{100, 100}, []candidate{cache("a", 9, "", "b"), cache("b", 8, "", "a"), cache("c", 1, "")}, "a b", 100},
	} {
		got, left := planRemovals(c.usage, c.b, c.list)
		var ids []string
		for _, g := range got {
			ids = append(ids, g.id)
		}
		if strings.Join(ids, " ") != c.want || left != c.left {
			t.Errorf("%s: %q, %d left; want %q, %d", c.name, ids, left, c.want, c.left)
		}
	}
}
