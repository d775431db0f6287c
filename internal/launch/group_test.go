package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gantry/internal/cgroup"
	"gantry/internal/plan"
)

func groupLauncher(t *testing.T, o Options) *Launcher {
	t.Helper()
	dir := t.TempDir()
	o.Root, o.RunDir = dir, dir
	o.Cgroups = &cgroup.Host{Mode: cgroup.V2, V2: filepath.Join(dir, "cg")}
	return New(o)
}

func TestCgroupPaths(t *testing.T) {
	for _, c := range []struct {
		o           Options
		parent      string // the container's own
		path, group string
	}{
		{Options{}, "", "/gantry/abc", "/gantry/abc"},
		{Options{CgroupParent: "/x"}, "", "/x/abc", "/x/abc"},
		{Options{}, "mine", "/mine/abc", "/mine/abc"},
		{Options{Systemd: true}, "", "system.slice:gantry:abc", "/system.slice/gantry-abc.scope"},
		{Options{Systemd: true, ScopePrefix: "gantry-i1"}, "", "system.slice:gantry-i1:abc", "/system.slice/gantry-i1-abc.scope"},
		{Options{Systemd: true, CgroupParent: "a-b.slice"}, "", "a-b.slice:gantry:abc", "/a.slice/a-b.slice/gantry-abc.scope"},
		{Options{Systemd: true}, "m.slice", "m.slice:gantry:abc", "/m.slice/gantry-abc.scope"},
	} {
		l := groupLauncher(t, c.o)
		p := &plan.Plan{CgroupParent: c.parent}
		if got := l.cgroupPath("abc", p); got != c.path {
			t.Errorf("path %s, want %s", got, c.path)
		}
		if got := l.Cgroup("abc", p).Path(); got != c.group {
			t.Errorf("group %s, want %s", got, c.group)
		}
	}
}

func TestCgroupOfALaunchIsRemembered(t *testing.T) {
	l := groupLauncher(t, Options{Systemd: true})
	if err := os.MkdirAll(l.runDir("abc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.noteCgroup("abc", &plan.Plan{CgroupParent: "m.slice"}); err != nil {
		t.Fatal(err)
	}
	again := New(Options{RunDir: l.o.RunDir, Root: l.o.Root, Cgroups: l.o.Cgroups}) // another driver
	if got := again.Cgroup("abc", nil).Path(); got != "/m.slice/gantry-abc.scope" {
		t.Error(got)
	}
}

func TestExistingFindsScopes(t *testing.T) {
	l := groupLauncher(t, Options{Systemd: true, ScopePrefix: "gantry-i1"})
	mine, other := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for _, name := range []string{"gantry-i1-" + mine + ".scope", "gantry-" + other + ".scope", "ssh.service"} {
		if err := os.MkdirAll(filepath.Join(l.o.Cgroups.V2, "system.slice", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Existing()
	if err != nil || !slices.Equal(got, []string{mine}) {
		t.Errorf("%v %v", got, err)
	}
	scopes, err := l.Scopes()
	if dir := filepath.Join(l.o.Cgroups.V2, "system.slice", "gantry-i1-"+mine+".scope"); err != nil || len(scopes) != 1 || scopes[dir] != mine {
		t.Errorf("%v %v", scopes, err)
	}
	if got := withDriver(l, []string{"runc", "-x"}); !slices.Equal(got, []string{"runc", "-x", "--systemd-cgroup"}) {
		t.Error(got)
	}
}

// A note that a crash has cut short, or that somebody has changed, must never
// name a group that others are in.
func TestTornNoteIsNotBelieved(t *testing.T) {
	l := groupLauncher(t, Options{CgroupParent: "/gantry"})
	if err := os.MkdirAll(l.runDir("abc"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, note := range []string{"", "/", "/gantry", "/gantry/ab", "/system.slice", "\x00"} {
		if err := os.WriteFile(filepath.Join(l.runDir("abc"), cgroupFile), []byte(note), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := l.Cgroup("abc", nil).Path(); got != "/gantry/abc" {
			t.Errorf("note %q: %s", note, got)
		}
	}
}

func TestVanished(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("write: %w", syscall.ENODEV): true, fmt.Errorf("open: %w", syscall.ENOENT): true, syscall.EBUSY: false, nil: false,
	} {
		if vanished(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
