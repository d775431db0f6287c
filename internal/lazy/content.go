package lazy

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/gzip"

	"gantry/internal/errs"
)

// Marks that eStargz puts into layers for those who read them by parts.
const (
	landmark   = ".prefetch.landmark"
	noLandmark = ".no.prefetch.landmark"
)

// cacheBytes bounds the unpacked chunks that are kept in memory.
const cacheBytes = 16 << 20

// A cache is the chunks that were unpacked last, of all layers.
type cache struct {
	mu   sync.Mutex
	list []*chunk // latest last
	size int64
}

// get returns the chunk of an entry, which may still have to be unpacked.
func (c *cache) get(e *estargz.TOCEntry) *chunk {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.IndexFunc(c.list, func(k *chunk) bool { return k.entry == e }); i >= 0 {
		k := c.list[i]
		c.list = append(slices.Delete(c.list, i, i+1), k)
		return k
	}
	k := &chunk{entry: e}
	c.list = append(c.list, k)
	c.size += e.ChunkSize
	for c.size > cacheBytes && len(c.list) > 1 {
		c.size -= c.list[0].entry.ChunkSize
		c.list = slices.Delete(c.list, 0, 1)
	}
	return k
}

func (c *cache) drop(k *chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.list, k); i >= 0 {
		c.size -= k.entry.ChunkSize
		c.list = slices.Delete(c.list, i, i+1)
	}
}

// contents are the files of a layer.
type contents struct {
	blob   *blob
	reader *estargz.Reader
	verify estargz.TOCEntryVerifier
	inodes map[*estargz.TOCEntry]uint64
	cache  *cache
}

// A chunk is a part of a file, unpacked, or on the way to it.
type chunk struct {
	entry *estargz.TOCEntry
	once  sync.Once
	data  []byte
	err   error
}

// openContents reads a layer's table of contents and checks it.
func openContents(b *blob, shared *cache) (*contents, error) {
	r, err := estargz.Open(io.NewSectionReader(b, 0, b.layer.Size))
	if err != nil {
		return nil, fmt.Errorf("table of contents of %s: %w", b.layer.Digest, err)
	}
	v, err := r.VerifyTOC(b.layer.TOC)
	if err != nil {
		return nil, errs.New(errs.Invalid, "table of contents of %s: %w", b.layer.Digest, err)
	}
	c := &contents{blob: b, reader: r, verify: v, inodes: map[*estargz.TOCEntry]uint64{}, cache: shared}
	root, ok := r.Lookup("")
	if !ok {
		return nil, errs.New(errs.Invalid, "%s has no root", b.layer.Digest)
	}
	return c, c.number(root, 0)
}

// number gives every entry an inode number, by which hard links are told.
func (c *contents) number(e *estargz.TOCEntry, depth int) (err error) {
	if c.inodes[e] != 0 {
		if e.Type == "dir" {
			return errs.New(errs.Invalid, "%s is in two directories", e.Name)
		}
		return nil
	}
	if depth > 1000 {
		return errs.New(errs.Invalid, "directories lie too deep in each other")
	}
	c.inodes[e] = uint64(len(c.inodes) + 1)
	e.ForeachChild(func(_ string, child *estargz.TOCEntry) bool {
		err = c.number(child, depth+1)
		return err == nil
	})
	return err
}

// urgent returns how many bytes of the blob its maker says are needed at once.
func (c *contents) urgent() int64 {
	if e, ok := c.reader.Lookup(landmark); ok {
		return e.Offset
	}
	return 0
}

// read reads from a file. What it returns has the digest that the table of
// contents says.
func (c *contents) read(name string, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		e, ok := c.reader.ChunkEntryForOffset(name, off+int64(n))
		if !ok {
			break
		}
		data, err := c.unpacked(name, e)
		if err != nil {
			return n, err
		}
		at := off + int64(n) - e.ChunkOffset
		if at < 0 || at >= int64(len(data)) {
			break
		}
		n += copy(p[n:], data[at:])
	}
	return n, nil
}

// unpacked returns a chunk, unpacked once for all who ask at the same time.
func (c *contents) unpacked(name string, e *estargz.TOCEntry) ([]byte, error) {
	k := c.cache.get(e)
	k.once.Do(func() {
		if k.data, k.err = c.unpack(name, e); k.err != nil {
			// Something else may come the second time.
			c.blob.forget(e.Offset, e.NextOffset()-e.Offset)
			k.data, k.err = c.unpack(name, e)
		}
	})
	if k.err != nil {
		c.cache.drop(k)
	}
	return k.data, k.err
}

// maxChunk bounds what a chunk may take in memory.
const maxChunk = 64 << 20

func (c *contents) unpack(name string, e *estargz.TOCEntry) ([]byte, error) {
	if e.ChunkSize < 0 || e.ChunkSize > maxChunk {
		return nil, errs.New(errs.Invalid, "%s has a chunk of %d bytes", name, e.ChunkSize)
	}
	size := e.NextOffset() - e.Offset
	c.blob.way.follow(c.blob, e.Offset+size)
	if err := c.blob.need(e.Offset, size); err != nil {
		return nil, err
	}
	// A chunk begins a gzip stream of its own, or is behind others in one.
	z, err := gzip.NewReader(bufio.NewReaderSize(io.NewSectionReader(c.blob.file, e.Offset, size), 64<<10))
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	defer z.Close()
	data := make([]byte, e.ChunkSize)
	if _, err = io.CopyN(io.Discard, z, e.InnerOffset); err == nil {
		_, err = io.ReadFull(z, data)
	}
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	v, err := c.verify.Verifier(e)
	if err != nil {
		return nil, err
	}
	if _, err := v.Write(data); err != nil || !v.Verified() {
		return nil, errs.New(errs.Corrupt, "%s at %d does not have its digest", name, e.ChunkOffset)
	}
	return data, nil
}

// Whiteouts of layers, as OCI's layer format names them.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// child finds what overlay shall see as name in a directory: gone tells that it is
// a whiteout.
func child(dir *estargz.TOCEntry, name string) (e *estargz.TOCEntry, gone, ok bool) {
	if strings.HasPrefix(name, whiteout) || name == landmark || name == noLandmark {
		return nil, false, false
	}
	if e, ok := dir.LookupChild(name); ok {
		return e, false, true
	}
	e, ok = dir.LookupChild(whiteout + name)
	return e, true, ok
}

// children calls f for all that overlay shall see in a directory.
func children(dir *estargz.TOCEntry, f func(name string, e *estargz.TOCEntry, gone bool)) {
	dir.ForeachChild(func(name string, e *estargz.TOCEntry) bool {
		plain, gone := strings.CutPrefix(name, whiteout)
		switch {
		case name == landmark, name == noLandmark, strings.HasPrefix(name, whiteout+whiteout):
		case gone:
			if _, both := dir.LookupChild(plain); !both {
				f(plain, e, true)
			}
		default:
			f(name, e, false)
		}
		return true
	})
}

// isOpaque reports whether a directory hides what is below it.
func isOpaque(dir *estargz.TOCEntry) bool {
	_, ok := dir.LookupChild(opaque)
	return ok
}
