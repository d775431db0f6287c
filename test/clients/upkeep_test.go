package clients_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
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
	if took > 500*time.Millisecond { // 30 ms here; other tests run beside
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
