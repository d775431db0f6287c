package quota

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// limited mounts an ext4 with project quotas. It returns "" on a kernel without
// the format of ext4's quotas: on one that has it these tests run in test/vm,
// which brings the image.
func limited(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("kernel tests need root")
		}
		t.Skip("kernel tests need root")
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if data, err := os.ReadFile("prjquota.img"); err == nil {
		if err := os.WriteFile(image, data, 0o600); err != nil {
			t.Fatal(err)
		}
	} else if out, err := exec.Command("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image, "16M").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	at := filepath.Join(dir, "mnt")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mount", "-t", "ext4", "-o", "loop,prjquota", image, at).CombinedOutput()
	if err != nil && strings.Contains(kernelConfig(), "# CONFIG_QFMT_V2 is not set") {
		return ""
	}
	if err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return at
}

func kernelConfig() string {
	out, _ := exec.Command("zcat", "/proc/config.gz").Output()
	return string(out)
}

// fill writes a file as who has no right to exceed limits.
func fill(t *testing.T, dir string, size int) error {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and end with it
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&hdr, &data[0])
		if err == nil {
			data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
			err = unix.Capset(&hdr, &data[0])
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "f"), make([]byte, size), 0o600)
		}
		done <- err
	}()
	return <-done
}

func TestLimit(t *testing.T) {
	at := limited(t)
	if at == "" {
		t.Skip("this kernel has no quotas for ext4; test/vm has one that does")
	}
	c := New(at)
	if err := c.Supported(); err != nil {
		t.Fatal(err)
	}
	mk := func(name string) string {
		dir := filepath.Join(at, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	upper, work, other := mk("one/upper"), mk("one/work"), mk("other")
	if err := c.Set("one", 1<<20, upper, work); err != nil {
		t.Fatal(err)
	}
	if err := fill(t, upper, 900<<10); err != nil {
		t.Errorf("less than the limit: %v", err)
	}
	if err := fill(t, work, 300<<10); !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than the limit: %v", err)
	}
	os.Remove(filepath.Join(work, "f"))
	if err := os.Rename(filepath.Join(upper, "f"), filepath.Join(work, "f")); err != nil {
		t.Errorf("from one directory of the project to the other: %v", err)
	}
	if err := fill(t, other, 2<<20); err != nil {
		t.Errorf("a directory without a limit: %v", err)
	}
	if used, size, err := New(at).Used(upper); err != nil || size != 1<<20 || used < 900<<10 || used > 1<<20 {
		t.Errorf("used %d of %d, %v", used, size, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(upper, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) != 1<<20 {
		t.Errorf("df says %d, %v", fs.Blocks*uint64(fs.Bsize), err)
	}
	// Another limit, by a process that knows nothing of the first.
	if err := New(at).Set("one", 4<<20, upper, work); err != nil {
		t.Fatal(err)
	}
	if err := fill(t, upper, 2<<20); err != nil {
		t.Errorf("after the limit was raised: %v", err)
	}
	// Whose hash is the same gets another number.
	two := mk("two")
	if err := c.Set("one", 1<<20, two); err != nil {
		t.Fatal(err)
	}
	a, _ := os.Open(upper)
	b, _ := os.Open(two)
	pa, _ := projectOf(a)
	pb, err := projectOf(b)
	if err != nil || pa == pb || pa < first || pb < first {
		t.Errorf("projects %x and %x, %v", pa, pb, err)
	}
	a.Close()
	b.Close()
	// A number is free when its tree has gone, limit or not.
	if err := os.RemoveAll(filepath.Join(at, "one")); err != nil {
		t.Fatal(err)
	}
	three := mk("three")
	if err := c.Set("one", 3<<20, three); err != nil {
		t.Fatal(err)
	}
	f, _ := os.Open(three)
	defer f.Close()
	if p, err := projectOf(f); err != nil || p != pa {
		t.Errorf("project %x, not %x, %v", p, pa, err)
	}
	if err := c.Release(three); err != nil {
		t.Fatal(err)
	}
	if _, size, err := c.Used(three); err != nil || size != 0 {
		t.Errorf("released, limit %d, %v", size, err)
	}
	if err := c.Release(filepath.Join(at, "nosuch")); err != nil {
		t.Error(err)
	}
}

func TestUnsupported(t *testing.T) {
	c := New("/proc")
	if err := c.Supported(); !errs.Is(err, errs.Unsupported) || !strings.HasPrefix(err.Error(), "/proc is on a file system (type 0x9fa0)") {
		t.Errorf("procfs: %v", err)
	}
	if err := c.Set("x", 1, "/proc"); !errs.Is(err, errs.Unsupported) {
		t.Errorf("set: %v", err)
	}
	if err := c.Release(t.TempDir()); err != nil {
		t.Errorf("release of what has none: %v", err)
	}
	for magic, want := range map[int64]string{
		unix.XFS_SUPER_MAGIC: "pquota", unix.EXT4_SUPER_MAGIC: "tune2fs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs", 1: "type 0x1",
	} {
		if got := advice("/d", magic); !strings.HasPrefix(got, "/d is on ") || !strings.Contains(got, want) {
			t.Errorf("%x: %s", magic, got)
		}
	}
}
