package daemon

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/config"
	"gantry/internal/plan"
)

func TestReloadedKeepsWhatCanNotChange(t *testing.T) {
	running, fresh := config.Default(), config.Default()
	fresh.DefaultRuntime, fresh.Runtimes = "crun", map[string]config.Runtime{"crun": {Path: "/usr/bin/crun"}}
	fresh.Root, fresh.Hosts, fresh.Debug, fresh.Labels, fresh.ShmSize = "/other", []string{"fd://"}, true, []string{"a=b"}, 1<<20
	got := reloaded(running, fresh)
	if got.Root != running.Root || len(got.Hosts) != 0 || !got.Debug || got.Labels[0] != "a=b" || got.ShmSize != 1<<20 || running.Debug || got.DefaultRuntime != "crun" || got.Runtimes["crun"].Path == "" {
		t.Errorf("%+v", got)
	}
}

func TestDefaults(t *testing.T) {
	c := config.Default()
	c.Ulimits["nofile"] = config.Ulimit{Soft: 1, Hard: 2}
	c.Ulimits["core"] = config.Ulimit{}
	c.Runtimes["crun"] = config.Runtime{Path: "/usr/bin/crun", Args: []string{"-x"}}
	c.DNS = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	d := defaults(c, plan.Kernel{NCPU: 2}, "", "host")
	if d.Runtime != "gantry" || d.Runtimes[0] != "gantry" || d.Ulimits[0].Name != "core" || d.Ulimits[1].Hard != 2 || d.DNS[0] != c.DNS[0] || d.Kernel.NCPU != 2 {
		t.Errorf("%+v", d)
	}
	if got := runtimes(c)["crun"]; len(got) != 2 || got[1] != "-x" {
		t.Errorf("%v", got)
	}
}

func TestCgroupParentFollowsTheInstance(t *testing.T) {
	c := config.Default()
	if got := cgroupParent(c); got != "/gantry" {
		t.Error(got)
	}
	c.Instance = "abc"
	if got := cgroupParent(c); got != "/gantry-abc" {
		t.Error(got)
	}
	if got := scopePrefix(c); got != "gantry-abc" {
		t.Error(got)
	}
	c.CgroupDriver = "systemd"
	if got := cgroupParent(c); got != "system.slice" {
		t.Error(got)
	}
	c.CgroupParent = "/mine"
	if got := cgroupParent(c); got != "/mine" {
		t.Error(got)
	}
}

func TestEngineIDLasts(t *testing.T) {
	dir := t.TempDir()
	a, err := engineID(dir)
	b, err2 := engineID(dir)
	if err != nil || err2 != nil || a != b || len(a) != 36 {
		t.Errorf("%q %q %v %v", a, b, err, err2)
	}
}

func TestLog(t *testing.T) {
	var b bytes.Buffer
	log, level := newLog(&b, "json", "warn")
	log.Info("quiet")
	level.Set(levelOf("debug"))
	log.Debug("loud")
	if s := b.String(); strings.Contains(s, "quiet") || !strings.Contains(s, `"msg":"loud"`) {
		t.Error(s)
	}
	if levelOf("fatal") != slog.LevelError || levelOf("x") != slog.LevelInfo {
		t.Error("levels")
	}
}

func TestRunWithoutServing(t *testing.T) {
	var out, errOut bytes.Buffer
	if err := Run(t.Context(), []string{"--version"}, &out, &errOut); err != nil || !strings.Contains(out.String(), "Gantry version") {
		t.Errorf("%v %q", err, out.String())
	}
	file := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(file, []byte(`{"debug":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := Run(t.Context(), []string{"--validate", "--config-file", file}, &out, &errOut); err != nil || out.String() != "configuration OK\n" {
		t.Errorf("%v %q", err, out.String())
	}
	if err := os.WriteFile(file, []byte(`{"bogus":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), []string{"--validate", "--config-file", file}, &out, &errOut); err == nil || !strings.Contains(err.Error(), "bogus") {
		t.Error(err)
	}
}

func TestSeccompText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{"": "", "unconfined": "unconfined", "builtin": "builtin", file: "{}"} {
		if got, err := seccompText(in); err != nil || got != want {
			t.Errorf("%s: %q %v", in, got, err)
		}
	}
	if _, err := seccompText("/nosuch/profile"); err == nil {
		t.Error("a missing profile")
	}
}
