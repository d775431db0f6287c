// Package cutdisk is a disk whose power can be cut: what was written and not
// flushed before is then there, or not, sector by sector, as chance has it. Disks
// with a cache of their own promise no more.
//
// Crash tests mount a file system on it. The disk is memory; this process serves
// it to the kernel as a file (FUSE), which a loop device makes a disk of. It needs
// root. It must not know what is kept on it.
package cutdisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sector is what is written as a whole or not at all: ext4 relies on it for its
// superblock, which is larger than the 512 bytes of old disks.
const sector = 4096

// A Disk is a disk with an ext4 on it, mounted or without power.
type Disk struct {
	At string // where the file system is mounted

	file string // that FUSE serves
	loop string
	fd   int // of /dev/fuse
	done chan struct{}

	mu      sync.Mutex
	off     bool   // the power is cut
	now     []byte // what reads see
	durable []byte // what a cut leaves for sure
	pending []write
	left    int           // writes until the power goes by itself; 0: it does not
	gone    chan struct{} // closed when it goes
	drops   Drops
}

// Drops is what cuts have done.
type Drops struct{ Unflushed, Lost int } // sectors

// A write has not been flushed.
type write struct {
	at   int64
	data []byte
}

// New makes a disk of size bytes with an empty ext4 and mounts it. It is gone
// when the test ends; whatever uses it must have ended then.
func New(t testing.TB, size int64) *Disk {
	t.Helper()
	dir, err := os.MkdirTemp("", "cutdisk-")
	if err != nil {
		t.Fatal(err)
	}
	d := &Disk{At: filepath.Join(dir, "at"), file: filepath.Join(dir, "disk"), now: make([]byte, size), durable: make([]byte, size)}
	t.Cleanup(func() {
		err := d.takeDown()
		if err == nil {
			err = os.RemoveAll(dir)
		}
		if err != nil {
			t.Errorf("take down the disk: %v", err)
		}
	})
	err = errors.Join(os.Mkdir(d.At, 0o755), os.WriteFile(d.file, nil, 0o600), d.attach())
	if err == nil {
		err = run("mkfs.ext4", "-q", "-F", d.loop)
	}
	if err == nil {
		err = run("mount", d.loop, d.At)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// CutAfter has the power go right after so many more writes, and returns a channel
// that is closed then.
func (d *Disk) CutAfter(writes int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.gone = writes, make(chan struct{})
	return d.gone
}

// Cut takes the power away, if it is not gone yet. Whatever touches the file
// system fails from here on.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.off {
		d.cut()
	}
}

func (d *Disk) cut() {
	d.off, d.left = true, 0
	keep := rand.Float64()
	for _, w := range d.pending {
		for at := 0; at < len(w.data); at += sector {
			d.drops.Unflushed++
			if rand.Float64() < keep {
				copy(d.durable[w.at+int64(at):], w.data[at:min(at+sector, len(w.data))])
			} else {
				d.drops.Lost++
			}
		}
	}
	d.pending = nil
}

// Drops returns what all cuts have done.
func (d *Disk) Drops() Drops {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.drops
}

// Restore gives the power back, and mounts what is left. Nothing may have a file
// open on it any more.
func (d *Disk) Restore() error {
	if err := d.takeDown(); err != nil {
		return err
	}
	copy(d.now, d.durable)
	d.off = false
	if err := d.attach(); err != nil {
		return err
	}
	return run("mount", d.loop, d.At)
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
	}
	return nil
}

// attach serves the disk and makes it a block device.
func (d *Disk) attach() (err error) {
	if d.fd, err = openFuse(filepath.Dir(d.file)); err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0", d.fd, unix.S_IFREG|0o600)
	if err := unix.Mount("cutdisk", d.file, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return errors.Join(fmt.Errorf("mount the disk's file: %w", err), unix.Close(d.fd))
	}
	d.done = make(chan struct{})
	go d.serve(d.fd, d.done)
	out, err := exec.Command("losetup", "--sector-size", fmt.Sprint(sector), "--find", "--show", d.file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("losetup: %w: %s", err, out)
	}
	d.loop = string(bytes.TrimSpace(out))
	return nil
}

// openFuse opens the device, which small systems have no node of.
func openFuse(dir string) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	node := filepath.Join(dir, "fuse")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 229))); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC, 0)
}

// takeDown undoes all of New and attach that was done. A file system without a
// disk can be busy for a moment after its user has ended.
func (d *Disk) takeDown() error {
	patient := func(do func() error) (err error) {
		for range 200 {
			if err = do(); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		return err
	}
	if err := patient(func() error { return unix.Unmount(d.At, 0) }); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount %s: %w", d.At, err)
	}
	if d.loop != "" {
		if err := run("losetup", "--detach", d.loop); err != nil {
			return err
		}
		d.loop = ""
	}
	if d.done == nil {
		return nil
	}
	if err := patient(func() error { return unix.Unmount(d.file, 0) }); err != nil {
		return fmt.Errorf("unmount %s: %w", d.file, err)
	}
	<-d.done
	d.done = nil
	return unix.Close(d.fd)
}

// Operations of the protocol (linux/fuse.h), and the sizes of their headers.
const (
	opForget, opGetattr, opSetattr, opOpen, opRead, opWrite       = 2, 3, 4, 14, 15, 16
	opRelease, opFsync, opFlush, opInit, opInterrupt, opForgetAll = 18, 20, 25, 26, 36, 42

	inHeader, outHeader, writeHeader = 40, 16, 40

	maxWrite = 1 << 20
)

// serve answers the kernel until the file is unmounted.
func (d *Disk) serve(fd int, done chan struct{}) {
	defer close(done)
	buf := make([]byte, maxWrite+4096)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil || n < inHeader: // ENODEV: it is unmounted
			return
		}
		op := binary.NativeEndian.Uint32(buf[4:])
		if op == opForget || op == opForgetAll || op == opInterrupt {
			continue
		}
		body, errno := d.answer(op, buf[inHeader:n])
		out := make([]byte, outHeader, outHeader+len(body))
		binary.NativeEndian.PutUint32(out, uint32(outHeader+len(body)))
		binary.NativeEndian.PutUint32(out[4:], uint32(-int32(errno)))
		copy(out[8:16], buf[8:16])
		// The kernel may have given up waiting.
		_, _ = unix.Write(fd, append(out, body...))
	}
}

// answer does what a request asks for.
func (d *Disk) answer(op uint32, in []byte) (out []byte, _ unix.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	le := binary.NativeEndian
	switch op {
	case opInit:
		out = make([]byte, 64)
		const bigWrites, maxPages = 1 << 5, 1 << 22
		for at, v := range map[int]uint32{0: 7, 4: 31, 8: maxWrite, 12: bigWrites | maxPages, 20: maxWrite, 24: 1} {
			le.PutUint32(out[at:], v)
		}
		le.PutUint16(out[28:], maxWrite/4096)
	case opGetattr, opSetattr:
		out = make([]byte, 16+88)
		attr := out[16:]
		le.PutUint64(attr, 1)
		le.PutUint64(attr[8:], uint64(len(d.now)))
		le.PutUint64(attr[16:], uint64(len(d.now)/512))
		le.PutUint32(attr[60:], unix.S_IFREG|0o600)
		le.PutUint32(attr[64:], 1)
	case opOpen:
		out = make([]byte, 16)
	case opRelease, opFlush:
	case opRead:
		at, size := le.Uint64(in[8:]), uint64(le.Uint32(in[16:]))
		end := uint64(len(d.now))
		out = bytes.Clone(d.now[min(at, end):min(at+size, end)])
	case opWrite:
		return d.write(int64(le.Uint64(in[8:])), in[writeHeader:][:le.Uint32(in[16:])])
	case opFsync:
		if d.off {
			return nil, unix.EIO
		}
		for _, w := range d.pending {
			copy(d.durable[w.at:], w.data)
		}
		d.pending = nil
	default:
		return nil, unix.ENOSYS
	}
	return out, 0
}

func (d *Disk) write(at int64, data []byte) ([]byte, unix.Errno) {
	if d.off || at+int64(len(data)) > int64(len(d.now)) {
		return nil, unix.EIO
	}
	copy(d.now[at:], data)
	d.pending = append(d.pending, write{at, bytes.Clone(data)})
	if d.left > 0 {
		if d.left--; d.left == 0 {
			d.cut()
			close(d.gone)
		}
	}
	out := make([]byte, 8)
	binary.NativeEndian.PutUint32(out, uint32(len(data)))
	return out, 0
}
