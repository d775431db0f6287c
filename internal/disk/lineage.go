package disk

import (
	"cmp"
	"slices"
	"time"
)

// inOrder returns candidates with the one that goes first at the beginning. Build
// cache is as old as the youngest that was made on top of it, and goes after that.
// The layer that was built or used last is kept, with all below it: the next build
// begins there. Pure.
func inOrder(list []candidate) []candidate {
	list = slices.Clone(list)
	at := map[string]int{}
	for i, c := range list {
		if c.kind == kindCache {
			at[c.id] = i
		}
	}
	for i := range list {
		list[i].depth = depth(list, at, i, len(list))
	}
	newest := -1
	for i, c := range list {
		if c.layer && (newest < 0 || cmp.Or(c.used.Compare(list[newest].used), cmp.Compare(c.depth, list[newest].depth)) > 0) {
			newest = i
		}
	}
	newest = top(list, newest)
	if newest >= 0 && list[newest].keep == "" {
		list[newest].keep = "just built"
	}
	deepest := make([]int, len(list))
	for i := range deepest {
		deepest[i] = i
	}
	slices.SortStableFunc(deepest, func(x, y int) int { return cmp.Compare(list[y].depth, list[x].depth) })
	for _, i := range deepest {
		for _, p := range list[i].parents {
			below, ok := at[p]
			if !ok {
				continue
			}
			if list[i].used.After(list[below].used) {
				list[below].used = list[i].used
			}
			if list[below].keep == "" {
				list[below].keep = list[i].keep
			}
		}
	}
	slices.SortFunc(list, func(x, y candidate) int {
		return cmp.Or(x.used.Compare(y.used), cmp.Compare(y.depth, x.depth), cmp.Compare(x.id, y.id))
	})
	return list
}

// oneBuild is how far apart the uses of the layers of one build are: a build lets go
// of them at its end, in any order.
const oneBuild = time.Minute

// top returns the last layer of the build that list[newest] is of, or newest itself.
func top(list []candidate, newest int) int {
	for range list { // be the books as they may
		over := -1
		for i, c := range list {
			if newest >= 0 && c.layer && slices.Contains(c.parents, list[newest].id) && list[newest].used.Sub(c.used).Abs() <= oneBuild && (over < 0 || c.used.After(list[over].used)) {
				over = i
			}
		}
		if over < 0 {
			break
		}
		newest = over
	}
	return newest
}

// depth is the length of the longest way down from list[i]. No way has more than
// most steps, be the books as they may.
func depth(list []candidate, at map[string]int, i, most int) int {
	n := 0
	for _, p := range list[i].parents {
		if below, ok := at[p]; ok && most > 0 {
			n = max(n, 1+depth(list, at, below, most-1))
		}
	}
	return n
}
