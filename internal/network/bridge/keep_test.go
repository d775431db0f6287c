package bridge

import (
	"testing"
	"time"
)

// TestPauses: the first is at once, then they double up to a bound, and after
// calm it is at once again.
func TestPauses(t *testing.T) {
	pause := nextPause(0, time.Hour)
	for i, want := range []time.Duration{0, shortest, 2 * shortest, 4 * shortest, 8 * shortest, 16 * shortest, 32 * shortest, longest, longest} {
		if pause != want {
			t.Errorf("pause %d is %v, want %v", i, pause, want)
		}
		pause = nextPause(pause, time.Millisecond)
	}
	if got := nextPause(longest, calm+1); got != 0 {
		t.Errorf("after calm %v", got)
	}
}
