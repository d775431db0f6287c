package content

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/errs"
	"gantry/internal/testkit"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
}

func openStore(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func hold(t testing.TB, s *Store) (context.Context, func()) {
	t.Helper()
	ctx, release, err := s.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ctx, release
}

// put stores two layers and returns them.
func put(t testing.TB, s *Store, ctx context.Context) []Layer {
	t.Helper()
	var layers []Layer
	for _, files := range [][]testkit.File{
		{{Name: "tmp/", Mode: 0o1777}, {Name: "tmp/low", Data: []byte("low")}, {Name: "etc/", UID: 3}, {Name: "etc/a", Data: []byte("a")}},
		{{Name: "tmp/.wh.low"}, {Name: "tmp/high", Data: []byte("high")}},
	} {
		data := testkit.Layer(files...)
		d, err := s.Write(ctx, bytes.NewReader(data), "")
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, Layer{d, digest.FromBytes(data)})
	}
	return layers
}

// name records an image of one blob that refers to the unpacked layers.
func name(t testing.TB, s *Store, ctx context.Context, image string, layers []Layer) ocispec.Descriptor {
	t.Helper()
	d, err := s.Write(ctx, strings.NewReader("manifest of "+image), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Refer(ctx, d.Digest, Chain(layers, len(layers)), layers[0].Blob, layers[1].Blob); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Images().Create(ctx, images.Image{Name: image, Target: ocispec.Descriptor{MediaType: "x/y", Digest: d.Digest, Size: d.Size}}); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBlobs(t *testing.T) {
	needRoot(t)
	root := filepath.Join(t.TempDir(), "data")
	s := openStore(t, root)
	ctx, release := hold(t, s)
	defer release()
	text := "some text"
	d, err := s.Write(ctx, strings.NewReader(text), "")
	if err != nil || d.Size != int64(len(text)) || d.Digest != digest.FromString(text) {
		t.Fatalf("%+v, %v", d, err)
	}
	// Again, by digest: the content is not read.
	if again, err := s.Write(ctx, iotestError{}, d.Digest); err != nil || again.Digest != d.Digest || again.Size != d.Size {
		t.Errorf("%+v, %v", again, err)
	}
	// Again, without: it is, and is the same.
	if again, err := s.Write(ctx, strings.NewReader(text), ""); err != nil || again.Digest != d.Digest {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := s.Write(ctx, strings.NewReader("other"), digest.FromString("else")); !errs.Is(err, errs.Invalid) {
		t.Errorf("wrong digest: %v", err)
	}
	if _, err := s.Write(ctx, strings.NewReader(""), "sha256:../../x"); !errs.Is(err, errs.Invalid) {
		t.Errorf("bad digest: %v", err)
	}
	if _, err := s.Write(ctx, iotestError{}, ""); !errors.Is(err, errRead) {
		t.Errorf("failing reader: %v", err)
	}
	if data, err := s.Read(ctx, d, 100); err != nil || string(data) != text {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := s.Read(ctx, d, 3); !errs.Is(err, errs.Invalid) {
		t.Errorf("too large: %v", err)
	}
	if _, err := s.Read(ctx, ocispec.Descriptor{Digest: digest.FromString("no")}, 3); !errs.Is(err, errs.NotFound) {
		t.Errorf("missing: %v", err)
	}
	path := filepath.Join(root, "content/blobs/sha256", d.Digest.Encoded())
	if err := os.WriteFile(path, []byte("some tExt"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(ctx, d, 100); !errs.Is(err, errs.Corrupt) {
		t.Errorf("changed on disk: %v", err)
	}
	if _, err := Open(t.Context(), Options{Root: root}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("opened twice: %v", err)
	}
	for _, dir := range []string{root, root + "/content", root + "/snapshots"} {
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, fi.Mode(), err)
		}
	}
}

var errRead = errors.New("read")

type iotestError struct{}

func (iotestError) Read([]byte) (int, error) { return 0, errRead }

func TestUnpackOnce(t *testing.T) {
	needRoot(t)
	s := openStore(t, t.TempDir())
	ctx, release := hold(t, s)
	defer release()
	layers := put(t, s, ctx)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Unpack(ctx, layers); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	err := s.Snapshots().Walk(Namespaced(t.Context()), func(_ context.Context, i snapshots.Info) error {
		n++
		if i.Kind != snapshots.KindCommitted {
			t.Errorf("left over: %+v", i)
		}
		return nil
	})
	if err != nil || n != 2 {
		t.Errorf("%d snapshots, %v", n, err)
	}
	dirs, err := s.Dirs(ctx, Chain(layers, 2))
	if err != nil || len(dirs) != 2 {
		t.Fatalf("%q, %v", dirs, err)
	}
	if data, err := os.ReadFile(dirs[0] + "/tmp/high"); string(data) != "high" {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := os.ReadFile(dirs[1] + "/tmp/low"); string(data) != "low" {
		t.Errorf("%q, %v", data, err)
	}
	if fi, err := os.Stat(dirs[0] + "/tmp"); err != nil || fi.Mode() != os.ModeDir|os.ModeSticky|0o777 {
		t.Errorf("directory like the one below: %v, %v", fi.Mode(), err)
	}
	if n, err := s.Usage(ctx, Chain(layers, 1)); err != nil || n <= 0 {
		t.Errorf("usage %d, %v", n, err)
	}
	if dirs, err := s.Dirs(ctx, ""); err != nil || len(dirs) != 0 {
		t.Errorf("no layers: %q, %v", dirs, err)
	}
	bad := slices.Clone(layers)
	bad[1].DiffID = digest.FromString("other")
	if err := s.Unpack(ctx, bad); !errs.Is(err, errs.Invalid) {
		t.Errorf("wrong diff id: %v", err)
	}
}

func dirCount(t testing.TB, root string) int {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(root, "snapshots/snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func blobCount(t testing.TB, root string) int {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(root, "content/blobs/sha256"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestWhatIsKept(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s := openStore(t, root)
	ctx, release := hold(t, s)
	layers := put(t, s, ctx)
	if err := s.Unpack(ctx, layers); err != nil {
		t.Fatal(err)
	}
	stray, err := s.Write(ctx, strings.NewReader("stray"), "")
	if err != nil {
		t.Fatal(err)
	}
	top := name(t, s, ctx, "a", layers)
	release()
	if _, err := s.Info(ctx, stray.Digest); !errs.Is(err, errs.NotFound) {
		t.Errorf("unnamed blob after the hold: %v", err)
	}
	if n := blobCount(t, root); n != 3 {
		t.Errorf("%d blobs, want 3", n)
	}
	if n := dirCount(t, root); n != 2 {
		t.Errorf("%d layers, want 2", n)
	}

	if err := s.Pin(t.Context(), "c1", top.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(t.Context(), "c2", stray.Digest); !errs.Is(err, errs.NotFound) {
		t.Errorf("pin of what is gone: %v", err)
	}
	nctx := Namespaced(t.Context())
	if err := s.Images().Delete(nctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Dirs(ctx, Chain(layers, 2)); err != nil || blobCount(t, root) != 3 {
		t.Errorf("pinned: %v, %d blobs", err, blobCount(t, root))
	}
	if owners, err := s.Pinned(t.Context()); err != nil || !slices.Equal(owners, []string{"c1"}) {
		t.Errorf("pinned: %q, %v", owners, err)
	}
	for range 2 {
		if err := s.Unpin(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Dirs(ctx, Chain(layers, 2)); !errs.Is(err, errs.NotFound) || blobCount(t, root) != 0 || dirCount(t, root) != 0 {
		t.Errorf("unpinned: %v, %d blobs, %d layers", err, blobCount(t, root), dirCount(t, root))
	}
}

// TestReopen leaves the store as a killed process would: a hold that was never
// released, an unpacking that was never finished.
func TestReopen(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s := openStore(t, root)
	ctx, _ := hold(t, s)
	layers := put(t, s, ctx)
	if err := s.Unpack(ctx, layers); err != nil {
		t.Fatal(err)
	}
	name(t, s, ctx, "a", layers)
	if _, err := s.Snapshots().Prepare(ctx, "unpack-x", Chain(layers, 1).String()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(ctx, strings.NewReader("stray"), ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "snapshots/snapshots/new-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	// A blob and a layer that did not get into the database.
	if err := os.WriteFile(filepath.Join(root, "content/blobs/sha256", digest.FromString("y").Encoded()), []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.overlay.Prepare(ctx, "gantry/99/lost", ""); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "content/ingest/half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "content/ingest")); err != nil || len(left) != 0 {
		t.Errorf("half-written: %v, %v", left, err)
	}
	if n := blobCount(t, root); n != 3 {
		t.Errorf("%d blobs, want 3", n)
	}
	if n := dirCount(t, root); n != 2 {
		t.Errorf("%d layers, want 2", n)
	}
	if _, err := s.Dirs(t.Context(), Chain(layers, 2)); err != nil {
		t.Error(err)
	}
}
