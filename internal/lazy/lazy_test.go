package lazy

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"

	"gantry/internal/errs"
)

// memory is a source of one blob, which may be wrong or not come for a while.
type memory struct {
	data []byte

	mu    sync.Mutex
	asked []int64 // offsets
	fail  int     // how many times it fails first
	spoil int     // how many times it sends zeros first
}

func (m *memory) ReadBlob(_ context.Context, _ Layer, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, off)
	if m.fail > 0 {
		m.fail--
		return errors.New("not now")
	}
	if copy(p, m.data[off:]) != len(p) {
		return io.ErrUnexpectedEOF
	}
	if m.spoil > 0 {
		m.spoil--
		clear(p)
	}
	return nil
}

func testBlob(t *testing.T, m *memory, l Layer) *blob {
	t.Helper()
	l.Size = int64(len(m.data))
	b, err := newBlob(t.Context(), m, l, filepath.Join(t.TempDir(), "blob"), &atomic.Int32{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.file.Close() })
	return b
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// TestBlob reads parts from many sides while the rest is filled: every block is
// fetched once.
func TestBlob(t *testing.T) {
	m := &memory{data: noise(10*block + 77), fail: 1}
	b := testBlob(t, m, Layer{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			p := make([]byte, block+1000)
			off := int64(i) * block
			if n, err := b.ReadAt(p, off); err != nil || !bytes.Equal(p[:n], m.data[off:off+int64(n)]) {
				t.Errorf("at %d: %d bytes, %v", off, n, err)
			}
		})
	}
	wg.Go(func() {
		if err := b.fill(b.layer.Size); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	if err := b.fill(b.layer.Size); err != nil || !b.complete() {
		t.Errorf("not complete: %v", err)
	}
	slices.Sort(m.asked)
	if len(m.asked) > 12 {
		t.Errorf("asked for %d parts: %v", len(m.asked), m.asked)
	}
	p := make([]byte, 100)
	if n, err := b.ReadAt(p, b.layer.Size-50); n != 50 || err != io.EOF || !bytes.Equal(p[:50], m.data[len(m.data)-50:]) {
		t.Errorf("at the end: %d %v", n, err)
	}
}

// packed returns a layer in eStargz form.
func packed(t *testing.T, list ...tar.Header) (*memory, Layer) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range list {
		var data []byte
		if h.Typeflag == tar.TypeReg && h.Size > 0 {
			data = noise(int(h.Size))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	blob, err := estargz.Build(io.NewSectionReader(bytes.NewReader(b.Bytes()), 0, int64(b.Len())), estargz.WithChunkSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	data, err := io.ReadAll(blob)
	if err != nil {
		t.Fatal(err)
	}
	return &memory{data: data}, Layer{TOC: blob.TOCDigest(), Digest: digest.FromBytes(data)}
}

// TestContents reads files by parts, out of order, and finds whiteouts.
func TestContents(t *testing.T) {
	m, l := packed(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "d/.wh.gone", Typeflag: tar.TypeReg}, tar.Header{Name: "d/.wh..wh..opq", Typeflag: tar.TypeReg},
		tar.Header{Name: "d/big", Typeflag: tar.TypeReg, Size: 300 << 10, Mode: 0o644}, tar.Header{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "d/big"})
	c, err := openContents(testBlob(t, m, l), &cache{})
	if err != nil {
		t.Fatal(err)
	}
	want := noise(300 << 10)
	for _, off := range []int64{200 << 10, 0, 64<<10 - 5, 300<<10 - 10, 300 << 10} {
		p := make([]byte, 100<<10)
		n, err := c.read("d/big", p, off)
		if err != nil || !bytes.Equal(p[:n], want[off:min(int64(len(want)), off+int64(len(p)))]) {
			t.Errorf("at %d: %d bytes, %v", off, n, err)
		}
	}
	root, _ := c.reader.Lookup("")
	d, _, ok := child(root, "d")
	if !ok || !isOpaque(d) {
		t.Fatalf("directory: %v, %v", d, ok)
	}
	var names []string
	children(d, func(name string, e *estargz.TOCEntry, gone bool) {
		if gone {
			name += " is gone"
		}
		names = append(names, name)
	})
	slices.Sort(names)
	if !slices.Equal(names, []string{"big", "gone is gone", "hard"}) {
		t.Errorf("shown: %q", names)
	}
	big, _, _ := child(d, "big")
	hard, _, _ := child(d, "hard")
	if c.inodes[big] != c.inodes[hard] || c.inodes[big] == 0 {
		t.Error("a hard link is another inode")
	}
	if _, gone, ok := child(d, "gone"); !ok || !gone {
		t.Error("a whiteout is not found")
	}
	for _, hidden := range []string{".wh.gone", opaque, landmark, "nosuch"} {
		if _, _, ok := child(d, hidden); ok {
			t.Errorf("%s is shown", hidden)
		}
	}
}

// TestWrongBytes is of a source that is not to be trusted: what is wrong once is
// fetched again, what stays wrong is an error, and so is another table of contents.
func TestWrongBytes(t *testing.T) {
	m, l := packed(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 1 << 20, Mode: 0o644}, tar.Header{Name: "z", Typeflag: tar.TypeReg, Size: 1 << 20, Mode: 0o644})
	c, err := openContents(testBlob(t, m, l), &cache{})
	if err != nil {
		t.Fatal(err)
	}
	m.spoil = 1
	p := make([]byte, 1000)
	if n, err := c.read("a", p, 0); err != nil || n != len(p) || !bytes.Equal(p, noise(1 << 20)[:1000]) {
		t.Errorf("wrong once: %d %v", n, err)
	}
	m.spoil = 1000
	if n, err := c.read("z", p, 512<<10); err == nil {
		t.Errorf("wrong bytes were read: %d", n)
	}
	l.TOC = digest.FromString("another")
	m.spoil = 0
	if _, err := openContents(testBlob(t, m, l), &cache{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("another table of contents: %v", err)
	}
}
