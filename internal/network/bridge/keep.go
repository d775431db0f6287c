package bridge

import "time"

// The pauses between one redrawing of the rules and the next, while somebody
// goes on taking them out: the first is at once.
const (
	shortest = 100 * time.Millisecond
	longest  = 5 * time.Second
	calm     = 10 * time.Second // after which the next is at once again
)

// keep draws the rules anew whenever another program has taken something out of
// the table, until the watch ends. Two programs that undo each other's work must
// not burn the processor: the pauses grow.
func (d *Driver) keep() {
	var last time.Time
	pause := time.Duration(0)
	for range d.watch.C {
		since := time.Since(last)
		pause = nextPause(pause, since)
		if since < pause {
			select {
			case <-time.After(pause - since):
			case <-d.ended:
				return
			}
			select { // told again meanwhile: once is enough
			case <-d.watch.C:
			default:
			}
		}
		select {
		case <-d.ended: // whoever takes the rules out now does it for good
			return
		default:
		}
		// An error here comes up again with the next change of the rules.
		_ = d.Reassert()
		d.redrawn.Add(1)
		last = time.Now()
	}
}

// Redrawn returns how often the rules had to be drawn anew because others had
// taken something out of them.
func (d *Driver) Redrawn() int64 { return d.redrawn.Load() }

// nextPause returns how much time shall be between the last redrawing and the
// next, since ago being how long the last is past. Pure.
func nextPause(pause, since time.Duration) time.Duration {
	if since > calm {
		return 0
	}
	return min(max(2*pause, shortest), longest)
}
