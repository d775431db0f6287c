package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("kernel tests need root")
	}
	t.Skip("kernel tests need root")
}

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// TestViewShowsWhatTheContainerSees: upper over lower, with its whiteouts.
func TestViewShowsWhatTheContainerSees(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	low, mid, upper := filepath.Join(dir, "a:b"), filepath.Join(dir, "mid"), filepath.Join(dir, "upper")
	write(t, filepath.Join(low, "etc/passwd"), "low", 0o644)
	write(t, filepath.Join(low, "etc/group"), "low", 0o644)
	write(t, filepath.Join(mid, "etc/passwd"), "mid", 0o644)
	if err := os.Chmod(mid, 0o751); err != nil {
		t.Fatal(err)
	}
	if err := MakeUpper(upper, mid); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(upper); err != nil || info.Mode().Perm() != 0o751 {
		t.Errorf("upper: %v %v", info.Mode(), err)
	}
	read := func(name string) (string, error) {
		v, err := Open(upper, []string{mid, low})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		data, err := v.ReadFile(name, 100)
		return string(data), err
	}
	if got, err := read("etc/passwd"); got != "mid" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if got, err := read("etc/group"); got != "low" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	write(t, filepath.Join(upper, "etc/passwd"), "upper", 0o644)
	if err := unix.Mknod(filepath.Join(upper, "etc/group"), unix.S_IFCHR, 0); err != nil { // a whiteout
		t.Fatal(err)
	}
	if got, err := read("etc/passwd"); got != "upper" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := read("etc/group"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed file: %v", err)
	}
	// A link to the host's file stays inside.
	if err := os.Remove(filepath.Join(upper, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "secret"), "secret", 0o600)
	if err := os.Symlink(filepath.Join(dir, "secret"), filepath.Join(upper, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if got, err := read("etc/passwd"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link out: %q %v", got, err)
	}
}

func TestCopyUp(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	image, vol := filepath.Join(dir, "image"), filepath.Join(dir, "vol")
	data := filepath.Join(image, "data")
	write(t, filepath.Join(data, "sub/file"), "text", 0o4750)
	if err := errors.Join(
		os.Mkdir(vol, 0o755), os.Chown(data, 33, 44), unix.Chmod(data, 0o1770), os.Chown(filepath.Join(data, "sub/file"), 55, 66),
		os.Chmod(filepath.Join(data, "sub/file"), 0o750|fs.ModeSetuid),
		os.Link(filepath.Join(data, "sub/file"), filepath.Join(data, "again")),
		os.Symlink("/etc/passwd", filepath.Join(data, "link")), unix.Mkfifo(filepath.Join(data, "fifo"), 0o600),
		unix.Setxattr(filepath.Join(data, "sub/file"), "user.note", []byte("x"), 0),
	); err != nil {
		t.Fatal(err)
	}
	v, err := Open(mustDir(t, filepath.Join(dir, "upper")), []string{image})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, missing := range []string{"/nosuch", "/data/sub/file"} {
		if err := v.CopyUp(t.Context(), missing, vol); err != nil {
			t.Errorf("%s: %v", missing, err)
		}
	}
	if err := v.CopyUp(t.Context(), "/data", vol); err != nil {
		t.Fatal(err)
	}
	var st, other unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Join(vol, "sub/file"), &st), unix.Stat(filepath.Join(vol, "again"), &other)); err != nil {
		t.Fatal(err)
	}
	if st.Ino != other.Ino || st.Uid != 55 || st.Gid != 66 || st.Mode&0o7777 != 0o4750 {
		t.Errorf("file: %o %d:%d, inodes %d %d", st.Mode, st.Uid, st.Gid, st.Ino, other.Ino)
	}
	if err := unix.Stat(vol, &st); err != nil || st.Uid != 33 || st.Gid != 44 || st.Mode&0o7777 != 0o1770 {
		t.Errorf("volume: %o %d:%d %v", st.Mode, st.Uid, st.Gid, err)
	}
	if to, err := os.Readlink(filepath.Join(vol, "link")); to != "/etc/passwd" || err != nil {
		t.Errorf("link: %q %v", to, err)
	}
	if info, err := os.Lstat(filepath.Join(vol, "fifo")); err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		t.Errorf("fifo: %v", err)
	}
	buf := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(vol, "sub/file"), "user.note", buf); err != nil || string(buf[:n]) != "x" {
		t.Errorf("attribute: %q %v", buf[:max(n, 0)], err)
	}
}

func mustDir(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
