package clients_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestTransfers: what a volume holds goes into a file, another volume and back,
// with owners, links, holes and attributes.
func TestTransfers(t *testing.T) {
	d := testkit.StartBusybox(t)
	no := func(text string, args ...string) {
		t.Helper()
		if out, err := d.Gantry(args...); err == nil || !strings.Contains(out+err.Error(), text) {
			t.Errorf("%v: %v, %q; want %q", args, err, out, text)
		}
	}
	const fill = "cd /v && echo a > a && ln a b && ln -s a l && mkdir -p d/e && chown 5:6 d && chmod 711 d && mkfifo p && truncate -s 50M big && echo end >> big"
	const look = `cd /v && ls -a | tr '\n' ' ' && stat -c '%h %u:%g %a' a d && readlink l && tail -c 4 big && stat -c %s big && [ $(du -k big | cut -f1) -lt 2000 ] && echo sparse; [ -p p ] && echo fifo`
	const want = ". .. a b big d l p 2 0:0 644\n3 5:6 711\na\nend\n52428804\nsparse\nfifo"
	d.OK(t, "run", "--rm", "-v", "from:/v", "busybox", "sh", "-c", fill)
	shows := func(name string) {
		t.Helper()
		if got := d.OK(t, "run", "--rm", "-v", name+":/v", "busybox", "sh", "-c", look); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	shows("from")
	file := filepath.Join(t.TempDir(), "v.tar")
	d.OK(t, "volume", "export", "-o", file, "from")
	if got := d.OK(t, "volume", "import", "-i", file, "read"); got != "read" {
		t.Errorf("%q", got)
	}
	shows("read")
	no("the volume holds something already", "volume", "import", "-i", file, "read")
	no("no such volume", "volume", "export", "-o", file+"2", "nosuch")
	if _, err := os.Stat(file + "2"); err == nil {
		t.Error("a file of nothing")
	}
	broken := filepath.Join(t.TempDir(), "broken.tar")
	if data, err := os.ReadFile(file); err != nil || os.WriteFile(broken, data[:len(data)/3], 0o600) != nil {
		t.Fatal(err)
	}
	no("", "volume", "import", "-i", broken, "part")
	no("no such volume", "volume", "inspect", "part")

	d.OK(t, "volume", "create", "--label", "keep=1", "labelled")
	d.OK(t, "run", "--rm", "-v", "labelled:/v", "busybox", "sh", "-c", fill)
	if got := d.OK(t, "volume", "clone", "labelled", "copy"); got != "copy" {
		t.Errorf("%q", got)
	}
	shows("copy")
	no("a volume named copy exists already", "volume", "clone", "labelled", "copy")
	no("no such volume", "volume", "clone", "nosuch", "other")
	no("only \"[a-zA-Z0-9]", "volume", "clone", "labelled", "a/b")
	snap := d.OK(t, "volume", "snapshot", "labelled")
	if got := d.OK(t, "volume", "inspect", "-f", `{{index .Labels "gantry.snapshot.of"}} {{.Labels.keep}}`, snap); got != "labelled 1" || !strings.HasPrefix(snap, "labelled-") {
		t.Errorf("%q %q", snap, got)
	}
	shows(snap)
	// What is written later is not in it.
	d.OK(t, "run", "--rm", "-v", "labelled:/v", "busybox", "rm", "/v/a", "/v/b")
	shows(snap)
	// A volume of a device is mounted for it.
	d.OK(t, "volume", "create", "-o", "type=none", "-o", "device="+t.TempDir(), "-o", "o=bind", "dev")
	d.OK(t, "run", "--rm", "-v", "dev:/v", "busybox", "sh", "-c", fill)
	d.OK(t, "volume", "clone", "dev", "undev")
	shows("undev")
	d.OK(t, "volume", "rm", "from", "read", "labelled", "copy", snap, "dev", "undev")
	if got := d.OK(t, "volume", "ls", "-q"); got != "" {
		t.Errorf("left: %q", got)
	}
}
