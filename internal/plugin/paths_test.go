package plugin

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// managed makes a plugin with a root of its own, and a directory of the host that
// is none of its business.
func managed(t *testing.T) (p *Plugins, root, host string) {
	t.Helper()
	root, host = t.TempDir(), t.TempDir()
	for at, text := range map[string]string{"data/v/f": "volume", host + "/f": "plugin"} {
		at = filepath.Join(root, at)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(host, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	p = New(Options{})
	p.Add("sample:latest", Endpoint{Network: "unix", Root: root})
	return p, root, host
}

// content is the file f of what was located.
func content(t *testing.T, f *os.File) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(descriptor(f), "f"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What was found stays what is used, whatever the plugin puts in its place.
func TestLocatedIsWhatIsUsed(t *testing.T) {
	p, root, _ := managed(t)
	v, link := filepath.Join(root, "data/v"), filepath.Join(root, "link")
	place, f, err := p.Locate("sample", "/data/v")
	if err != nil || place != v {
		t.Fatal(place, err)
	}
	defer f.Close()
	if err := unix.Renameat2(unix.AT_FDCWD, v, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(place, "f")); err != nil || string(data) != "host" {
		t.Fatalf("by its path: %q, %v; the test shows nothing", data, err)
	}
	if got := content(t, f); got != "volume" {
		t.Errorf("by its descriptor: %q", got)
	}
	// A link leads to where the plugin itself would get.
	place, f, err = p.Locate("sample", "/data/v")
	if err != nil || !strings.HasPrefix(place, root) {
		t.Fatal(place, err)
	}
	defer f.Close()
	if got := content(t, f); got != "plugin" {
		t.Errorf("by a link: %q", got)
	}
	if _, _, err := p.Locate("sample", "data/v"); err == nil {
		t.Error("a relative path was taken")
	}
	if _, _, err := p.Locate("sample", "/nothing"); err == nil {
		t.Error("what is not there was found")
	}
	// One of the host's own programs says paths of the host.
	if place, f, err := p.Locate("other", "/data/v"); place != "/data/v" || f != nil || err != nil {
		t.Error(place, f, err)
	}
}

func TestLocateWhileSwapping(t *testing.T) {
	p, root, _ := managed(t)
	v, link := filepath.Join(root, "data/v"), filepath.Join(root, "link")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, v, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 500 {
		_, f, err := p.Locate("sample", "/data/v")
		if err != nil {
			t.Error(err)
			break
		}
		if got := content(t, f); got == "host" {
			t.Error("the host's was reached")
		}
		f.Close()
	}
	close(stop)
	<-done
}

// A link in the place of a plugin's socket leads to nobody.
func TestDialSocket(t *testing.T) {
	dir := t.TempDir()
	at, link := filepath.Join(dir, "s.sock"), filepath.Join(dir, "l.sock")
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink(at, link); err != nil {
		t.Fatal(err)
	}
	c, err := DialSocket(context.Background(), at)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for _, path := range []string{link, dir} {
		if c, err := DialSocket(context.Background(), path); err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Error(path, c, err)
		}
	}
	if _, err := DialSocket(context.Background(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
