package ociruntime

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// starts is how often the race is tried: GANTRY_RACE_STARTS, 200 by default.
func starts(t testing.TB) int {
	n, err := strconv.Atoi(os.Getenv("GANTRY_RACE_STARTS"))
	if err != nil {
		return 200
	}
	return n
}

// listing is a directory tree as text: every name with its type and mode, and
// the content of files.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, p, info.Mode(), info.Size())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// noMounts checks that the host's mount table names nothing of this test: neither
// as a mount point nor as a source or an overlay's layer.
func noMounts(t testing.TB) {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	mine := filepath.Dir(t.TempDir())
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, mine) {
			t.Errorf("a mount stays on the host: %s", line)
		}
	}
}

// TestTargetRace is row S3 (CVE-2021-30465, CVE-2024-45310, CVE-2025-52565):
// somebody with write access to a root file system exchanges directories and
// links to the host while containers start from it. Nothing may appear or be
// mounted on the host, and what is mounted goes where it should or nowhere.
func TestTargetRace(t *testing.T) {
	image := busybox(t)
	canary := t.TempDir()
	for _, d := range []string{"a", "a/b", "pts", "sub"} {
		os.MkdirAll(filepath.Join(canary, d), 0o755)
	}
	os.WriteFile(filepath.Join(canary, "console"), []byte("canary"), 0o600)
	before := listing(t, canary)

	// One directory is the root file system of all: a bind mount, no overlay.
	swaps := []string{"vol", "dev", "proc", "etc/deep"}
	os.MkdirAll(filepath.Join(image, "etc/deep"), 0o755)
	os.MkdirAll(filepath.Join(image, "vol"), 0o755)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, name := range swaps {
		link := filepath.Join(image, name+".link")
		if err := os.Symlink(canary, link); err != nil {
			t.Fatal(err)
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			for !stop.Load() {
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(image, name), unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}()
	}
	spec := newSpec("true")
	spec.Process.Terminal = true
	spec.Process.Cwd = "/etc/deep/new/cwd"
	spec.Root.Path = image
	spec.Linux.MaskedPaths = append(spec.Linux.MaskedPaths, "/vol/a", "/vol/console")
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/vol/sub/made", Source: t.TempDir(), Options: []string{"bind"}},
		specs.Mount{Destination: "/etc/deep/file", Source: filepath.Join(image, "etc/passwd"), Options: []string{"bind"}},
		specs.Mount{Destination: "/vol/tmp", Type: "tmpfs", Source: "tmpfs"})
	ok := 0
	for range starts(t) {
		j, err := job.FromSpec(spec, job.Options{ID: "race", Bundle: "/"})
		if err != nil {
			t.Fatal(err)
		}
		i, err := Create(j, Options{Exe: exe})
		if err != nil {
			continue // the attacker only hurts himself
		}
		if i.Start() == nil {
			ok++
			i.Console().Close()
			i.Wait()
		}
		i.Close()
	}
	stop.Store(true)
	wg.Wait()
	if after := listing(t, canary); after != before {
		t.Errorf("the host's directory has changed:\n%s\nwas\n%s", after, before)
	}
	noMounts(t)
	t.Logf("%d of %d starts succeeded", ok, starts(t))
}

// TestNothingLeaks: whatever happens to a start, no mount and no process stays.
func TestNothingLeaks(t *testing.T) {
	image := busybox(t)
	fds := func() int {
		e, _ := os.ReadDir("/proc/self/fd")
		return len(e)
	}
	run(t, newJob(t, image, newSpec("true")))
	open := fds()
	for _, edit := range []func(*specs.Spec){
		func(s *specs.Spec) {},
		func(s *specs.Spec) { s.Process.Terminal = true },
		func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Source: "/not/there", Options: []string{"bind"}})
		},
		func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs"})
		},
		func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/passwd", Type: "tmpfs"})
		},
		mapped,
	} {
		spec := newSpec("nosuch")
		edit(spec)
		i, err := Create(newJob(t, image, spec), Options{Exe: exe})
		if err != nil {
			continue
		}
		i.Start()
		i.Close()
		i, err = Create(newJob(t, image, spec), Options{Exe: exe})
		if err == nil {
			i.Close() // never started
		}
	}
	noMounts(t)
	if n := fds(); n != open {
		t.Errorf("%d descriptors are open, %d were", n, open)
	}
	var ws unix.WaitStatus
	if pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("process %d stays: %v", pid, err)
	}
}

// TestThreadsEnd: a prepared process survives the thread that cloned it, whichever
// that was.
func TestThreadsEnd(t *testing.T) {
	i, err := Create(newJob(t, busybox(t), newSpec("true")), Options{Exe: exe})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if runtime.LockOSThread(); unix.Gettid() == unix.Getpid() {
				runtime.UnlockOSThread()
			}
			unix.Nanosleep(&unix.Timespec{Nsec: 10e6}, nil) // many at once, so all threads
		})
	}
	wg.Wait()
	time.Sleep(20 * time.Millisecond)
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	if code, err := i.Wait(); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
}
