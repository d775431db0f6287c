package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// canary is a tree beside the directory that is unpacked to. Nothing that a tar
// says may change it, or add to what is around it.
type canary struct {
	t    testing.TB
	base string
	sum  string
}

// newCanary returns the directory to unpack to.
func newCanary(t testing.TB) (*canary, string) {
	t.Helper()
	c := &canary{t: t, base: t.TempDir()}
	for _, d := range []string{"outside", "outside/dir", "root"} {
		if err := os.Mkdir(filepath.Join(c.base, d), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"outside/file", "outside/dir/file", "file"} {
		if err := os.WriteFile(filepath.Join(c.base, f), []byte("untouched"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	c.sum = c.state()
	return c, filepath.Join(c.base, "root")
}

// state sums up everything around the root that an attack could change.
func (c *canary) state() string {
	h := sha256.New()
	err := filepath.WalkDir(c.base, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(c.base, p)
		if rel == "root" {
			return fs.SkipDir
		}
		if rel == "." {
			return nil
		}
		var xattrs [1024]byte
		n, _ := unix.Llistxattr(p, xattrs[:])
		fmt.Fprintln(h, rel, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Rdev, xattrs[:max(n, 0)])
		if d.Type().IsRegular() {
			data, err := os.ReadFile(p)
			fmt.Fprintf(h, "%q", data)
			return err
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func (c *canary) check(what string) {
	c.t.Helper()
	if c.state() != c.sum {
		c.t.Errorf("%s: something outside of the root has changed", what)
	}
}

// TestHostileTars is row S9: nothing leaves the root, whatever the tar says.
func TestHostileTars(t *testing.T) {
	needRoot(t)
	c, root := newCanary(t)
	abs := filepath.Join(c.base, "outside")
	up := strings.Repeat("../", 40)
	deep := strings.Repeat("d/", 255)
	chain := []entry{sym("l0", abs)}
	for i := range 100 {
		chain = append(chain, sym(fmt.Sprintf("l%d", i+1), fmt.Sprintf("l%d", i)))
	}
	pax := func(key, value string) entry {
		return entry{tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, PAXRecords: map[string]string{key: value}}, "x"}
	}
	const refused, harmless = true, false
	for _, tc := range []struct {
		name    string
		refused bool
		entries []entry
	}{
		{"dotdot", refused, []entry{reg("../outside/file", "x")}},
		{"dotdot inside", refused, []entry{dir("a"), reg("a/../../outside/file", "x")}},
		{"absolute", harmless, []entry{reg(abs+"/file", "x"), reg("/etc/passwd", "x")}},
		{"absolute link", harmless, []entry{sym("l", abs), reg("l/file", "x"), dir("l/dir"), reg("l/dir/file", "y")}},
		{"climbing link", harmless, []entry{sym("l", up+abs[1:]), reg("l/file", "x")}},
		{"link to proc", harmless, []entry{sym("l", "/proc/self/root"), reg("l/tmp/x", "x"), sym("m", "/proc/self/cwd"), reg("m/x", "x")}},
		{"link to a descriptor", harmless, []entry{sym("l", "/proc/self/fd/3"), reg("l/x", "x")}},
		{"link chain", refused, append(chain, reg("l100/file", "x"))},
		{"link loop", refused, []entry{sym("a", "b"), sym("b", "a"), reg("a/x", "x")}},
		{"link to itself", refused, []entry{sym("a", "a/b"), reg("a/x", "x")}},
		{"link then directory", harmless, []entry{sym("l", abs), dir("l"), {Header: tar.Header{Typeflag: tar.TypeDir, Name: "l", Mode: 0o777}}}},
		{"link then file", harmless, []entry{sym("l", abs+"/file"), reg("l", "x")}},
		{"chmod by a link", harmless, []entry{sym("l", abs+"/file"), {Header: tar.Header{Typeflag: tar.TypeLink, Name: "m", Linkname: "l", Mode: 0o777}}}},
		{"hard link out", refused, []entry{link("l", "../outside/file")}},
		{"hard link absolute", refused, []entry{link("l", abs+"/file"), reg("l", "x")}},
		{"hard link through a link", refused, []entry{sym("s", abs), link("l", "s/file"), reg("l", "x")}},
		{"hard link to a link", harmless, []entry{sym("s", abs+"/file"), link("l", "s"), reg("l", "x")}},
		{"hard link to a hard link", harmless, []entry{reg("a", "x"), link("b", "a"), link("c", "b"), reg("c", "y")}},
		{"hard link to a directory", refused, []entry{dir("a"), link("b", "a")}},
		{"hard link to the root", refused, []entry{link("b", ".")}},
		{"hard link over its own tree", refused, []entry{dir("a"), reg("a/f", "x"), link("a", "a/f")}},
		{"hard link in a place of a link", harmless, []entry{sym("s", abs), dir("s"), reg("s/a", "x"), link("b", "s/a")}},
		{"type flips", harmless, []entry{sym("x", abs), dir("x"), reg("x/f", "1"), sym("x", up), reg("x", "2"), dir("x"), link("x/g", "x/f")}[:6]},
		{"flip under an open directory", harmless, []entry{dir("a"), dir("a/b"), reg("a/b/f", "1"), sym("a", abs), reg("a/b/g", "2"), reg("a/file", "3")}},
		{"whiteout of the parent", refused, []entry{reg("a/.wh...", "")}},
		{"whiteout of itself", refused, []entry{reg("a/.wh..", "")}},
		{"whiteout of nothing", refused, []entry{reg("a/.wh.", "")}},
		{"whiteout through a link", harmless, []entry{sym("l", abs), reg("l/.wh.file", ""), reg("l/.wh..wh..opq", "")}},
		{"root as a file", refused, []entry{reg(".", "x")}},
		{"root as a link", refused, []entry{sym("/", abs)}},
		{"root as a whiteout", harmless, []entry{reg(".wh.x", ""), reg(".wh..wh..opq", "")}},
		{"deep", harmless, []entry{reg(deep+"f", "x")}},
		{"deeper", refused, []entry{reg(deep+"d/f", "x")}},
		{"long name", refused, []entry{reg(strings.Repeat("n", 256), "x")}},
		{"long target", refused, []entry{sym("l", strings.Repeat("n", 5000))}},
		{"path by pax", refused, []entry{pax("path", "../../outside/file")}},
		{"link path by pax", harmless, []entry{{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "x", PAXRecords: map[string]string{"linkpath": abs}}}, reg("l/file", "x")}},
		{"opaque by xattr", refused, []entry{pax("SCHILY.xattr.trusted.overlay.opaque", "y")}},
		{"redirect by xattr", refused, []entry{pax("SCHILY.xattr.trusted.overlay.redirect", "/"+abs)}},
		{"metacopy by xattr", refused, []entry{pax("SCHILY.xattr.user.overlay.metacopy", "")}},
		{"bad capability", refused, []entry{pax("SCHILY.xattr.security.capability", "x")}},
		{"owner out of range", refused, []entry{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: 1<<32 - 1}}}},
		{"socket", refused, []entry{{Header: tar.Header{Typeflag: 's', Name: "f"}}}},
		{"device out of range", refused, []entry{{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "f", Devmajor: 1 << 13}}}},
		{"fifo in place of a file", harmless, []entry{reg("f", "x"), {Header: tar.Header{Typeflag: tar.TypeFifo, Name: "f", Mode: 0o644}}, reg("f", "y")}},
		{"file below a file", refused, []entry{reg("f", "x"), reg("f/g", "y")}},
		{"through a fifo", refused, []entry{{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "f", Mode: 0o644}}, reg("f/g", "y")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data := rawTar(t, tc.entries...)
			for _, parents := range [][]string{nil, {t.TempDir()}} {
				if err := os.RemoveAll(root); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(root, 0o750); err != nil {
					t.Fatal(err)
				}
				c.sum = c.state()
				err := apply(t, root, data, Options{Parents: parents})
				c.check(tc.name)
				if tc.refused && !errs.Is(err, errs.Invalid) || !tc.refused && err != nil {
					t.Errorf("refused %v: %v", tc.refused, err)
				}
			}
		})
	}
}

// rawTar is makeTar for headers that the standard writer would not write.
func rawTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, e := range entries {
		if _, ok := e.PAXRecords["path"]; ok {
			e.Name, e.PAXRecords = e.PAXRecords["path"], nil
		}
		if v, ok := e.PAXRecords["linkpath"]; ok {
			e.Linkname, e.PAXRecords = v, nil
		}
		data := makeTar(t, e)
		buf.Write(data[:len(data)-1024]) // without the end
	}
	buf.Write(make([]byte, 1024))
	return buf.Bytes()
}

// zeros is an endless file of zeros in a tar.
func zeroTar(w io.Writer, size int64) error {
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{tw}, io.LimitReader(zeroReader{}, size), make([]byte, 1<<20))
	return errors.Join(err, tw.Close())
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestBombs is row S10: an error, not a full disk or a full memory.
func TestBombs(t *testing.T) {
	needRoot(t)
	limits := Limits{Entries: 1000, Bytes: 64 << 20, Ratio: 100, RatioFrom: 8 << 20}
	gz := func(size int64) []byte {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		if err := errors.Join(zeroTar(w, size), w.Close()); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	zst := func(size int64) []byte {
		var buf bytes.Buffer
		w, err := zstd.NewWriter(&buf)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(zeroTar(w, size), w.Close()); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	var many []entry
	for i := range 1001 {
		many = append(many, reg(fmt.Sprint("f", i), ""))
	}
	var plain bytes.Buffer
	if err := zeroTar(&plain, 65<<20); err != nil {
		t.Fatal(err)
	}
	sparse := makeTar(t, entry{tar.Header{Typeflag: tar.TypeReg, Name: "s", Mode: 0o644}, ""})
	copy(sparse[1024+124:], "77777777777\x00") // size 8 GiB - 1; a PAX header is before it
	fixChecksum(sparse[1024:])
	for _, tc := range []struct {
		name string
		data []byte
		text string
	}{
		{"gzip", gz(32 << 20), "gzip unpacks to more than 100 times its size: refused"},
		{"zstd", zst(32 << 20), "zstd unpacks to more than 100 times its size: refused"},
		{"gzip trailer", append(gz(1<<10), gz(32<<20)...), "gzip unpacks to more than 100 times its size: refused"},
		{"too large", plain.Bytes(), `layer entry "zeros": layer unpacks to more than 67108864 bytes: refused`},
		{"says it is large", sparse, `layer entry "s": layer unpacks to more than 67108864 bytes: refused`},
		{"entries", makeTar(t, many...), `layer entry "f1000": more than 1000 entries`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := Unpack(t.Context(), t.TempDir(), bytes.NewReader(tc.data), "", Options{Limits: limits})
			runtime.ReadMemStats(&after)
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %s", err, tc.text)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 48<<20 {
				t.Errorf("allocated %d bytes on the way", got)
			}
		})
	}
}

// fixChecksum makes a header of a tar valid again.
func fixChecksum(data []byte) {
	copy(data[148:156], "        ")
	sum := 0
	for _, b := range data[:512] {
		sum += int(b)
	}
	copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// TestXzDictionary refuses to allocate what a stream only says it needs.
func TestXzDictionary(t *testing.T) {
	for size, want := range map[byte]bool{20: true, 30: true, 31: false, 40: false} {
		head := make([]byte, 64)
		copy(head, "\xfd7zXZ\x00\x00\x04\x00\x00\x00\x00\x02\x00\x21\x01")
		head[16] = size
		if err := checkXz(head); (err == nil) != want {
			t.Errorf("dictionary %d (%d bytes): %v", size, dictSize(size), err)
		}
	}
	if dictSize(0) != 4<<10 || dictSize(1) != 6<<10 || dictSize(20) != 4<<20 || dictSize(28) != 64<<20 {
		t.Error("sizes of dictionaries")
	}
}

func TestCancelled(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Unpack(ctx, t.TempDir(), bytes.NewReader(makeTar(t, reg("f", "x"))), "", Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// FuzzApply unpacks what comes, and looks at the canary.
func FuzzApply(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	for _, entries := range [][]entry{
		{dir("a"), reg("a/f", "x"), sym("a/s", "../../.."), link("a/l", "a/f"), reg("a/.wh.f", "")},
		{sym("l", "/proc/self/root/tmp"), reg("l/x", "1"), dir("l"), reg("l/.wh..wh..opq", "")},
		{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "f", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}}}},
		{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1, Devminor: 3}}, {Header: tar.Header{Typeflag: tar.TypeFifo, Name: "p"}}},
	} {
		f.Add(rawTar(f, entries...))
	}
	limits := Limits{Entries: 200, Bytes: 1 << 20, Depth: 40}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, root := newCanary(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, _, err := Unpack(ctx, root, bytes.NewReader(data), "", Options{Limits: limits, Parents: []string{filepath.Join(c.base, "outside")}})
		c.check("fuzz")
		if errors.Is(err, unix.EBADF) || errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
