package solve

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// A listing is what a directory offers under a filter, in the order in which it is
// sent. It is made faster than by walking: names first, what each is then, several
// at a time.
type listing []*types.Stat

// maxListed is how many files a listing has at most, in memory.
const maxListed = 300_000

var errTooMany = errors.New("too many files for a listing")

// list lists a directory. A file of the context belongs to root, whoever owns it
// here. What changes meanwhile is an error, as is everything else that a walk would
// have to think about.
func (d *localDir) list(ctx context.Context, opt fsutil.FilterOpt) (listing, error) {
	names := &nameFS{FS: d.FS, root: d.root.Name()}
	filtered, err := fsutil.NewFilterFS(names, &opt)
	if err != nil {
		return nil, err
	}
	names.bare = true // links that are followed are followed
	fill := newFiller(ctx, d.root.Name())
	var all listing
	err = filtered.Walk(ctx, "/", func(p string, e fs.DirEntry, err error) error {
		info, ok := e.(*fsutil.DirEntryInfo)
		switch {
		case err != nil:
			return err
		case !ok || info.Stat == nil:
			return fmt.Errorf("%s: %T says nothing of the file", p, e)
		case len(all) == maxListed:
			return errTooMany
		}
		all = append(all, info.Stat)
		return fill.add(info.Stat)
	})
	if err = errors.Join(err, fill.wait()); err != nil {
		return nil, err
	}
	all.link(fill.inodes)
	if d.watch != nil {
		for _, s := range all {
			if !s.IsDir() {
				d.watch.Seen(s.Path, &fsutil.StatInfo{Stat: s})
			}
		}
	}
	return all, nil
}

// link makes of the names of one file links to the first of them.
func (l listing) link(inodes map[string]inode) {
	if len(inodes) == 0 {
		return
	}
	first := map[inode]string{}
	for _, s := range l {
		if n, ok := inodes[s.Path]; ok {
			if to, ok := first[n]; ok {
				s.Linkname = to
			} else {
				first[n] = s.Path
			}
		}
	}
}

// sum is a checksum of the listing: of all that is sent but the bytes of files.
func (l listing) sum() string {
	h := sha256.New()
	var buf []byte
	for _, s := range l {
		if buf = appendStat(buf, s); len(buf) > 1<<15 {
			write(h, buf)
			buf = buf[:0]
		}
	}
	write(h, buf)
	return hex.EncodeToString(h.Sum(nil))
}

func write(h hash.Hash, b []byte) { _, _ = h.Write(b) } // never fails, by its contract

// appendStat appends what makes a file another one. The time of a directory does not:
// it is not looked at where files are compared one by one.
func appendStat(b []byte, s *types.Stat) []byte {
	when := s.ModTime
	if s.IsDir() {
		when = 0
	}
	text := func(t string) {
		b = binary.AppendUvarint(b, uint64(len(t)))
		b = append(b, t...)
	}
	text(s.Path)
	text(s.Linkname)
	for _, n := range [...]uint64{uint64(s.Mode), uint64(s.Uid), uint64(s.Gid), uint64(s.Size), uint64(when), uint64(s.Devmajor), uint64(s.Devminor), uint64(len(s.Xattrs))} {
		b = binary.AppendUvarint(b, n)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Xattrs)) {
		text(k)
		text(string(s.Xattrs[k]))
	}
	return b
}

// nameFS is a directory of which only names and types are read once bare is set.
type nameFS struct {
	fsutil.FS
	root string
	bare bool
}

// Walk is FS's.
func (n *nameFS) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	if !n.bare {
		return n.FS.Walk(ctx, target, fn)
	}
	below := strings.TrimSuffix(n.root, "/") + "/"
	return filepath.WalkDir(n.root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, ok := strings.CutPrefix(p, below)
		if !ok {
			return nil // the directory itself
		}
		return fn(rel, bareEntry{e, rel}, nil)
	})
}

// bareEntry is a name and its type. What else there is to say is said later, in
// place.
type bareEntry struct {
	fs.DirEntry
	path string
}

// Info is DirEntry's.
func (e bareEntry) Info() (fs.FileInfo, error) {
	return &fsutil.StatInfo{Stat: &types.Stat{Path: e.path, Mode: uint32(e.Type())}}, nil
}

// inode is one file, whatever its names.
type inode struct{ dev, ino uint64 }

// filler finds out what files are, several at a time.
type filler struct {
	root    string
	pending listing
	chunks  chan listing
	done    sync.WaitGroup
	cancel  context.CancelCauseFunc
	ctx     context.Context

	mu     sync.Mutex
	inodes map[string]inode // of files of several names
}

const (
	fillChunk  = 64 // files that one goroutine takes at a time
	maxFillers = 8
)

func newFiller(ctx context.Context, root string) *filler {
	f := &filler{root: root, chunks: make(chan listing, maxFillers), inodes: map[string]inode{}}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	for range min(runtime.GOMAXPROCS(0), maxFillers) {
		f.done.Go(f.run)
	}
	return f
}

func (f *filler) add(s *types.Stat) error {
	if f.pending = append(f.pending, s); len(f.pending) < fillChunk {
		return nil
	}
	f.flush()
	return context.Cause(f.ctx)
}

func (f *filler) flush() {
	select {
	case f.chunks <- f.pending:
	case <-f.ctx.Done():
	}
	f.pending = make(listing, 0, fillChunk)
}

func (f *filler) wait() error {
	f.flush()
	close(f.chunks)
	f.done.Wait()
	err := context.Cause(f.ctx)
	f.cancel(nil)
	return err
}

func (f *filler) run() {
	var names [4096]byte
	for chunk := range f.chunks {
		for _, s := range chunk {
			if err := f.fill(s, names[:]); err != nil {
				f.cancel(err)
				return
			}
		}
	}
}

// fill says of a file what fsutil says of it.
func (f *filler) fill(s *types.Stat, names []byte) error {
	full := f.root + "/" + s.Path
	fi, err := os.Lstat(full)
	if err != nil {
		return err
	}
	sys, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: %T is not what the system says of a file", s.Path, fi.Sys())
	}
	was := fs.FileMode(s.Mode).Type()
	if was != fi.Mode().Type() {
		return fmt.Errorf("%s: has changed", s.Path)
	}
	// As for tar, a socket is a file.
	s.Mode, s.ModTime = uint32(fi.Mode()&^fs.ModeSocket), fi.ModTime().UnixNano()
	if was != fs.ModeDir {
		s.Size = fi.Size()
	}
	switch {
	case was == fs.ModeSymlink:
		if s.Linkname, err = os.Readlink(full); err != nil {
			return err
		}
	case was&fs.ModeDevice != 0:
		s.Devmajor, s.Devminor = int64(unix.Major(sys.Rdev)), int64(unix.Minor(sys.Rdev))
	case was == 0 && sys.Nlink > 1:
		f.mu.Lock()
		f.inodes[s.Path] = inode{sys.Dev, sys.Ino}
		f.mu.Unlock()
	}
	n, err := unix.Llistxattr(full, names)
	if n == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	whole, err := fsutil.Stat(full)
	if err == nil {
		s.Xattrs = whole.Xattrs
	}
	return err
}

// listed is a directory as it was when it was listed.
type listed struct {
	listing
	fsutil.FS
}

// Walk is FS's.
func (l listed) Walk(ctx context.Context, _ string, fn fs.WalkDirFunc) error {
	for _, s := range l.listing {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fn(s.Path, listedEntry{s}, nil); err != nil {
			return err
		}
	}
	return nil
}

// Open is FS's.
func (l listed) Open(p string) (io.ReadCloser, error) { return l.FS.Open(p) }

type listedEntry struct{ *types.Stat }

// Name is DirEntry's.
func (e listedEntry) Name() string { return filepath.Base(e.Path) }

// IsDir is DirEntry's.
func (e listedEntry) IsDir() bool { return e.Stat.IsDir() }

// Type is DirEntry's.
func (e listedEntry) Type() fs.FileMode { return fs.FileMode(e.Mode).Type() }

// Info is DirEntry's.
func (e listedEntry) Info() (fs.FileInfo, error) { return &fsutil.StatInfo{Stat: e.Stat}, nil }
