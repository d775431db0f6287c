package clients_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
	"gantry/internal/wire"
)

// loadImage loads an image of one layer with files of content.
func loadImage(t *testing.T, d *testkit.Daemon, ref string, files ...testkit.File) {
	t.Helper()
	var tar bytes.Buffer
	if err := (testkit.Image{Ref: ref, Layers: [][]byte{testkit.Layer(files...)}}).DockerArchive(&tar); err != nil {
		t.Fatal(err)
	}
	resp, err := d.Client().Post("http://gantry/images/load", "application/x-tar", &tar)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var said bytes.Buffer
	if _, err := said.ReadFrom(resp.Body); err != nil || !strings.Contains(said.String(), "Loaded image") {
		t.Fatalf("load: %s %v", said.String(), err)
	}
}

// TestRemovalIsQuick: who removes an image of 20,000 files does not wait for
// the disk, and others can load meanwhile.
func TestRemovalIsQuick(t *testing.T) {
	d := testkit.StartDaemon(t)
	files := make([]testkit.File, 20000)
	for i := range files {
		files[i] = testkit.File{Name: fmt.Sprintf("d%d/f%d", i%100, i), Data: []byte("x")}
	}
	loadImage(t, d, "many:1", files...)
	snapshots := filepath.Join(filepath.Dir(d.Socket), "lib/snapshots/snapshots")
	if left, err := os.ReadDir(snapshots); err != nil || len(left) != 1 {
		t.Fatalf("%d layers, %v", len(left), err)
	}
	began := time.Now()
	out := d.OK(t, "rmi", "many:1")
	took := time.Since(began)
	if !strings.Contains(out, "Deleted: sha256:") {
		t.Errorf("%s", out)
	}
	began = time.Now()
	loadImage(t, d, "few:1", testkit.File{Name: "f"})
	t.Logf("rmi of 20,000 files: %v; a load after it: %v", took, time.Since(began))
	if took > 10*time.Second { // 30 ms here; other tests run beside
		t.Errorf("rmi took %v", took)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if left, _ := os.ReadDir(snapshots); len(left) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the files stay")
		}
	}
}

// TestJobs: a prune in the background, its list, its report and its end.
func TestJobs(t *testing.T) {
	d := testkit.StartBusybox(t)
	for i := range 5 {
		d.OK(t, "run", "--name", fmt.Sprintf("done%d", i), "busybox", "sh", "-c", "echo content >/f")
	}
	d.OK(t, "run", "-d", "--name", "up", "busybox", "sleep", "1000")
	d.OK(t, "network", "create", "idle")
	job := strings.TrimSpace(d.OK(t, "system", "prune", "-f", "--background"))
	out := d.OK(t, "jobs", "wait", job[:10])
	if strings.Count(out, "\n") < 8 || !strings.Contains(out, "Deleted Containers:\n") || !strings.Contains(out, "Deleted Networks:\nidle\n") || !strings.Contains(out, "Total reclaimed space: ") {
		t.Errorf("%s", out)
	}
	list := d.OK(t, "jobs", "ls", "--format", "{{.ID}} {{.Kind}} {{.State}} {{.Removed}}")
	if want := job[:12] + " prune done 6"; list != want {
		t.Errorf("%q, want %q", list, want)
	}
	if got := d.OK(t, "ps", "-a", "--format", "{{.Names}}"); got != "up" {
		t.Errorf("containers: %q", got)
	}
	d.OK(t, "jobs", "cancel", job)
	if got := d.OK(t, "jobs", "ls", "-q"); got != "" {
		t.Errorf("forgotten, but listed: %q", got)
	}
	if _, err := d.Gantry("jobs", "wait", "nosuch"); err == nil || !strings.Contains(err.Error(), "No such job: nosuch") {
		t.Error(err)
	}
	if _, err := d.Gantry("system", "prune", "-f", "--background", "--volumes", "--filter", "until=1h"); err == nil || !strings.Contains(err.Error(), "until") {
		t.Errorf("volumes have no age: %v", err)
	}
	d.OK(t, "rm", "-f", "up")
}

// TestDiskBudget fills a small file system beyond its budget: the least recently
// used images go, but no pinned and no used one, and all are told.
func TestDiskBudget(t *testing.T) {
	root := loopDisk(t, 96<<20)
	d := testkit.StartDaemon(t, "--data-root", root, "--disk-budget", "60%,low=45%")
	noise := func(ref string, mb int) {
		data := make([]byte, mb<<20)
		rand.Read(data)
		loadImage(t, d, ref, testkit.File{Name: ref[:1], Data: data})
	}
	began := time.Now()
	d.LoadBusybox(t) // some 3 MB
	d.OK(t, "create", "--name", "user", "busybox", "true")
	noise("pinned:1", 5) // 10 MB each, packed and unpacked
	d.OK(t, "image", "pin", "pinned:1")
	noise("old:1", 5)
	noise("mid:1", 5)
	if out := d.OK(t, "info"); !strings.Contains(out, "Disk budget: ") || strings.Contains(out, "too much") {
		t.Errorf("info: %s", out)
	}
	for i := range 8 { // 80 MB more would fill the disk
		noise(fmt.Sprintf("%c:1", 'a'+i), 5)
		waitBudget(t, d)
	}
	names := d.OK(t, "images", "--format", "{{.Repository}}")
	for _, gone := range []string{"old", "mid", "a"} {
		if strings.Contains("\n"+names+"\n", "\n"+gone+"\n") {
			t.Errorf("%s is still there:\n%s", gone, names)
		}
	}
	for _, kept := range []string{"busybox", "pinned", "h"} {
		if !strings.Contains("\n"+names+"\n", "\n"+kept+"\n") {
			t.Errorf("%s is gone:\n%s", kept, names)
		}
	}
	d.OK(t, "start", "user")
	if list := eventsSince(t, d, began, `{"type":["image"],"event":["prune"]}`); len(list) == 0 || list[0].Actor.Attributes["reason"] != "disk budget" {
		t.Errorf("events: %+v", list)
	}
	if out := d.OK(t, "system", "df"); !strings.Contains(out, "Disk budget: ") {
		t.Errorf("df: %s", out)
	}
	if out := d.OK(t, "image", "prune", "-af"); strings.Contains(out, "pinned") {
		t.Errorf("a pinned image was pruned: %s", out)
	}
	d.OK(t, "image", "unpin", "pinned:1")
	if out := d.OK(t, "image", "prune", "-af"); !strings.Contains(out, "untagged: pinned:1") {
		t.Errorf("an unpinned image stays: %s", out)
	}
	d.OK(t, "rm", "-f", "user")
}

// waitBudget waits until the budget is kept.
func waitBudget(t *testing.T, d *testkit.Daemon) {
	t.Helper()
	time.Sleep(250 * time.Millisecond) // the keeper looks 100 ms after an image has come
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		running := strings.Contains(d.OK(t, "jobs", "ls", "--format", "{{.State}}"), "running")
		resp, err := d.Client().Get("http://gantry/gantry/disk")
		if err != nil {
			t.Fatal(err)
		}
		var b wire.DiskBudget
		err = json.NewDecoder(resp.Body).Decode(&b)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if !running && !b.Over && b.High > 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the budget is not kept: %+v", b)
		}
	}
}

// loopDisk mounts an ext4 of size bytes for the time of a test.
func loopDisk(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	file, at := filepath.Join(dir, "disk"), filepath.Join(dir, "at")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range [][]string{{"mkfs.ext4", "-q", "-m", "0", file}, {"mount", "-o", "loop", file, at}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v %s", cmd, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return at
}

// TestCompletion asks for what a press of the tab key offers.
func TestCompletion(t *testing.T) {
	d := testkit.StartBusybox(t)
	d.OK(t, "create", "--name", "web", "busybox", "true")
	d.OK(t, "network", "create", "backnet")
	d.OK(t, "volume", "create", "datavol")
	for args, want := range map[string]string{
		"rm ": "web", "container inspect ": "web", "rmi ": "busybox", "image pin ": "busybox", "network rm ": "backnet", "network inspect ": "backnet",
		"network connect ": "backnet", "network connect backnet ": "web", "volume rm ": "datavol", "volume inspect ": "datavol", "context use ": "default", "completion ": "powershell",
	} {
		out := d.OK(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if !strings.Contains("\n"+out, "\n"+want) {
			t.Errorf("%q offers %q, want %s", args, out, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := d.OK(t, "completion", shell); !strings.Contains(out, "__complete") {
			t.Errorf("%s: %.100q", shell, out)
		}
	}
	d.OK(t, "rm", "web")
}
