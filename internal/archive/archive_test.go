package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/layer"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// lay makes what names say below dir: "a/" a directory, "a -> b" a link, "a = b"
// another name, "-a" a whiteout, "a/!" an opaque directory, "a|" a FIFO; a file
// holds its own name.
func lay(t *testing.T, dir string, names ...string) string {
	t.Helper()
	for _, n := range names {
		p, to, isLink := strings.Cut(n, " -> ")
		q, first, isHard := strings.Cut(n, " = ")
		full := func(s string) string { return filepath.Join(dir, strings.Trim(s, "-!|")) }
		if err := os.MkdirAll(filepath.Dir(full(strings.Fields(n)[0])), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case isLink:
			err = os.Symlink(to, full(p))
		case isHard:
			err = os.Link(full(first), full(q))
		case strings.HasPrefix(filepath.Base(n), "-"):
			err = unix.Mknod(filepath.Join(filepath.Dir(full(n)), filepath.Base(n)[1:]), unix.S_IFCHR, 0)
		case strings.HasSuffix(n, "/!"):
			err = errors.Join(os.MkdirAll(full(n), 0o755), unix.Setxattr(full(n), opaqueXattr, []byte("y"), 0))
		case strings.HasSuffix(n, "/"):
			err = os.MkdirAll(full(n), 0o755)
		case strings.HasSuffix(n, "|"):
			err = unix.Mkfifo(full(n), 0o600)
		default:
			err = os.WriteFile(full(n), []byte(n), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t *testing.T, dir string) *Tree {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return Of(fd)
}

// read lists a tar: names, with what they link to.
func read(t *testing.T, r io.Reader) (list string, all map[string]*tar.Header) {
	t.Helper()
	all = map[string]*tar.Header{}
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return strings.Join(names, " "), all
		}
		if err != nil {
			t.Fatal(err)
		}
		n := h.Name
		switch h.Typeflag {
		case tar.TypeSymlink:
			n += "->" + h.Linkname
		case tar.TypeLink:
			n += "=" + h.Linkname
		}
		names, all[h.Name] = append(names, n), h
	}
}

func TestPackNames(t *testing.T) {
	tree := open(t, lay(t, t.TempDir(), "d/f", "d/e/", "d/l -> f", "d/h = d/f", "d/p|", "dl -> d", "abs -> /d/f", "up -> ../../d"))
	for p, want := range map[string]string{
		"/d": "d/ d/e/ d/f d/h=d/f d/l->f d/p", "/d/": "d/ d/e/ d/f d/h=d/f d/l->f d/p", "/d/.": "./ ./e/ ./f ./h=./f ./l->f ./p",
		"/d/f": "f", "/dl": "dl->d", "/dl/": "dl/ dl/e/ dl/f dl/h=dl/f dl/l->f dl/p", "/up/.": "./ ./e/ ./f ./h=./f ./l->f ./p",
		"/": "/ /abs->/d/f /d/ /d/e/ /d/f /d/h=/d/f /d/l->f /d/p /dl->d /up->../../d",
	} {
		var buf bytes.Buffer
		if err := tree.Pack(t.Context(), &buf, Clean(p), nil); err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if got, _ := read(t, &buf); got != want {
			t.Errorf("%s: got %q, want %q", p, got, want)
		}
	}
	for p, want := range map[string]error{"/no": fs.ErrNotExist, "/d/f/": unix.ENOTDIR, "/d/f/.": unix.ENOTDIR, "/dl/no": fs.ErrNotExist} {
		if err := tree.Pack(t.Context(), io.Discard, Clean(p), nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", p, err)
		}
	}
	for p, want := range map[string]string{"/abs": "/d/f", "/up": "/d", "/d/l": "/d/f", "/d": ""} {
		if s, err := tree.Stat(p); err != nil || s.LinkTarget != want {
			t.Errorf("target of %s: %q %v", p, s.LinkTarget, err)
		}
	}
	if _, err := tree.Stat("/no"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("stat of nothing: %v", err)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"d": "/d", "/d/": "/d/", "/d/.": "/d/.", "d/../../e/": "/e/", "/": "/", "": "/", ".": "/.", "//a//b": "/a/b", "/..": "/", "/a/./": "/a/",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestKinds packs a file of every kind and extracts it again.
func TestKinds(t *testing.T) {
	needRoot(t)
	long := strings.Repeat("ü", 60) + "/" + strings.Repeat("x", 200)
	from := lay(t, t.TempDir(), "f", "h = f", "l -> /etc/passwd", "p|", long)
	sock, err := net.Listen("unix", from+"/sock")
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	if err := errors.Join(
		unix.Mknod(from+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mknod(from+"/loop", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))),
		unix.Chmod(from+"/null", 0o666), os.Chown(from+"/f", 11, 22), unix.Chmod(from+"/f", 0o4750), unix.Setxattr(from+"/f", "user.note", []byte("x\x00y"), 0),
		os.WriteFile(from+"/bad\xffname", nil, 0o600), os.Truncate(from+"/bad\xffname", 2<<20),
	); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := open(t, from).Pack(t.Context(), &buf, "/.", nil); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	root, _ := unix.Open(to, unix.O_PATH|unix.O_DIRECTORY, 0)
	defer unix.Close(root)
	if _, err := layer.Extract(t.Context(), root, &buf, layer.ExtractOptions{}); err != nil {
		t.Fatal(err)
	}
	var f, h, null, big unix.Stat_t
	if err := errors.Join(unix.Stat(to+"/f", &f), unix.Stat(to+"/h", &h), unix.Stat(to+"/null", &null), unix.Stat(to+"/bad\xffname", &big)); err != nil {
		t.Fatal(err)
	}
	if f.Ino != h.Ino || f.Uid != 11 || f.Gid != 22 || f.Mode&0o7777 != 0o4750 {
		t.Errorf("file: %+v", f)
	}
	if null.Rdev != unix.Mkdev(1, 3) || null.Mode != unix.S_IFCHR|0o666 {
		t.Errorf("device: %+v", null)
	}
	if big.Size != 2<<20 || big.Blocks > 64 {
		t.Errorf("a file of zeros takes %d blocks", big.Blocks)
	}
	note := make([]byte, 10)
	if n, err := unix.Getxattr(to+"/f", "user.note", note); err != nil || string(note[:n]) != "x\x00y" {
		t.Errorf("attribute %q %v", note[:max(n, 0)], err)
	}
	if got, _ := os.Readlink(to + "/l"); got != "/etc/passwd" {
		t.Errorf("link to %q", got)
	}
	if text, err := os.ReadFile(filepath.Join(to, long)); err != nil || string(text) != long {
		t.Errorf("long name: %v", err)
	}
	if _, err := os.Lstat(to + "/sock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a socket was copied: %v", err)
	}
}

// layers is an upper directory over two.
func layers(t *testing.T) Upper {
	t.Helper()
	top := t.TempDir()
	low := lay(t, top+"/low", "bin/sh", "bin/vi", "etc/passwd", "var/log/a", "var/log/b", "opt/x", "opt/y/z", "gone/f", "file", "was/dir")
	for _, f := range []string{"/opt/x", "/etc/passwd"} { // or they may be of the same tick as those above
		if err := os.Chtimes(low+f, time.Time{}, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	mid := lay(t, top+"/mid", "bin/ls", "var/log/-b", "opt2/q")
	up := lay(t, top+"/up", "bin/-vi", "etc/passwd", "new/sub/f", "opt/!", "opt/x", "-gone", "-never", "file/in", "was",
		"dev/", "proc/", ".dockerenv", "etc/resolv.conf", "var/log/-b", "touched/", "bin/.wh.odd")
	for _, f := range []string{"/.dockerenv", "/etc/resolv.conf"} {
		if err := os.Truncate(up+f, 0); err != nil {
			t.Fatal(err)
		}
	}
	return Upper{Dir: up, Lower: []string{mid, low}}
}

func TestChanges(t *testing.T) {
	needRoot(t)
	u := layers(t)
	list, err := u.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range list {
		got = append(got, "CAD"[c.Kind:c.Kind+1]+c.Path)
	}
	want := "C/bin A/bin/.wh.odd D/bin/vi C/etc C/etc/passwd C/file A/file/in D/gone A/new A/new/sub A/new/sub/f C/opt C/opt/x D/opt/y A/touched C/was"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	same, err := Upper{Dir: t.TempDir(), Lower: u.Lower}.Changes(t.Context())
	if err != nil || len(same) > 0 {
		t.Errorf("nothing: %v %v", same, err)
	}
}

// TestWriteLayer: what a layer's tar says is what the overlay showed.
func TestWriteLayer(t *testing.T) {
	needRoot(t)
	u := layers(t)
	var buf bytes.Buffer
	n, err := u.WriteLayer(t.Context(), &buf, func(int, int) (int, int) { return 5, 6 })
	if err != nil {
		t.Fatal(err)
	}
	got, all := read(t, bytes.NewReader(buf.Bytes()))
	want := "bin/ bin/.wh.vi etc/ etc/passwd file/ file/in .wh.gone new/ new/sub/ new/sub/f opt/ opt/.wh..wh..opq opt/x touched/ was"
	if got != want || n != len(all) {
		t.Errorf("%d entries\ngot  %s\nwant %s", n, got, want)
	}
	if h := all["etc/passwd"]; h.Uid != 5 || h.Gid != 6 {
		t.Errorf("owner %d:%d", h.Uid, h.Gid)
	}
	dir := t.TempDir()
	if _, err := layer.Apply(t.Context(), dir, &buf, layer.Options{Parents: u.Lower}); err != nil {
		t.Fatal(err)
	}
	again, err := Upper{Dir: dir, Lower: u.Lower}.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, _ := u.Changes(t.Context())
	first = slices.DeleteFunc(first, func(c Change) bool { return strings.HasSuffix(c.Path, ".wh.odd") })
	if fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("unpacked: %v, was %v", again, first)
	}
	if err := unix.Setxattr(u.Dir+"/new", redirectXattr, []byte("/opt"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := u.WriteLayer(t.Context(), io.Discard, nil); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("content in another layer: %v", err)
	}
}

// TestKernelState: nothing is read from, or written to, what the kernel shows.
func TestKernelState(t *testing.T) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	tree := Live(fd)
	for _, p := range []string{"/proc/self/status", "/sys/kernel", "/proc/1/root", "/dev/null"} {
		if s, err := tree.Stat(p); err == nil {
			t.Errorf("%s is shown: %+v", p, s)
		}
		if _, err := tree.Point(p); err == nil {
			t.Errorf("%s can be written to", p)
		}
	}
	var buf bytes.Buffer
	if err := tree.Pack(t.Context(), &buf, "/proc", nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(t, &buf); got != "proc/" {
		t.Errorf("/proc holds %s", got)
	}
}

func TestUsage(t *testing.T) {
	dir := lay(t, t.TempDir(), "a/f", "a/g = a/f", "l -> /")
	if err := os.WriteFile(dir+"/a/f", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := Usage(t.Context(), dir); n < 1<<20 || n > 1<<20+64<<10 {
		t.Errorf("%d bytes", n)
	}
}
