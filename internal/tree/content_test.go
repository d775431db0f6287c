package tree

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func blocks(t *testing.T, path string) (used int64, st *syscall.Stat_t) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st = fi.Sys().(*syscall.Stat_t)
	return st.Blocks * 512, st
}

func TestCopyKeepsHolesNamesAndAttributes(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	sparse := filepath.Join(from, "sparse")
	f, err := os.Create(sparse)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1 << 20, 9 << 20} {
		if _, err := f.WriteAt([]byte("data"), at); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		f.Truncate(64 << 20), f.Close(), os.Link(sparse, filepath.Join(from, "again")), os.Symlink("sparse", filepath.Join(from, "link")),
		os.Mkdir(filepath.Join(from, "sub"), 0o750), os.WriteFile(filepath.Join(from, "sub", "f"), []byte("x"), 0o640), os.Mkdir(filepath.Join(from, "empty"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	attr := unix.Setxattr(filepath.Join(from, "sub", "f"), "user.k", []byte("v"), 0) == nil
	var told int64
	got, err := CopyWith(t.Context(), open(t, from), open(t, to), Options{Told: func(n int64) { told += n }})
	if err != nil || got.Files != 4 || got.Bytes > 1<<20 || told != got.Bytes {
		t.Errorf("%+v, told %d, %v", got, told, err)
	}
	used, a := blocks(t, filepath.Join(to, "sparse"))
	_, b := blocks(t, filepath.Join(to, "again"))
	if used > 1<<20 || a.Size != 64<<20 || a.Ino != b.Ino {
		t.Errorf("uses %d of %d; inodes %d %d", used, a.Size, a.Ino, b.Ino)
	}
	x, err1 := os.ReadFile(sparse)
	y, err2 := os.ReadFile(filepath.Join(to, "sparse"))
	if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
		t.Error("the content differs")
	}
	if fi, err := os.Stat(filepath.Join(to, "sub")); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	if buf := make([]byte, 8); attr {
		if n, err := unix.Getxattr(filepath.Join(to, "sub", "f"), "user.k", buf); err != nil || string(buf[:n]) != "v" {
			t.Errorf("attribute %q, %v", buf, err)
		}
	}
	if l, err := os.Readlink(filepath.Join(to, "link")); l != "sparse" {
		t.Errorf("link %q, %v", l, err)
	}
}

func TestDig(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 4<<20)
	copy(data[1<<20:], "here")
	path := filepath.Join(dir, "d", "f")
	for _, err := range []error{os.Mkdir(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	fd := open(t, dir)
	defer unix.Close(fd)
	if err := Dig(t.Context(), fd); err != nil {
		t.Fatal(err)
	}
	used, _ := blocks(t, path)
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, data) || used > 1<<20 {
		t.Errorf("uses %d, %v", used, err)
	}
}
