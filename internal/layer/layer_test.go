package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// needRoot skips where the kernel would not let us, but not in CI.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
}

var stamp = time.Date(2020, 1, 2, 3, 4, 5, 600, time.UTC)

// entry is a header with its content. A zero time is stamp.
type entry struct {
	tar.Header
	data string
}

func reg(name, data string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}
func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}
func sym(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, ""}
}
func link(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
}

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Format = tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = stamp
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(e.data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// tree lists what is below dir, one line an entry: type, mode, path, and what
// is in it.
func tree(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		line := fmt.Sprintf("%v %s", fi.Mode(), rel)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			line += " -> " + to
		case isWhiteout(&st):
			line = "whiteout " + rel
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %.20q", data)
		case fi.IsDir():
			var v [8]byte
			if n, _ := unix.Lgetxattr(p, opaqueXattr, v[:]); n == 1 {
				line += " opaque"
			}
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func apply(t testing.TB, dir string, data []byte, o Options) error {
	t.Helper()
	_, err := Apply(t.Context(), dir, bytes.NewReader(data), o)
	return err
}

func TestApply(t *testing.T) {
	needRoot(t)
	tests := []struct {
		name    string
		lower   []entry // unpacked first, as the layer below; nil for none
		entries []entry
		want    []string
	}{
		{"plain", nil, []entry{dir("./"), dir("a/"), reg("a/f", "hello"), sym("a/s", "f"), link("h", "a/f")}, []string{
			"drwxr-xr-x a", `-rw-r--r-- a/f "hello"`, "Lrwxrwxrwx a/s -> f", `-rw-r--r-- h "hello"`}},
		{"implied", nil, []entry{reg("/x/y/z", "1")}, []string{"drwxr-xr-x x", "drwxr-xr-x x/y", `-rw-r--r-- x/y/z "1"`}},
		{"implied as below", []entry{{Header: tar.Header{Typeflag: tar.TypeDir, Name: "tmp", Mode: 0o1777}}, sym("s", "tmp")},
			[]entry{reg("tmp/f", "1"), reg("s/g", "2")},
			[]string{"drwxr-xr-x s", `-rw-r--r-- s/g "2"`, "dtrwxrwxrwx tmp", `-rw-r--r-- tmp/f "1"`}},
		{"through a link", nil, []entry{dir("usr/"), sym("lib", "usr/lib"), reg("lib/f", "1"), sym("abs", "/usr/../usr/new/deep"), reg("abs/g", "2")}, []string{
			"Lrwxrwxrwx abs -> /usr/../usr/new/deep", "Lrwxrwxrwx lib -> usr/lib", "drwxr-xr-x usr", "drwxr-xr-x usr/lib", `-rw-r--r-- usr/lib/f "1"`,
			"drwxr-xr-x usr/new", "drwxr-xr-x usr/new/deep", `-rw-r--r-- usr/new/deep/g "2"`}},
		{"type flips", nil, []entry{dir("a"), reg("a/x", "1"), reg("a", "file"), sym("b", "a"), dir("b"), reg("b/y", "2"), reg("c", "1"), sym("c", "b"), reg("c", "again")}, []string{
			`-rw-r--r-- a "file"`, "drwxr-xr-x b", `-rw-r--r-- b/y "2"`, `-rw-r--r-- c "again"`}},
		{"twice", nil, []entry{dir("a"), reg("a/f", "1"), {Header: tar.Header{Typeflag: tar.TypeDir, Name: "a", Mode: 0o700}}, reg("a/f", "22")}, []string{
			"drwx------ a", `-rw-r--r-- a/f "22"`}},
		{"whiteouts", []entry{dir("d"), reg("d/old", "1")}, []entry{dir("d"), reg("d/.wh.old", ""), reg("e/.wh..wh..opq", ""), reg("e/f", "1"), reg(".wh..wh.plnk/x", "")}, []string{
			"drwxr-xr-x d", "whiteout d/old", "drwxr-xr-x e opaque", `-rw-r--r-- e/f "1"`}},
		{"whiteout in the lowest layer", nil, []entry{dir("d"), reg("d/.wh.old", ""), reg("d/.wh..wh..opq", "")}, []string{"drwxr-xr-x d"}},
		{"whiteout of what comes with it", []entry{dir("x")}, []entry{reg(".wh.d", ""), dir("d"), reg("d/f", "1"), dir("g"), reg("g/f", "2"), reg(".wh.g", ""), reg("h", "3"), reg(".wh.h", "")}, []string{
			"drwxr-xr-x d opaque", `-rw-r--r-- d/f "1"`, "drwxr-xr-x g opaque", `-rw-r--r-- g/f "2"`, `-rw-r--r-- h "3"`}},
		{"special", nil, []entry{{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o620}},
			{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}}, {Header: tar.Header{Typeflag: tar.TypeBlock, Name: "b", Mode: 0o600, Devmajor: 7, Devminor: 300}}}, []string{
			"Drw------- b", "Dcrw-rw-rw- null", "prw--w---- p"}},
		{"setuid", nil, []entry{{tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755, Uid: 7, Gid: 9}, "x"}, link("su", "su")}, []string{`urwxr-xr-x su "x"`}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			var o Options
			if tc.lower != nil {
				low := t.TempDir()
				if err := apply(t, low, makeTar(t, tc.lower...), Options{}); err != nil {
					t.Fatal(err)
				}
				o.Parents = []string{low}
			}
			if err := apply(t, root, makeTar(t, tc.entries...), o); err != nil {
				t.Fatal(err)
			}
			if got := tree(t, root); !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

func TestMetadata(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep, revision 2
	e := entry{tar.Header{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o755, Uid: 70000, Gid: maxID, ModTime: stamp, AccessTime: stamp.Add(time.Hour),
		PAXRecords: map[string]string{"SCHILY.xattr.user.note": "n", "SCHILY.xattr.security.capability": capability, "SCHILY.xattr.security.selinux": "no", "SCHILY.xattr.trusted.x": "no"}}, "data"}
	d := entry{tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o2750, Gid: 5, ModTime: stamp.Add(-time.Hour)}, ""}
	if err := apply(t, root, makeTar(t, d, e, sym("d/s", "nowhere")), Options{}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(root+"/d/f", &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 70000 || st.Gid != maxID || st.Mode&0o7777 != 0o755 || st.Mtim.Nano() != stamp.UnixNano() || st.Atim.Nano() != stamp.Add(time.Hour).UnixNano() {
		t.Errorf("file: %+v", st)
	}
	if err := unix.Lstat(root+"/d", &st); err != nil || st.Mode&0o7777 != 0o2750 || st.Gid != 5 || st.Mtim.Nano() != stamp.Add(-time.Hour).UnixNano() {
		t.Errorf("directory: %+v, %v", st, err)
	}
	if err := unix.Lstat(root+"/d/s", &st); err != nil || st.Mtim.Nano() != stamp.UnixNano() || st.Gid != 0 {
		t.Errorf("link: %+v, %v", st, err)
	}
	var buf [256]byte
	n, err := unix.Llistxattr(root+"/d/f", buf[:])
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	if !slices.Equal(names, []string{"security.capability", "user.note"}) {
		t.Errorf("xattrs %q", names)
	}
}

func TestSparse(t *testing.T) {
	needRoot(t)
	for _, data := range []string{strings.Repeat("\x00", 1<<20), "head" + strings.Repeat("\x00", 1<<20) + "tail", strings.Repeat("x", 300<<10) + strings.Repeat("\x00", 128<<10), strings.Repeat("\x00", 100)} {
		root := t.TempDir()
		if err := apply(t, root, makeTar(t, reg("f", data)), Options{}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(root + "/f")
		if err != nil || string(got) != data {
			t.Fatalf("%d bytes back of %d, %v", len(got), len(data), err)
		}
		var st unix.Stat_t
		if err := unix.Stat(root+"/f", &st); err != nil || len(data) > 1<<20-1 && st.Blocks*512 > 64<<10 {
			t.Errorf("%d blocks for zeros, %v", st.Blocks, err)
		}
	}
}

func pack(t testing.TB, c Compression, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	var err error
	switch c {
	case Gzip:
		w = gzip.NewWriter(&buf)
	case Zstd:
		w, err = zstd.NewWriter(&buf)
	case Xz:
		w, err = xz.NewWriter(&buf)
	case Bzip2:
		cmd := exec.Command("bzip2", "-c")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Skip("no bzip2 program to pack with:", err)
		}
		return out
	default:
		return data
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestUnpack(t *testing.T) {
	needRoot(t)
	data := makeTar(t, dir("d"), reg("d/f", strings.Repeat("content ", 100_000)))
	data = append(data, make([]byte, 10240)...) // padding counts for the digest
	sum := digest.FromBytes(data)
	for _, c := range []Compression{Plain, Gzip, Zstd, Xz, Bzip2} {
		t.Run(string(c), func(t *testing.T) {
			packed := pack(t, c, data)
			if got := Detect(packed); got != c {
				t.Errorf("detected %q", got)
			}
			root := t.TempDir()
			got, stats, err := Unpack(t.Context(), root, bytes.NewReader(packed), sum, Options{})
			if err != nil || got != sum || stats.Entries != 2 || stats.Bytes != 800_000 {
				t.Errorf("%v %+v, %v", got, stats, err)
			}
			if _, _, err = Unpack(t.Context(), t.TempDir(), bytes.NewReader(packed), digest.FromString("other"), Options{}); !errs.Is(err, errs.Invalid) {
				t.Errorf("wrong digest: %v", err)
			}
			if _, _, err = Unpack(t.Context(), t.TempDir(), bytes.NewReader(packed[:len(packed)/2]), "", Options{}); !errs.Is(err, errs.Invalid) {
				t.Errorf("cut off: %v", err)
			}
		})
	}
	if _, _, err := Unpack(t.Context(), t.TempDir(), strings.NewReader("garbage"), "", Options{}); !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "unexpected EOF" {
		t.Errorf("garbage: %v", err)
	}
	if _, _, err := Unpack(t.Context(), t.TempDir(), bytes.NewReader(data), "sha256:xyz", Options{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("bad digest: %v", err)
	}
}
