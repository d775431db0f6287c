package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/filter"
	"gantry/internal/id"
	"gantry/internal/store"
	"gantry/internal/wire"
)

var ctx = context.Background()

type bench struct {
	*Volumes
	dir    string
	events *event.Bus
}

func open(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	b := &bench{dir: filepath.Join(dir, "volumes"), events: event.New()}
	if b.Volumes, err = Open(Options{Store: db, Dir: b.dir, Events: b.events}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) must(t *testing.T, c wire.VolumeCreate) wire.Volume {
	t.Helper()
	v, err := b.Create(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCreateIsIdempotent(t *testing.T) { // spec/wire/64
	b := open(t)
	first := b.must(t, wire.VolumeCreate{Name: "v1", Labels: map[string]string{"a": "b"}})
	again := b.must(t, wire.VolumeCreate{Name: "v1", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
	x, _ := json.Marshal(first)
	y, _ := json.Marshal(again)
	if string(x) != string(y) {
		t.Errorf("created %s, then %s", x, y)
	}
	want := fmt.Sprintf(`{"CreatedAt":%q,"Driver":"local","Labels":{"a":"b"},"Mountpoint":%q,"Name":"v1","Options":null,"Scope":"local"}`, first.CreatedAt, b.dir+"/v1/_data")
	if string(x) != want {
		t.Errorf("got %s\nwant %s", x, want)
	}
	anon := b.must(t, wire.VolumeCreate{})
	if _, ok := anon.Labels[Anonymous]; !ok || !id.Valid(anon.Name) {
		t.Errorf("anonymous: %+v", anon)
	}
	if fi, err := os.Stat(first.Mountpoint); err != nil || fi.Mode().Perm() != 0o755 {
		t.Error(fi.Mode(), err)
	}
}

func TestCreateErrors(t *testing.T) { // texts of spec/wire/64
	b := open(t)
	const chars = `%s" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`
	for _, c := range []struct {
		req  wire.VolumeCreate
		kind errs.Kind
		want string
	}{
		{wire.VolumeCreate{Name: "a"}, errs.Invalid, "create a: volume name is too short, names should be at least two alphanumeric characters"},
		{wire.VolumeCreate{Name: "a/b"}, errs.Invalid, `create a/b: "` + fmt.Sprintf(chars, "a/b")},
		{wire.VolumeCreate{Name: "a b"}, errs.Invalid, `create a b: "` + fmt.Sprintf(chars, "a b")},
		{wire.VolumeCreate{Name: "-ab"}, errs.Invalid, `create -ab: "` + fmt.Sprintf(chars, "-ab")},
		{wire.VolumeCreate{Name: "..", Driver: "local"}, errs.Invalid, `create ..: "` + fmt.Sprintf(chars, "..")},
		{wire.VolumeCreate{Name: "é1"}, errs.Invalid, `create é1: "` + fmt.Sprintf(chars, "é1")},
		{wire.VolumeCreate{Name: "v9", Driver: "nosuch"}, errs.NotFound, `create v9: error looking up volume plugin nosuch: plugin "nosuch" not found`},
		{wire.VolumeCreate{Name: "vo", DriverOpts: map[string]string{"bogus": "1"}}, errs.Invalid, `create vo: invalid option: "bogus"`},
		{wire.VolumeCreate{Name: "vo", DriverOpts: map[string]string{"type": "nfs"}}, errs.Invalid, `create vo: missing required option: "device"`},
	} {
		_, err := b.Create(ctx, c.req)
		if fmt.Sprint(err) != c.want || !errs.Is(err, c.kind) {
			t.Errorf("%+v: %v (%v)\nwant %s (%v)", c.req, err, errs.KindOf(err), c.want, c.kind)
		}
	}
	long := strings.Repeat("x", 300)
	if _, err := b.Create(ctx, wire.VolumeCreate{Name: long}); err == nil || !strings.HasSuffix(err.Error(), "file name too long") {
		t.Errorf("a long name: %v", err)
	}
	if l, _ := b.List(ctx, nil); len(l.Volumes) != 0 {
		t.Errorf("refused volumes exist: %v", l.Volumes)
	}
}

func TestRemove(t *testing.T) {
	b := open(t)
	v := b.must(t, wire.VolumeCreate{Name: "v1"})
	c := id.New()
	if _, err := b.Claim(ctx, c, Claim{Name: "v1"}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []RemoveOptions{{}, {Force: true}} {
		err := b.Remove(ctx, "v1", o)
		if fmt.Sprint(err) != "remove v1: volume is in use - ["+c+"]" || !errs.Is(err, errs.Conflict) {
			t.Errorf("in use: %v", err)
		}
	}
	if err := b.Remove(ctx, "nosuch", RemoveOptions{}); fmt.Sprint(err) != "get nosuch: no such volume" || !errs.Is(err, errs.NotFound) {
		t.Errorf("missing: %v", err)
	}
	if err := b.Remove(ctx, "nosuch", RemoveOptions{Force: true}); err != nil {
		t.Errorf("missing, forced: %v", err)
	}
	if err := os.WriteFile(filepath.Join(v.Mountpoint, "f"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if anon, err := b.Forget(ctx, c); err != nil || len(anon) != 0 {
		t.Errorf("forget: %v %v", anon, err)
	}
	if err := b.Remove(ctx, "v1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if es, _ := os.ReadDir(b.dir); len(es) != 0 {
		t.Errorf("left: %v", es)
	}
}

func TestInterruptedRemovalLeavesNothing(t *testing.T) {
	b := open(t)
	if err := os.MkdirAll(filepath.Join(b.dir, ".removed-x", "_data", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Store: b.db, Dir: b.dir}); err != nil {
		t.Fatal(err)
	}
	if es, _ := os.ReadDir(b.dir); len(es) != 0 {
		t.Errorf("left: %v", es)
	}
}

func TestFreshOnce(t *testing.T) {
	b := open(t)
	c := id.New()
	b.must(t, wire.VolumeCreate{Name: "v1"})
	for i, want := range []bool{true, true, false} {
		m, err := b.Mount(ctx, c, "v1")
		if err != nil || m.Fresh != want || m.Path != filepath.Join(b.dir, "v1", "_data") {
			t.Errorf("%d: %+v, %v", i, m, err)
		}
		if i == 1 {
			if err := b.MarkUsed(ctx, "v1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.must(t, wire.VolumeCreate{Name: "v2"})
	if err := os.WriteFile(filepath.Join(b.Path(ctx, "v2"), "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Mount(ctx, c, "v2"); err != nil || m.Fresh {
		t.Errorf("with content: %+v, %v", m, err)
	}
	if _, err := b.Mount(ctx, c, "nosuch"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if cs, err := b.Claimants(ctx); err != nil || !slices.Equal(cs, []string{c}) {
		t.Errorf("claimants %v, %v", cs, err)
	}
}

func TestForgetReturnsLonelyAnonymous(t *testing.T) {
	b := open(t)
	c1, c2 := id.New(), id.New()
	var shared, own string
	var err error
	if own, err = b.Claim(ctx, c1, Claim{}); err != nil {
		t.Fatal(err)
	}
	if shared, err = b.Claim(ctx, c1, Claim{Name: id.New(), Anonymous: true, Labels: map[string]string{"k": "v"}}); err != nil {
		t.Fatal(err)
	}
	if _, err = b.Claim(ctx, c2, Claim{Name: shared}); err != nil {
		t.Fatal(err)
	}
	if _, err = b.Claim(ctx, c1, Claim{Name: "named"}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Forget(ctx, c1); err != nil || !slices.Equal(got, []string{own}) {
		t.Errorf("got %v, %v; want %v", got, err, own)
	}
	if got, err := b.Forget(ctx, c1); err != nil || got != nil {
		t.Errorf("again: %v, %v", got, err)
	}
	if got, err := b.Forget(ctx, c2); err != nil || !slices.Equal(got, []string{shared}) {
		t.Errorf("got %v, %v; want %v", got, err, shared)
	}
}

func TestListAndPrune(t *testing.T) { // filters of spec/wire/64, prune of 51
	b := open(t)
	b.must(t, wire.VolumeCreate{Name: "v1", Labels: map[string]string{"a": "b"}})
	b.must(t, wire.VolumeCreate{Name: "tm", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}})
	anon := b.must(t, wire.VolumeCreate{}).Name
	if _, err := b.Claim(ctx, id.New(), Claim{Name: "v1"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		filters, want string
	}{
		{`{"dangling":["true"]}`, anon + " tm"}, {`{"dangling":["false"]}`, "v1"}, {`{"driver":["local"]}`, anon + " tm v1"}, {`{"driver":["x"]}`, ""},
		{`{"label":["a"]}`, "v1"}, {`{"label":["a=b"]}`, "v1"}, {`{"label":["a=c"]}`, ""}, {`{"name":["v"]}`, "v1"}, {`{"name":["^v1$"]}`, "v1"},
		{`{"name":["v"],"driver":["x"]}`, ""}, {`{"bogus":["x"]}`, "invalid filter 'bogus'"}, {`{"dangling":["x"]}`, "invalid filter 'dangling=[x]'"},
	} {
		f, err := filter.Parse(c.filters)
		if err != nil {
			t.Fatal(err)
		}
		l, err := b.List(ctx, f)
		var got []string
		for _, v := range l.Volumes {
			if v.Name == anon {
				got = append([]string{v.Name}, got...)
			} else {
				got = append(got, v.Name)
			}
		}
		text := strings.Join(got, " ")
		if err != nil {
			text = err.Error()
		}
		if text != c.want {
			t.Errorf("%s: %q, want %q", c.filters, text, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(b.Path(ctx, anon), "f"), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	named := b.must(t, wire.VolumeCreate{Name: "idle"}).Name
	_, sub := b.events.Subscribe(time.Time{})
	if r, err := b.Prune(ctx, nil); err != nil || !slices.Equal(r.VolumesDeleted, []string{anon}) || r.SpaceReclaimed != 100 {
		t.Errorf("prune: %+v, %v", r, err)
	}
	if e := <-sub.C; e.Action != "destroy" || e.Actor.ID != anon {
		t.Errorf("event %+v", e)
	}
	if e := <-sub.C; e.Action != "prune" || e.Actor.Attributes["reclaimed"] != "100" {
		t.Errorf("event %+v", e)
	}
	if r, err := b.Prune(ctx, filter.Args{}.With("all", "1")); err != nil || !slices.Equal(r.VolumesDeleted, []string{named}) {
		t.Errorf("prune all: %+v, %v", r, err)
	}
	if us, err := b.Usage(ctx); err != nil || len(us) != 2 || us[0].UsageData.Size != -1 || us[1].UsageData.RefCount != 1 || us[1].UsageData.Size != 0 {
		t.Errorf("usage %+v, %v", us, err)
	}
}

func TestDeviceIsMountedWhileUsed(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("kernel tests need root")
		}
		t.Skip("kernel tests need root")
	}
	b := open(t)
	b.must(t, wire.VolumeCreate{Name: "tm", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5,noexec"}})
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.must(t, wire.VolumeCreate{Name: "bi", DriverOpts: map[string]string{"type": "none", "device": src, "o": "bind,ro"}})
	c1, c2 := id.New(), id.New()
	path := b.Path(ctx, "tm")
	for _, c := range []string{c1, c1, c2} {
		if _, err := b.Mount(ctx, c, "tm"); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Blocks*uint64(st.Bsize) != 1<<20 || st.Flags&unix.ST_NOEXEC == 0 {
		t.Errorf("tmpfs: %+v %v", st, err)
	}
	if err := b.Unmount(ctx, c1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Error("unmounted while the second container has it")
	}
	m, err := b.Mount(ctx, c2, "bi")
	if err != nil || m.Fresh {
		t.Errorf("bind: %+v, %v", m, err)
	}
	if err := os.WriteFile(filepath.Join(m.Path, "g"), nil, 0o600); err == nil {
		t.Error("a read-only bind can be written")
	}
	if _, err := b.Forget(ctx, c2); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tm", "bi"} {
		var sx unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, b.Path(ctx, name), 0, 0, &sx); err != nil || sx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			t.Errorf("%s is still mounted (%v)", name, err)
		}
	}
	b.must(t, wire.VolumeCreate{Name: "bad", DriverOpts: map[string]string{"type": "nosuchfs", "device": "x"}})
	if _, err := b.Mount(ctx, c1, "bad"); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("an unknown file system: %v", err)
	}
	if err := b.Remove(ctx, "tm", RemoveOptions{Force: true}); !errs.Is(err, errs.Conflict) {
		t.Errorf("unmount dropped the claim: %v", err)
	}
}
