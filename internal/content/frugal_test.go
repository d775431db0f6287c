package content

import (
	"runtime/debug"
	"testing"
)

func TestFrugal(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	now := func() int {
		n := debug.SetGCPercent(50)
		debug.SetGCPercent(n)
		return n
	}
	var f frugal
	for step, want := range []int{frugally, frugally, frugally, 77} {
		if step < 2 {
			f.begin()
		} else {
			f.end()
		}
		if got := now(); got != want {
			t.Errorf("step %d: the heap grows by %d %%, want %d", step, got, want)
		}
	}
}
