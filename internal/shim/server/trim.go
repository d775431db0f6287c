package server

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// trimAfter is how long after something has happened memory is given back:
// short-lived containers never pay for it.
const trimAfter = time.Second

// A trimmer gives the memory of past work back to the kernel, since a shim is
// idle most of its life and there are many.
type trimmer struct {
	mu      sync.Mutex
	pending bool
}

// later trims once, trimAfter from the first call on.
func (t *trimmer) later(b *buffers) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending {
		return
	}
	t.pending = true
	time.AfterFunc(trimAfter, func() {
		t.mu.Lock()
		t.pending = false
		t.mu.Unlock()
		b.drop()
		debug.FreeOSMemory()
		dropProgram()
	})
}

// dropProgram unmaps the pages of the program that were needed to get here.
// They stay in the page cache, which the sealed file is, and come back one by
// one as they are needed (madvise(2), MADV_DONTNEED on a private file mapping).
func dropProgram() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range bytes.Lines(maps) {
		// 00400000-004f5000 r-xp 00000000 00:01 1234   /memfd:gantry-shim (deleted)
		f := bytes.Fields(line)
		if len(f) < 6 || f[5][0] != '/' || len(f[1]) < 2 || f[1][0] != 'r' || f[1][1] != '-' {
			continue // not of a file, or changed since it was read
		}
		from, to, ok := bytes.Cut(f[0], []byte("-"))
		a, err1 := strconv.ParseUint(string(from), 16, 64)
		b, err2 := strconv.ParseUint(string(to), 16, 64)
		if ok && err1 == nil && err2 == nil && a < b {
			syscall.RawSyscall(unix.SYS_MADVISE, uintptr(a), uintptr(b-a), unix.MADV_DONTNEED)
		}
	}
}
