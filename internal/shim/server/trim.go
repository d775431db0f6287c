package server

import (
	"bufio"
	"bytes"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trimAfter is how long after something has happened memory is given back:
// short-lived containers never pay for it.
const trimAfter = time.Second

// garbage is how many bytes of heap are worth a collection. The first one costs
// memory that is never given back, 4 to 6 KiB for each size of object that there
// is, and a shim that only starts its container allocates less than that saves.
const garbage = 512 << 10

// A trimmer gives the memory of past work back to the kernel, since a shim is
// idle most of its life and there are many.
type trimmer struct {
	mu      sync.Mutex
	pending bool
	text    []section // nil until first needed
}

// later trims once, trimAfter from the first call on.
func (t *trimmer) later(b *buffers) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending {
		return
	}
	t.pending = true
	time.AfterFunc(trimAfter, func() { t.trim(b) })
}

func (t *trimmer) trim(b *buffers) {
	b.drop()
	var m goruntime.MemStats
	if goruntime.ReadMemStats(&m); m.HeapAlloc+m.HeapIdle-m.HeapReleased > garbage {
		debug.FreeOSMemory()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = false
	if t.text == nil {
		t.text = program()
		singlePages(t.text)
	}
	for _, s := range t.text {
		// They stay in the page cache, which the sealed file is, and come
		// back one by one as they are needed.
		syscall.RawSyscall(unix.SYS_MADVISE, uintptr(s.from), uintptr(s.size), unix.MADV_DONTNEED)
	}
}

type section struct{ from, size uint64 }

// program returns where in memory there are read-only sections of files, as they
// are in the file: the program's text and constants (proc(5), smaps). One that
// has pages of its own (relocations of a program that is not static) is left out:
// those would be lost.
func program() (sections []section) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer f.Close()
	var s section
	for in := bufio.NewScanner(f); in.Scan(); {
		// 00400000-004f5000 r-xp 00000000 00:01 1234   /memfd:gantry-shim (deleted)
		// …
		// Anonymous:             0 kB
		line := in.Bytes()
		switch {
		case bytes.HasPrefix(line, []byte("Anonymous:")) && s.size > 0:
			if bytes.HasSuffix(line, []byte(" 0 kB")) {
				sections = append(sections, s)
			}
		case len(line) > 0 && line[0] >= 'a' || len(line) > 0 && line[0] <= '9':
			s = section{}
			if f := bytes.Fields(line); len(f) > 5 && f[5][0] == '/' && f[1][0] == 'r' && f[1][1] == '-' {
				s = parseSection(f[0])
			}
		}
	}
	return sections
}

func parseSection(b []byte) section {
	from, to, _ := bytes.Cut(b, []byte("-"))
	x, err1 := strconv.ParseUint(string(from), 16, 64)
	y, err2 := strconv.ParseUint(string(to), 16, 64)
	if err1 != nil || err2 != nil || x >= y {
		return section{}
	}
	return section{x, y - x}
}

// The userfaultfd(2) interface, of linux/userfaultfd.h.
const (
	uffdUserModeOnly = 1
	uffdAPI          = 0xaa
	uffdModeWP       = 2
	ioctlUffdAPI     = 0xc018aa3f
	ioctlUffdReg     = 0xc020aa00
)

// singlePages makes the kernel map one page at each fault in the sections, and
// not the 16 around it, of which a shim would need two or three. There is no
// advice for that; but the kernel does so where somebody might want to know of
// writes, and in these there never are any. The descriptor stays open: it is
// the registration. Where it fails, a shim is 0.8 MB heavier.
func singlePages(sections []section) {
	fd, _, errno := syscall.RawSyscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserModeOnly, 0, 0)
	if errno != 0 {
		return
	}
	api := [3]uint64{uffdAPI, 0, 0}
	syscall.RawSyscall(unix.SYS_IOCTL, fd, ioctlUffdAPI, uintptr(unsafe.Pointer(&api)))
	for _, s := range sections {
		reg := [4]uint64{s.from, s.size, uffdModeWP, 0}
		syscall.RawSyscall(unix.SYS_IOCTL, fd, ioctlUffdReg, uintptr(unsafe.Pointer(&reg)))
	}
}
