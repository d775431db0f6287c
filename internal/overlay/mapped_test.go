package overlay

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// userNS opens a user namespace whose root is 100000 on the host.
func userNS(t testing.TB) *Mapped {
	t.Helper()
	cmd := exec.Command("sleep", "100")
	m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: m, GidMappings: m}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &Mapped{UserNS: fd, UID: 100000, GID: 100000}
}

// TestMapped mounts mapped layers in each way that this kernel has. What is
// written lies on the disk under the ids of the namespace.
func TestMapped(t *testing.T) {
	needRoot(t)
	ways := map[string]func(Layers) (int, error){
		"any":      func(l Layers) (int, error) { return Mount(l, 0) },
		"attached": func(l Layers) (int, error) { return mountMapped(l, 0, false) },
	}
	for name, mount := range ways {
		t.Run(name, func(t *testing.T) {
			l := layers(t, 2)
			if err := os.Chown(filepath.Join(l.Lower[0], "all"), 5, 6); err != nil {
				t.Fatal(err)
			}
			l.Mapped = userNS(t)
			fd, err := mount(l)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			owner := func(dir int, file string, uid, gid uint32) {
				t.Helper()
				var st unix.Stat_t
				if err := unix.Fstatat(dir, file, &st, 0); err != nil || st.Uid != uid || st.Gid != gid {
					t.Errorf("%s is of %d:%d, %v; want %d:%d", file, st.Uid, st.Gid, err, uid, gid)
				}
			}
			owner(fd, ".", 100000, 100000)
			owner(fd, "all", 100005, 100006)
			owner(fd, "only1", 100000, 100000)
			// A change of owner copies the file up.
			if err := unix.Fchownat(fd, "all", 100007, 100008, 0); err != nil {
				t.Fatal(err)
			}
			if err := unix.Unlinkat(fd, "only1", 0); err != nil {
				t.Fatal(err)
			}
			up, err := unix.Open(l.Upper, unix.O_PATH, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(up)
			owner(up, "all", 7, 8)
			owner(up, "only1", 0, 0) // the whiteout
			// Host root's own files have no place there.
			if f, err := unix.Openat(fd, "new", unix.O_CREAT|unix.O_WRONLY, 0o600); err == nil {
				unix.Close(f)
				t.Error("the host's root wrote under an id that is not mapped")
			}
			if unix.Getuid() != 0 || fsuid() != 0 {
				t.Error("the caller's thread has other credentials")
			}
		})
	}
}

func fsuid() int {
	id, _ := unix.SetfsuidRetUid(-1)
	return id
}

func TestMappedRefusals(t *testing.T) {
	needRoot(t)
	l := layers(t, 1)
	l.Mapped = userNS(t)
	l.Lower = []string{"/proc/sys"} // can't be mapped
	if _, err := Mount(l, 0); !errs.Is(err, errs.Unsupported) {
		t.Errorf("layers in procfs: %v", err)
	}
	l = layers(t, 1)
	l.Mapped, l.Work = userNS(t), t.TempDir()
	if _, err := Mount(l, 0); !errs.Is(err, errs.Invalid) {
		t.Errorf("work directory elsewhere: %v", err)
	}
}
