package clients_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// TestVolumePlugin: a volume driver that is another program, through its life,
// its refusals, its hangs and its absence.
func TestVolumePlugin(t *testing.T) {
	d := testkit.StartBusybox(t)
	p := testkit.StartVolumePlugin(t, filepath.Join(d.Run, "plugins", "sample.sock"))
	no := func(text string, args ...string) {
		t.Helper()
		if out, err := d.Gantry(args...); err == nil || !strings.Contains(out+err.Error(), text) {
			t.Errorf("%v: %v, %q; want %q", args, err, out, text)
		}
	}
	is := func(want string, args ...string) {
		t.Helper()
		if got := d.OK(t, args...); got != want {
			t.Errorf("%v: %q, want %q", args, got, want)
		}
	}
	d.OK(t, "volume", "create", "-d", "sample", "-o", "a=b", "--label", "l=1", "data")
	if o, ok := p.Options("data"); !ok || o["a"] != "b" {
		t.Errorf("options %v, %v", o, ok)
	}
	is("sample global map[callers:0]", "volume", "inspect", "-f", "{{.Driver}} {{.Scope}} {{.Status}}", "data")
	no("driver 'sample' already has volume 'data'", "volume", "create", "data")
	d.OK(t, "run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/f")
	d.OK(t, "run", "-d", "--name", "one", "--mount", "type=volume,src=data,dst=/d,volume-driver=sample", "busybox", "sleep", "1000")
	d.OK(t, "run", "-d", "--name", "two", "-v", "data:/d:ro", "busybox", "sleep", "1000")
	is("kept", "exec", "two", "cat", "/d/f")
	if m := p.Mounts("data"); len(m) != 2 {
		t.Errorf("mounted for %v", m)
	}
	is(p.Dir("data"), "volume", "inspect", "-f", "{{.Mountpoint}}", "data")
	no("volume is in use", "volume", "rm", "-f", "data")
	d.OK(t, "rm", "-f", "two")
	if m := p.Mounts("data"); len(m) != 1 {
		t.Errorf("mounted for %v", m)
	}

	// What it refuses, users read.
	p.Refuse("Create", "no room")
	no("create more: VolumeDriver.Create: no room", "volume", "create", "-d", "sample", "more")
	no("get more: no such volume", "volume", "inspect", "more")
	p.Refuse("Create", "")
	p.Refuse("Mount", "it burns")
	no("VolumeDriver.Mount: it burns", "run", "--rm", "-v", "data:/d", "busybox", "true")
	p.Refuse("Mount", "")
	d.OK(t, "volume", "create", "-d", "sample", "more")
	p.Refuse("Remove", "not mine")
	no("remove more: VolumeDriver.Remove: not mine", "volume", "rm", "more")
	is("more", "volume", "ls", "-q", "-f", "name=more")
	d.OK(t, "volume", "rm", "-f", "more")
	p.Refuse("Remove", "")

	// It hangs: others do not wait.
	p.Hang("Create", "Mount", "List", "Get")
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		_, _ = d.Gantry("volume", "create", "-d", "sample", "slow")
	}()
	began := time.Now()
	d.OK(t, "volume", "create", "other")
	d.OK(t, "run", "--rm", "-v", "other:/o", "busybox", "true")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("others waited %v", took)
	}
	if out := d.OK(t, "volume", "ls", "-q"); !strings.Contains(out, "other") || time.Since(began) > 40*time.Second {
		t.Errorf("after %v: %s", time.Since(began), out)
	}
	p.Hang()

	// It is away while the container ends and the daemon restarts.
	p.Close()
	<-hung
	d.Kill()
	d.Start(t)
	d.OK(t, "rm", "-f", "one")
	if out := d.OK(t, "volume", "ls", "-q"); !strings.Contains(out, "data") {
		t.Errorf("%s", out)
	}
	no("sample", "run", "--rm", "-v", "data:/d", "busybox", "true")
	p.Listen(t)
	is("kept", "run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/f")
	if m := p.Mounts("data"); len(m) != 0 {
		t.Errorf("still mounted for %v", m)
	}
	d.OK(t, "volume", "rm", "data")
	if _, ok := p.Options("data"); ok {
		t.Error("it has the volume still")
	}
}

// TestVolumePluginFound: volumes that only the plugin knows, and a plugin that is
// not there.
func TestVolumePluginFound(t *testing.T) {
	d := testkit.StartBusybox(t)
	p := testkit.StartVolumePlugin(t, filepath.Join(d.Run, "plugins", "found", "found.sock"))
	if out, err := d.Gantry("volume", "create", "-d", "nosuch", "v9"); err == nil || !strings.Contains(out+err.Error(), `create v9: error looking up volume plugin nosuch: plugin "nosuch" not found`) {
		t.Errorf("%v %s", err, out)
	}
	for _, name := range []string{"../found", "a/b", "."} {
		if out, err := d.Gantry("volume", "create", "-d", name, "v9"); err == nil || !strings.Contains(out+err.Error(), "not found") {
			t.Errorf("%v %s", err, out)
		}
	}
	d.OK(t, "volume", "create", "-d", "found", "mine")
	d.OK(t, "volume", "rm", "mine")
	p.ServeVolume("theirs")
	if got := d.OK(t, "volume", "ls", "--format", "{{.Driver}} {{.Name}}"); got != "found theirs" {
		t.Errorf("%q", got)
	}
	if got := d.OK(t, "volume", "inspect", "-f", "{{.Driver}} {{.CreatedAt}}", "theirs"); got != "found 2020-01-02T03:04:05Z" {
		t.Errorf("%q", got)
	}
	if got := d.OK(t, "info", "-f", "{{.Plugins.Volume}}"); got != "[local found]" {
		t.Errorf("%q", got)
	}
	// What the image has goes into a fresh one.
	d.OK(t, "run", "--name", "cc", "--volume-driver", "found", "-v", "fresh:/bin", "busybox", "true")
	if _, err := os.Lstat(filepath.Join(p.Dir("fresh"), "busybox")); err != nil {
		t.Error(err)
	}
	if !slices.Contains(p.Calls(), "Mount fresh") {
		t.Error("not mounted")
	}
	d.OK(t, "rm", "-v", "cc")
	d.OK(t, "volume", "rm", "fresh")
}
