package content

import (
	"runtime/debug"
	"sync"
)

// frugal has the garbage collector keep the heap close to what is in use while
// layers are unpacked. A decompressor has a window of up to eight megabytes, mostly;
// by default there would be as much garbage before any is collected.
type frugal struct {
	mu  sync.Mutex
	n   int // layers that are unpacked now
	was int // what is set otherwise
}

// frugally is the heap's growth meanwhile, in percent (GOGC).
const frugally = 25

func (f *frugal) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; f.n == 1 {
		f.was = debug.SetGCPercent(frugally)
	}
}

func (f *frugal) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 {
		debug.SetGCPercent(f.was)
	}
}
