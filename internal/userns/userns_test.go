package userns

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"gantry/internal/errs"
)

func files(t *testing.T, subuid, subgid string) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{filepath.Join(dir, "passwd"), filepath.Join(dir, "group"), filepath.Join(dir, "subuid"), filepath.Join(dir, "subgid")}
	for name, text := range map[string]string{
		f.Passwd: "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n", f.Group: "root:x:0:\nann:x:1000:\nstaff:x:50:\n",
		f.SubUID: subuid, f.SubGID: subgid,
	} {
		if text == "-" {
			continue
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestRemap(t *testing.T) {
	const sub = "# a comment\nann:100000:65536\n\nbroken\nann:x:1\nother:1:1\n1000:300000:10\nstaff:200000:70000\n"
	m := func(list ...uint32) (out []specs.LinuxIDMapping) {
		for i := 0; i < len(list); i += 3 {
			out = append(out, specs.LinuxIDMapping{ContainerID: list[i], HostID: list[i+1], Size: list[i+2]})
		}
		return out
	}
	both := m(0, 100000, 65536, 65536, 300000, 10)
	for _, c := range []struct {
		setting  string
		uid, gid []specs.LinuxIDMapping
		failed   string
	}{
		{"", nil, nil, ""},
		{"host", nil, nil, ""},
		{"ann", both, both, ""},
		{"1000", both, both, ""},
		{"ann:staff", both, m(0, 200000, 70000), ""},
		{"1000:50", both, m(0, 200000, 70000), ""},
		{"root", nil, nil, "no subordinate ids for root in "},
		{"nobody", nil, nil, "unable to find user nobody"},
		{"ann:none", nil, nil, "unable to find group none"},
		{":ann", nil, nil, "invalid user/group specification"},
		{"ann:", nil, nil, "invalid user/group specification"},
		{"a:b:c", nil, nil, "invalid user/group specification"},
	} {
		got, err := Remap(c.setting, files(t, sub, sub))
		if c.failed != "" {
			if err == nil || !strings.Contains(err.Error(), c.failed) || !errs.Is(err, errs.Invalid) {
				t.Errorf("%q: %v, want %s", c.setting, err, c.failed)
			}
			continue
		}
		if err != nil || !slices.Equal(got.UID, c.uid) || !slices.Equal(got.GID, c.gid) {
			t.Errorf("%q: got %v, %v", c.setting, got, err)
		}
	}
	for name, text := range map[string]string{
		"overlap": "ann:100000:10\nann:100005:10\n",
		"lines":   strings.Repeat("ann:1:1\n", 400),
	} {
		if _, err := Remap("ann", files(t, text, text)); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDefaultGetsARange(t *testing.T) {
	f := files(t, "ann:100000:65536\nbob:165536:65536", "-")
	for range 2 { // the second finds what the first wrote
		m, err := Remap("default", f)
		if err != nil {
			t.Fatal(err)
		}
		if uid, gid := m.Root(); uid != 231072 || gid != 100000 {
			t.Errorf("root is %d:%d", uid, gid)
		}
	}
	data, _ := os.ReadFile(f.SubUID)
	if want := "ann:100000:65536\nbob:165536:65536\ndockremap:231072:65536\n"; string(data) != want {
		t.Errorf("%q", data)
	}
	if _, err := Remap("default", files(t, "x:1073700000:65536\n", "-")); !errs.Is(err, errs.Invalid) {
		t.Errorf("no room: %v", err)
	}
}

func TestMapBothWays(t *testing.T) {
	list := []specs.LinuxIDMapping{{HostID: 1000, Size: 10}, {ContainerID: 10, HostID: 5000, Size: 5}}
	m := Map{UID: list, GID: list}
	for inside, host := range map[uint32]uint32{0: 1000, 9: 1009, 10: 5000, 14: 5004} {
		if u, g, ok := m.ToHost(inside, 0); u != host || g != 1000 || !ok {
			t.Errorf("%d is %d:%d, %v", inside, u, g, ok)
		}
		if u, _, ok := m.ToContainer(host, 1000); u != inside || !ok {
			t.Errorf("host's %d is %d, %v", host, u, ok)
		}
	}
	if _, _, ok := m.ToHost(15, 0); ok {
		t.Error("15 is mapped")
	}
	if _, _, ok := m.ToContainer(0, 1000); ok {
		t.Error("the host's root is mapped")
	}
	own, err := OfProcess(os.Getpid())
	if err != nil || len(own.UID) == 0 {
		t.Errorf("own maps: %v, %v", own, err)
	}
	if _, err := parseMap([]byte("1 2\n")); !errs.Is(err, errs.Corrupt) {
		t.Errorf("a short line: %v", err)
	}
}

func TestPrivateRanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "userns")
	alive := map[string]bool{}
	open := func() *Namespaces { return NewNamespaces(Map{}, dir, func(id string) bool { return alive[id] }) }
	n := open()
	first := func(id string) uint32 {
		t.Helper()
		m, err := n.take(id)
		if err != nil {
			t.Fatal(err)
		}
		return m.UID[0].HostID
	}
	a, b := first("a"), first("b")
	if a == b || first("a") != a {
		t.Errorf("a has %d, b has %d", a, b)
	}
	alive["b"] = true
	n = open() // a is gone with the daemon before, b runs
	if c := first("c"); c != a {
		t.Errorf("c has %d, not a's %d", c, a)
	}
	if d := first("d"); d == b || d == a {
		t.Errorf("d has %d", d)
	}
	if err := n.Release("b"); err != nil {
		t.Fatal(err)
	}
	if e := first("e"); e != b {
		t.Errorf("e has %d, not b's %d", e, b)
	}
	if err := n.Release("never"); err != nil {
		t.Error(err)
	}
	if _, err := n.Open("x", "private"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("no shared range: %v", err)
	}
}
