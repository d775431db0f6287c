package lazy

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

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
	cut   int     // how many times it ends in the middle first
	spoil int     // how many times it sends zeros first
}

func (m *memory) OpenBlob(_ context.Context, _ Layer, off, n int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, off)
	if m.fail > 0 {
		m.fail--
		return nil, errors.New("not now")
	}
	p := slices.Clone(m.data[off : off+n])
	if m.cut > 0 {
		m.cut--
		p = p[:n/2]
	}
	if m.spoil > 0 {
		m.spoil--
		clear(p)
	}
	return io.NopCloser(bytes.NewReader(p)), nil
}

func testBlob(t *testing.T, m *memory, l Layer) *blob {
	t.Helper()
	l.Size = int64(len(m.data))
	b, err := newBlob(t.Context(), m, l, t.TempDir(), 0, newTraffic(3))
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
	m := &memory{data: noise(10*block + 77), fail: 1, cut: 1}
	b := testBlob(t, m, Layer{})
	f := &filler{way: b.way, blobs: []*blob{b}, urgent: []int64{block}}
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
		if err := f.run(t.Context()); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	if err := f.run(t.Context()); err != nil || !b.complete() {
		t.Errorf("not complete: %v", err)
	}
	if _, err := os.Stat(b.word); err != nil {
		t.Errorf("nobody is told: %v", err)
	}
	slices.Sort(m.asked)
	if len(m.asked) > 13 {
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

// TestNext is of what the background fetches first.
func TestNext(t *testing.T) {
	low := testBlob(t, &memory{data: noise(4 * fillRun)}, Layer{})
	high := testBlob(t, &memory{data: noise(3 * fillRun)}, Layer{})
	high.way = low.way
	f := &filler{way: low.way, blobs: []*blob{low, high}, urgent: []int64{0, block}}
	want := func(b *blob, first, end int) {
		t.Helper()
		if gb, gf, ge := f.next(); gb != b || gf != first || ge != end {
			t.Errorf("next: %d to %d of the higher layer: %v", gf, ge, gb == high)
		}
	}
	const run = fillRun / block
	want(high, 0, 1)
	want(low, 0, run)
	f.way.follow(low, 2*fillRun+1)
	want(low, 2*run, 3*run)
	want(low, 3*run, 4*run)
	want(low, run, 2*run)
	want(high, 1, 1+run)
	want(high, 1+run, 1+2*run)
	want(high, 1+2*run, 3*run)
	want(nil, 0, 0)
}

// TestTurns is of containers that wait: the background gives way.
func TestTurns(t *testing.T) {
	way := newTraffic(2)
	way.want()
	if err := way.turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := way.turn(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a third connection: %v", err)
	}
	got := make(chan error)
	go func() { got <- way.turn(t.Context()) }()
	way.served()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestEagerEnd is of the estimate by which an image is fetched as a whole.
func TestEagerEnd(t *testing.T) {
	for _, c := range []struct {
		total, sample int64
		took, want    time.Duration
	}{
		{150 << 20, 150 << 20, time.Second, time.Second},
		{300 << 20, 100 << 20, time.Second, 4 * time.Second},
		{0, 0, 0, 0},
		{150 << 20, 0, time.Second, 1e6 * time.Second},
		{150 << 30, 150 << 30, time.Second, 1024 * time.Second},
	} {
		got := eagerEnd(c.total, c.sample, c.took)
		if (got - c.want).Abs() > time.Millisecond {
			t.Errorf("%d of %d in %s: %s, want %s", c.sample, c.total, c.took, got, c.want)
		}
	}
}
