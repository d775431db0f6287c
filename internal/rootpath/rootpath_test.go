package rootpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes a root with links that try to leave it, and a secret beside it.
func tree(t testing.TB) (dir string) {
	t.Helper()
	top := t.TempDir()
	dir = filepath.Join(top, "root")
	for _, d := range []string{"root/a/b", "root/etc", "outside"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"root/etc/passwd": "inside", "outside/passwd": "outside", "root/a/b/f": "f"} {
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"abs": "/etc", "up": "../../../../outside", "host": filepath.Join(top, "outside"), "rel": "a/b", "loop": "loop",
		"dangling": "/new/place", "a/back": "../etc/passwd", "chain": "/rel/../../abs/passwd", "self": "/proc/self/cwd",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// both runs a test with the kernel's resolution and with our own.
func both(t *testing.T, dir string, f func(*testing.T, *Root)) {
	for _, walk := range []bool{false, true} {
		t.Run(fmt.Sprintf("walk=%v", walk), func(t *testing.T) {
			r, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.walk = walk
			f(t, r)
		})
	}
}

func TestResolve(t *testing.T) {
	both(t, tree(t), func(t *testing.T, r *Root) {
		for name, want := range map[string]string{
			"etc/passwd": "inside", "/etc/passwd": "inside", "../../etc/passwd": "inside", "abs/passwd": "inside",
			"a/back": "inside", "chain": "inside", "rel/f": "f", "rel/../b/f": "f", "./a//b/./f": "f",
		} {
			got, err := r.ReadFile(name, 100)
			if err != nil || string(got) != want {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
			}
		}
		for name, want := range map[string]error{
			"up/passwd": unix.ENOENT, "host/passwd": unix.ENOENT, "loop": unix.ELOOP, "loop/x": unix.ELOOP, "": unix.ENOENT,
			"etc/passwd/x": unix.ENOTDIR, "nosuch": unix.ENOENT, "self": unix.ENOENT, "a/b": ErrNotRegular,
		} {
			if got, err := r.ReadFile(name, 100); !errors.Is(err, want) {
				t.Errorf("%s: got %q, %v, want %v", name, got, err, want)
			}
		}
		if _, err := r.ReadFile("etc/passwd", 5); !errors.Is(err, ErrTooBig) {
			t.Errorf("limit: %v", err)
		}
	})
}

func TestMagicLinks(t *testing.T) {
	r, err := Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, walk := range []bool{false, true} {
		r.walk = walk
		for _, name := range []string{"self/root", "self/cwd/x", "self/fd/0/x", "self/ns/mnt"} {
			if fd, err := r.OpenFd(name, unix.O_PATH, 0); !errors.Is(err, unix.ELOOP) {
				t.Errorf("walk=%v %s: got %d, %v, want ELOOP", walk, name, fd, err)
			}
		}
		if _, err := r.Stat("self/status"); err != nil {
			t.Errorf("walk=%v: a plain link of procfs: %v", walk, err)
		}
	}
}

func TestCreate(t *testing.T) {
	both(t, tree(t), func(t *testing.T, r *Root) {
		sub := t.Name()[strings.LastIndex(t.Name(), "=")+1:]
		fd, err := r.MkdirAll("dangling/"+sub+"/x/../y", 0o700)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if st, err := r.Stat("/new/place/" + sub + "/y"); err != nil || st.Mode != unix.S_IFDIR|0o700 {
			t.Errorf("made %#o, %v", st.Mode, err)
		}
		if _, err := r.MkdirAll("etc/passwd/x", 0o755); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("below a file: %v", err)
		}
		fd, err = r.Target("/abs/"+sub+"/deep/file", TargetOptions{Perm: 0o600})
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if st, err := r.Lstat("etc/" + sub + "/deep/file"); err != nil || st.Mode != unix.S_IFREG|0o600 {
			t.Errorf("made %#o, %v", st.Mode, err)
		}
		if _, err := r.Target("etc", TargetOptions{}); !errors.Is(err, unix.EISDIR) {
			t.Errorf("file over directory: %v", err)
		}
		if _, err := r.Target("etc/passwd", TargetOptions{Dir: true}); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("directory over file: %v", err)
		}
		if fd, err := r.Target("abs", TargetOptions{Dir: true, NoFollow: true}); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("a link itself as a directory: %d %v", fd, err)
		}
		f, err := r.Open("abs/"+sub+".txt", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if st, err := r.Stat("etc/" + sub + ".txt"); err != nil || st.Mode != unix.S_IFREG|0o640 {
			t.Errorf("made %#o, %v", st.Mode, err)
		}
		dir, base, err := r.Parent("abs/passwd/")
		if err != nil || base != "passwd" {
			t.Fatalf("parent: %q, %v", base, err)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Error(err)
		}
		unix.Close(dir)
		for _, name := range []string{"", "/", "a/..", "."} {
			if _, _, err := r.Parent(name); !errors.Is(err, unix.EINVAL) {
				t.Errorf("parent of %q: %v", name, err)
			}
		}
	})
}

// TestRace exchanges directories and links to the outside while paths through
// them are opened and made. Nothing outside may be opened or changed.
func TestRace(t *testing.T) {
	dir := tree(t)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	os.MkdirAll(filepath.Join(outside, "x/y"), 0o755)
	os.MkdirAll(filepath.Join(dir, "swap/x/y"), 0o755)
	os.WriteFile(filepath.Join(outside, "x/y/f"), []byte("outside"), 0o644)
	os.WriteFile(filepath.Join(dir, "swap/x/y/f"), []byte("inside"), 0o644)
	for link, to := range map[string]string{"swap.link": outside, "swap/x.link": outside + "/x", "up.link": "../../outside"} {
		os.Symlink(to, filepath.Join(dir, link))
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for _, swap := range [][3]string{{"", "swap", "swap.link"}, {"swap", "x", "x.link"}, {"", "a", "up.link"}} {
		// By descriptor: the attacker sits inside and must not be led out himself.
		fd, err := unix.Open(filepath.Join(dir, swap[0]), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-begin
			for !stop.Load() {
				unix.Renameat2(fd, swap[1], fd, swap[2], unix.RENAME_EXCHANGE)
			}
		}()
	}
	close(begin)
	both(t, dir, func(t *testing.T, r *Root) {
		for n := range 3000 {
			if b, err := r.ReadFile("swap/x/y/../y/f", 100); err == nil && string(b) != "inside" {
				t.Fatalf("read %q", b)
			}
			name := fmt.Sprintf("swap/x/%d/made", n%50)
			if fd, err := r.MkdirAll(name, 0o755); err == nil {
				unix.Close(fd)
			}
			if fd, err := r.Target(name+".file", TargetOptions{Perm: 0o644}); err == nil {
				unix.Close(fd)
			}
			if fd, err := r.OpenFd("a/created", unix.O_CREAT|unix.O_WRONLY, 0o644); err == nil {
				unix.Close(fd)
			}
		}
	})
	stop.Store(true)
	wg.Wait()
	var names []string
	filepath.WalkDir(outside, func(p string, _ fs.DirEntry, _ error) error {
		rel, _ := filepath.Rel(outside, p)
		names = append(names, rel)
		return nil
	})
	if got := strings.Join(names, " "); got != ". passwd x x/y x/y/f" {
		t.Errorf("outside there is now: %s", got)
	}
}

// FuzzResolve compares the walk with the kernel on arbitrary paths.
func FuzzResolve(f *testing.F) {
	for _, s := range []string{"a/b/../../abs/passwd", "chain", "rel//../x", "../..", "/", "loop/..", "dangling", "etc/passwd/.."} {
		f.Add(s)
	}
	dir := tree(f)
	kernel, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	walker := At(kernel.Fd())
	walker.walk = true
	f.Fuzz(func(t *testing.T, name string) {
		if strings.IndexByte(name, 0) >= 0 || len(name) > 1000 || strings.HasSuffix(name, "/") {
			return
		}
		a, errA := kernel.Stat(name)
		b, errB := walker.Stat(name)
		if (errA == nil) != (errB == nil) || errA == nil && (a.Ino != b.Ino || a.Dev != b.Dev) {
			t.Errorf("%q: kernel %d %v, walk %d %v", name, a.Ino, errA, b.Ino, errB)
		}
	})
}
