package lazy

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"

	"gantry/internal/testkit"
)

// TestPack: the files are the same, the table of contents has the digest that
// is told, and input that is no tar is refused.
func TestPack(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 3*packChunk/16)
	in := testkit.Layer(testkit.File{Name: "d/", Mode: 0o1777, UID: 3}, testkit.File{Name: "d/big", Data: big, Mode: 0o4755, GID: 9}, testkit.File{Name: "d/.wh.gone"}, testkit.File{Name: "d/link", Link: "big"})
	var out bytes.Buffer
	diffID, annotations, err := Pack(&out, bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(out.Bytes()), 0, int64(out.Len())))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.VerifyTOC(digest.Digest(annotations[TOCAnnotation])); err != nil {
		t.Error(err)
	}
	if e, ok := r.Lookup("d/big"); !ok || e.Size != int64(len(big)) || e.ChunkSize != packChunk {
		t.Errorf("the large file is %+v", e)
	}
	zr, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zr)
	if err != nil || digest.FromBytes(plain) != diffID {
		t.Errorf("unpacked it is not %s: %v", diffID, err)
	}
	got, want := tar.NewReader(bytes.NewReader(plain)), tar.NewReader(bytes.NewReader(in))
	for {
		w, err := want.Next()
		if err == io.EOF {
			break
		}
		g, gerr := got.Next()
		if err != nil || gerr != nil {
			t.Fatal(err, gerr)
		}
		if g.Name != w.Name || g.Mode != w.Mode || g.Uid != w.Uid || g.Gid != w.Gid || g.Size != w.Size || g.Linkname != w.Linkname || !g.ModTime.Equal(w.ModTime) {
			t.Errorf("entry %+v became %+v", w, g)
		}
	}
	for what, data := range map[string][]byte{
		"packed twice": {0x1f, 0x8b, 8, 0}, "two bytes of it": {0x1f, 0x8b}, "text": []byte(strings.Repeat("no tar", 200)), "cut": in[:700],
	} {
		if _, _, err := Pack(io.Discard, bytes.NewReader(data)); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}
