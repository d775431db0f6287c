package ociruntime

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/ociruntime/job"
)

// mountInto makes a mount that a spec describes in a running container.
func mountInto(t testing.TB, c *Init, m specs.Mount) (MountID, error) {
	t.Helper()
	j, err := job.MountFromSpec(m)
	if err != nil {
		t.Fatal(err)
	}
	return Mount(Target{Pid: c.Pid(), Pidfd: c.Pidfd()}, &j)
}

// inside runs a script in a container.
func inside(t testing.TB, c *Init, script string) string {
	t.Helper()
	out, _ := execIn(t, c, &specs.Process{Args: []string{"sh", "-c", script}, Capabilities: newSpec().Process.Capabilities})
	return out
}

func bind(target, source string, options ...string) specs.Mount {
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: append([]string{"rbind"}, options...)}
}

func TestMountWhileItRuns(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), []byte("text\n"), 0o644)
	os.Mkdir(filepath.Join(dir, "below"), 0o755)
	if err := unix.Mount("tmpfs", filepath.Join(dir, "below"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(dir, "below"), unix.MNT_DETACH)
	c := start(t)
	made := map[string]MountID{}
	for _, m := range []specs.Mount{
		bind("/rw", dir, "rprivate"), bind("/deep/ro", dir, "rro"), bind("/top", dir, "ro"), bind("/file", dir+"/f", "ro"),
		bind("/flat", dir, "rslave"), {Destination: "/mem", Type: "tmpfs", Source: "tmpfs", Options: []string{"noexec", "size=64k", "mode=1777"}},
	} {
		if m.Destination == "/flat" {
			m.Options[0] = "bind"
		}
		id, err := mountInto(t, c, m)
		if err != nil || id.ID == 0 {
			t.Fatalf("%s: %v %v", m.Destination, id, err)
		}
		made[m.Destination] = id
	}
	got := inside(t, c, `for d in /rw /rw/below /deep/ro /deep/ro/below /top /top/below /flat /mem; do (echo >$d/x) 2>/dev/null && echo $d; done
		(echo >/file) 2>/dev/null || cat /file; ls /flat/below | wc -l; grep ' /mem ' /proc/mounts`)
	got = strings.Replace(got, ",inode64", "", 1) // of kernels whose default it is
	if want := "/rw\n/rw/below\n/top/below\n/flat\n/mem\ntext\n0\ntmpfs /mem tmpfs rw,noexec,relatime,size=64k 0 0\n"; got != want {
		t.Errorf("inside:\n%swant\n%s", got, want)
	}
	for at, id := range made {
		if err := Unmount(Target{Pid: c.Pid()}, at, id); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		if err := Unmount(Target{Pid: c.Pid()}, at, id); err != nil {
			t.Errorf("%s again: %v", at, err)
		}
	}
	if got := inside(t, c, `grep -c -e /rw -e /deep -e /top -e /file -e /flat -e /mem /proc/mounts`); got != "0\n" {
		t.Errorf("left: %s", got)
	}
	if _, err := mountInto(t, c, bind("/deep", "/no/such/source")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing source: %v", err)
	}
	if _, err := mountInto(t, c, bind("/etc/passwd", dir)); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a directory on a file: %v", err)
	}
	if st, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(st) != "text\n" {
		t.Errorf("the source: %q %v", st, err)
	}
}

// TestUnmountsOnlyItsOwn: what covers a mount, or was there before, is never taken
// away in its place.
func TestUnmountsOnlyItsOwn(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	c := start(t)
	target := Target{Pid: c.Pid()}
	lower, err := mountInto(t, c, bind("/m", dir))
	if err != nil {
		t.Fatal(err)
	}
	upper, err := mountInto(t, c, bind("/m", dir))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(at string, id MountID, kind errs.Kind) {
		t.Helper()
		if err := Unmount(target, at, id); errs.KindOf(err) != kind {
			t.Errorf("%s %v: %v", at, id, err)
		}
	}
	refused("/m", lower, errs.Conflict) // it is covered
	refused("/proc", lower, errs.Conflict)
	refused("/m/below", lower, errs.Conflict)
	refused("/", lower, errs.Conflict)
	refused("/m", MountID{}, errs.Unsupported)
	inside(t, c, "ln -s m /link")
	if err := Unmount(target, "/link", upper); err != nil { // as the mount point was found
		t.Errorf("through a link: %v", err)
	}
	if got := inside(t, c, "grep -c ' /m ' /proc/mounts; grep -c ' /proc ' /proc/mounts"); got != "1\n1\n" {
		t.Errorf("mounts: %q", got)
	}
	if err := Unmount(target, "/m", lower); err != nil {
		t.Error(err)
	}
}

// TestMountsOfTheStart: they are known by their ids, too.
func TestMountsOfTheStart(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	spec := newSpec("sleep", "1000")
	spec.Mounts = append(spec.Mounts, bind("/early", dir))
	j := newJob(t, busybox(t), spec)
	c, err := Create(j, Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	defer killed(t, c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ids := c.Mounts()
	if len(ids) != len(j.Mounts) {
		t.Fatalf("%d ids of %d mounts", len(ids), len(j.Mounts))
	}
	if err := Unmount(Target{Pid: c.Pid()}, "/early", ids[len(ids)-1]); err != nil {
		t.Error(err)
	}
	if got := inside(t, c, "grep -c /early /proc/mounts"); got != "0\n" {
		t.Errorf("it is still there: %s", got)
	}
}

// TestMountForMappedRoot: in a user namespace a bind mount may show its files as
// those of the container's root, and a tmpfs is that root's.
func TestMountForMappedRoot(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600)
	j := mappedJob(t, busybox(t), newSpec("sleep", "1000"))
	c, err := Create(j, Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	defer killed(t, c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	b, err := mountInto(t, c, bind("/b", dir, "idmap"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mountInto(t, c, specs.Mount{Destination: "/new/mem", Type: "tmpfs", Source: "tmpfs"}); err != nil {
		t.Fatal(err)
	}
	if got := inside(t, c, "cat /b/f; stat -c %u /b/f /new/mem /new; echo >/b/g; echo >/new/mem/g"); got != "x0\n0\n0\n" {
		t.Errorf("inside: %q", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "g"), &st); err != nil || st.Uid != 0 {
		t.Errorf("the new file on the host: %v %d", err, st.Uid)
	}
	if err := Unmount(Target{Pid: c.Pid()}, "/b", b); err != nil {
		t.Error(err)
	}
}

// TestLiveTargetRace is row S3 for mounts of a running container: somebody in it
// exchanges the mount point with links to the host's places and to procfs while
// mounts are added and removed. Nothing may appear or be mounted on the host, and
// the container's own mounts stay.
func TestLiveTargetRace(t *testing.T) {
	needRoot(t)
	canary, source := t.TempDir(), t.TempDir()
	os.MkdirAll(filepath.Join(canary, "in/deep"), 0o755)
	before := listing(t, canary)
	c := start(t)
	root := "/proc/" + strconv.Itoa(c.Pid()) + "/root"
	os.MkdirAll(root+"/vol/in", 0o755)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, to := range []string{canary, "/proc/sys", "/proc/self/fd", "../../../.."} {
		link := root + "/link" + strings.ReplaceAll(to, "/", "-")
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for !stop.Load() {
				unix.Renameat2(unix.AT_FDCWD, root+"/vol", unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		})
	}
	system := func() string { return inside(t, c, "grep -c -e ' /proc' -e ' /dev' -e ' /sys' /proc/mounts") }
	mountsBefore := system()
	made, gone := 0, 0
	// Few rounds are not enough to win one.
	for n := 0; n < starts(t)/8 || n < 200 && (made == 0 || gone == 0); n++ {
		id, err := mountInto(t, c, bind("/vol/in/deep", source))
		if err != nil {
			continue // the attacker only hurts himself
		}
		made++
		// The mount point may have another name by now.
		for range 20 {
			if Unmount(Target{Pid: c.Pid()}, "/vol/in/deep", id) == nil {
				gone++
				break
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	if after := listing(t, canary); after != before {
		t.Errorf("the host's directory has changed:\n%s\nwas\n%s", after, before)
	}
	if got := system(); got != mountsBefore {
		t.Errorf("%s mounts of the system, there were %s", got, mountsBefore)
	}
	killed(t, c)
	noMounts(t)
	t.Logf("%d mounts made, %d taken away", made, gone)
	if made == 0 || gone == 0 {
		t.Error("the race was never won")
	}
}
