package clients

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// storage is a storage driver and what its data root is on.
type storage struct {
	driver string
	on     func(t *testing.T) string // returns the data root; nil for the test's own directory
}

// TestStorageDrivers has the same stories told on every storage driver.
func TestStorageDrivers(t *testing.T) {
	for _, s := range []storage{{"overlayfs", nil}, {"vfs", nil}, {"vfs", overOverlay}, {"erofs", nil}, {"btrfs", btrfsDisk}} {
		name := s.driver
		if s.on != nil && s.driver == "vfs" {
			name += "-where-overlayfs-does-not-work"
		}
		t.Run(name, func(t *testing.T) {
			args := []string{"--storage-driver", s.driver}
			if s.on != nil {
				args = append(args, "--data-root", s.on(t))
			}
			d := testkit.StartBusybox(t, args...)
			if got := d.OK(t, "info", "-f", "{{.Driver}}"); got != s.driver {
				t.Errorf("info names the driver %s", got)
			}
			layered(t, d)
			lifeOf(t, d)
			many(t, d)
			crashed(t, d)
		})
	}
}

// layered loads an image whose layers hide and replace what those below have.
func layered(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	base, err := testkit.BusyboxImage("layered:1")
	if err != nil {
		t.Fatal(err)
	}
	base.Layers = append(base.Layers,
		testkit.Layer(testkit.File{Name: "data/"}, testkit.File{Name: "data/gone", Data: []byte("1")}, testkit.File{Name: "data/kept", Data: []byte("old")},
			testkit.File{Name: "data/sub/"}, testkit.File{Name: "data/sub/below", Data: []byte("1")}, testkit.File{Name: "data/setuid", Data: []byte("x"), Mode: 0o4755, UID: 7}),
		testkit.Layer(testkit.File{Name: "data/.wh.gone"}, testkit.File{Name: "data/kept", Data: []byte("new")},
			testkit.File{Name: "data/sub/"}, testkit.File{Name: "data/sub/.wh..wh..opq"}, testkit.File{Name: "data/sub/above", Data: []byte("2")}))
	var tar bytes.Buffer
	if err := base.DockerArchive(&tar); err != nil {
		t.Fatal(err)
	}
	resp, err := d.Client().Post("http://gantry/images/load", "application/x-tar", &tar)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	if got := d.OK(t, "run", "--rm", "layered:1", "sh", "-c", "cd /data; find . | sort | xargs; cat kept; stat -c ' %a %u' setuid"); got != "./kept ./setuid ./sub ./sub/above\nnew 4755 7" && got != ". ./kept ./setuid ./sub ./sub/above\nnew 4755 7" {
		t.Errorf("the layers show %q", got)
	}
	d.OK(t, "rmi", "layered:1")
}

// lifeOf is a container from its first write to an image of it.
func lifeOf(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	d.OK(t, "run", "--name", "box", "busybox", "sh", "-c", "echo new >/new; echo more >>/etc/passwd; rm /bin/vi; mkdir /d; dd if=/dev/zero of=/d/big bs=1M count=3 2>/dev/null; chmod 700 /home")
	changes := strings.Split(d.OK(t, "diff", "box"), "\n")
	want := []string{"A /d", "A /d/big", "A /new", "C /bin", "C /etc", "C /etc/passwd", "C /home", "D /bin/vi"}
	for _, w := range want {
		found := false
		for _, c := range changes {
			found = found || c == w
		}
		if !found {
			t.Errorf("diff lacks %q: %q", w, changes)
		}
	}
	if len(changes) != len(want) {
		t.Errorf("diff says %q", changes)
	}
	if got := d.OK(t, "ps", "-as", "--filter", "name=box", "--format", "{{.Size}}"); !strings.HasPrefix(got, "3.1") {
		t.Errorf("size %q", got)
	}
	d.OK(t, "start", "box") // what it has written stays
	d.OK(t, "wait", "box")
	d.OK(t, "commit", "box", "made:1")
	if got := d.OK(t, "run", "--rm", "made:1", "sh", "-c", "cat /new; tail -n1 /etc/passwd; ls /bin/vi 2>&1; stat -c %a:%s /home /d/big"); !strings.HasPrefix(got, "new\nmore\nls: /bin/vi: No such file or directory\n700:") || !strings.HasSuffix(got, ":3145728") {
		t.Errorf("the commit shows %q", got)
	}
	if got := d.OK(t, "run", "--rm", "busybox", "sh", "-c", "ls /new /bin/vi 2>&1; true"); !strings.Contains(got, "/new: No such") || !strings.Contains(got, "/bin/vi") {
		t.Errorf("the image has changed: %q", got)
	}
	file := filepath.Join(t.TempDir(), "copied")
	d.OK(t, "cp", "box:/new", file)
	if data, err := os.ReadFile(file); err != nil || string(data) != "new\n" {
		t.Errorf("cp: %q %v", data, err)
	}
	d.OK(t, "run", "--rm", "--read-only", "-v", "/home", "--user", "1000:1000", "busybox", "sh", "-c", "! touch /x 2>/dev/null && ls /home")
	d.OK(t, "rm", "box")
	d.OK(t, "rmi", "made:1")
}

// many starts and removes containers beside each other.
func many(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	done := make(chan error)
	const n = 6
	for i := range n {
		go func() {
			out, err := d.Gantry("run", "--rm", "busybox", "sh", "-c", fmt.Sprintf("echo %d >/mine; cat /mine", i))
			if err == nil && strings.TrimSpace(out) != fmt.Sprint(i) {
				err = fmt.Errorf("container %d says %q", i, out)
			}
			done <- err
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// crashed kills the daemon while it works; afterwards what ran runs, what is new
// starts, and nothing is left over.
func crashed(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	d.OK(t, "run", "-d", "--name", "stays", "busybox", "sh", "-c", "echo here >/here; sleep 300")
	for i := range 3 {
		end := make(chan struct{})
		go func() {
			defer close(end)
			d.Gantry("run", "--rm", "busybox", "true")
		}()
		time.Sleep(time.Duration(10+40*i) * time.Millisecond)
		d.Kill()
		<-end
		d.Start(t)
	}
	if got := d.OK(t, "exec", "stays", "cat", "/here", "/bin/../etc/hostname"); !strings.HasPrefix(got, "here") {
		t.Errorf("after the crash: %q", got)
	}
	d.OK(t, "restart", "-t", "0", "stays")
	d.OK(t, "rm", "-f", "stays")
	d.OK(t, "run", "--rm", "busybox", "true")
	if out, err := d.Gantry("doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}

// TestDriversSwitch changes the driver and back: images and containers stay.
func TestDriversSwitch(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "run", "--name", "old", "busybox", "sh", "-c", "echo $((1+$(cat /n 2>/dev/null || echo 0))) >/n; cat /n")
	for _, driver := range []string{"vfs", "erofs", "overlay2"} {
		d.Stop(t)
		d.Reconfigure("--storage-driver", driver)
		d.Start(t)
		d.OK(t, "image", "inspect", "busybox")
		d.OK(t, "run", "--name", driver, "busybox", "cat", "/etc/passwd")
		d.OK(t, "start", "old")
		d.OK(t, "wait", "old")
	}
	if got := d.OK(t, "logs", "old"); got != "1\n2\n3\n4" {
		t.Errorf("the container of the first driver: %q", got)
	}
	for _, driver := range []string{"vfs", "erofs"} {
		d.OK(t, "start", driver)
		if got := d.OK(t, "wait", driver); got != "0" {
			t.Errorf("the container of %s ends with %s", driver, got)
		}
	}
	if got := d.OK(t, "inspect", "-f", "{{.Driver}}", "vfs"); got != "vfs" {
		t.Errorf("driver of a container of vfs: %s", got)
	}
}

// overOverlay returns a data root on an overlay, which can't be the upper layer
// of another one.
func overOverlay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"l", "u", "w", "m"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(dir, "m")
	run(t, "mount", "-t", "overlay", "overlay", "-o", fmt.Sprintf("lowerdir=%s/l,upperdir=%s/u,workdir=%s/w", dir, dir, dir), at)
	t.Cleanup(func() { run(t, "umount", at) })
	return filepath.Join(at, "root")
}

// btrfsDisk returns a data root on btrfs.
func btrfsDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file, at := filepath.Join(dir, "disk"), filepath.Join(dir, "m")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "truncate", "-s", "512M", file)
	run(t, "mkfs.btrfs", "-q", file)
	run(t, "mount", "-o", "loop", file, at)
	t.Cleanup(func() { run(t, "umount", at) })
	return filepath.Join(at, "root")
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
