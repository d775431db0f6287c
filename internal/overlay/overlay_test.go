package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("kernel tests need root")
	}
	t.Skip("kernel tests need root")
}

func TestTakesLayers(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-56-cloud-amd64": false, "5.15.0": false, "6.7.12": false, "6.8.0-rc1": true, "6.18": true, "7.0.1": true, "10.0-x": true,
		"": false, "6": false, "six.8": false, "6.x": false, "2.6.78": false,
	} {
		if got := takesLayers(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

// ways are the ways to mount that this kernel has.
func ways(t testing.TB) map[string]func(Layers, uint64) (int, error) {
	t.Helper()
	needRoot(t)
	all := map[string]func(Layers, uint64) (int, error){"any": Mount, "old": old}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if takesLayers(unix.ByteSliceToString(u.Release[:])) {
		all["new"] = mountNew
	}
	return all
}

// layers makes n lower layers, topmost first. Each has a file of its own, and
// one that all have. Names are all that a path can be.
func layers(t testing.TB, n int) Layers {
	t.Helper()
	dir := filepath.Join(t.TempDir(), `a:b,c\d e`, strings.Repeat("x", 200))
	var l Layers
	for i := range n {
		lower := filepath.Join(dir, strings.Repeat("y", 40)+fmt.Sprint(i))
		if err := os.MkdirAll(lower, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"all", fmt.Sprint("only", i)} {
			if err := os.WriteFile(filepath.Join(lower, f), []byte(fmt.Sprint(i)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		l.Lower = append(l.Lower, lower)
	}
	l.Upper, l.Work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{l.Upper, l.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func mounts(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMount(t *testing.T) {
	// As many as an image can have, and an upper layer.
	const n = 127
	for name, mount := range ways(t) {
		t.Run(name, func(t *testing.T) {
			l := layers(t, n)
			l.Options = []string{"index=off", "metacopy=off"}
			before := mounts(t)
			fd, err := mount(l, 0)
			if err != nil {
				t.Fatal(err)
			}
			root := os.NewFile(uintptr(fd), "overlay")
			defer root.Close()
			if got := mounts(t); got != before {
				t.Errorf("the mount table has changed:\n%s", got)
			}
			at := fdName(fd)
			for file, want := range map[string]string{"all": "0", "only0": "0", fmt.Sprint("only", n-1): fmt.Sprint(n - 1)} {
				if got, err := os.ReadFile(filepath.Join(at, file)); string(got) != want || err != nil {
					t.Errorf("%s: %q, %v", file, got, err)
				}
			}
			if err := os.WriteFile(filepath.Join(at, "new"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(l.Upper, "new")); err != nil {
				t.Error(err)
			}
			// What it is for: it can be attached.
			target := t.TempDir()
			if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(target, unix.MNT_DETACH)
			if _, err := os.Stat(filepath.Join(target, "new")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadOnlyWithAttributes(t *testing.T) {
	for name, mount := range ways(t) {
		t.Run(name, func(t *testing.T) {
			l := layers(t, 2)
			l.Upper, l.Work = "", ""
			fd, err := mount(l, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			var st unix.Statfs_t
			if err := unix.Fstatfs(fd, &st); err != nil {
				t.Fatal(err)
			}
			const want = unix.ST_RDONLY | unix.ST_NODEV | unix.ST_NOSUID | unix.ST_NOEXEC
			if st.Type != unix.OVERLAYFS_SUPER_MAGIC || st.Flags&want != want {
				t.Errorf("type %x, flags %x", st.Type, st.Flags)
			}
			if err := os.WriteFile(filepath.Join(fdName(fd), "new"), nil, 0o644); err == nil {
				t.Error("it can be written to")
			}
		})
	}
}

func TestErrorsNameTheLayer(t *testing.T) {
	for name, mount := range ways(t) {
		t.Run(name, func(t *testing.T) {
			l := layers(t, 2)
			l.Lower[1] += "-missing"
			if fd, err := mount(l, 0); err == nil {
				unix.Close(fd)
				t.Error("no error for a missing layer")
			} else if !strings.Contains(err.Error(), "overlay") || !strings.Contains(err.Error(), "no such file") {
				t.Error(err)
			}
			l = layers(t, 2)
			l.Options = []string{"nosuchoption"}
			if fd, err := mount(l, 0); err == nil {
				unix.Close(fd)
				t.Error("no error for an option that there is not")
			}
		})
	}
}

// TestThreadsStayWhereTheyAre: many at once, none of which may leave a thread
// in a mount namespace of its own, nor a descriptor open.
func TestThreadsStayWhereTheyAre(t *testing.T) {
	needRoot(t)
	l := layers(t, 3)
	l.Upper, l.Work = "", ""
	open := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := open()
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			fd, err := old(l, 0)
			if err != nil {
				t.Error(err)
				return
			}
			unix.Close(fd)
		})
	}
	wg.Wait()
	if got := open(); got != before {
		t.Errorf("%d descriptors are open, there were %d", got, before)
	}
	if now, _ := os.Readlink("/proc/self/ns/mnt"); now != ours {
		t.Errorf("the process is in %s, it was in %s", now, ours)
	}
	// Goroutines go on to run on all threads: none finds itself elsewhere.
	for range 40 {
		wg.Go(func() {
			if now, _ := os.Readlink("/proc/thread-self/ns/mnt"); now != ours {
				t.Errorf("a thread is in %s, it was in %s", now, ours)
			}
		})
	}
	wg.Wait()
}

func BenchmarkMount(b *testing.B) {
	for name, mount := range ways(b) {
		l := layers(b, 5)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				fd, err := mount(l, 0)
				if err != nil {
					b.Fatal(err)
				}
				unix.Close(fd)
			}
		})
	}
}

func old(l Layers, attrs uint64) (int, error) { return mountOld(l, attrs, l.mountHere) }
